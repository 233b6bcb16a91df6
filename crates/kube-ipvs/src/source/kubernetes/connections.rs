//! The connections to the API server and their credentials.

use std::{env, fs, path::PathBuf, sync::Arc, thread, time::Duration};

use anyhow::{Context, anyhow};
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Config,
    client::{AuthError, Body, ConfigExt},
    config::ExecConfig,
};
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tower::{
    BoxError, ServiceBuilder, ServiceExt,
    util::{BoxCloneService, MapRequestLayer},
};

use super::{connect::Resolver, kubeconfig::Access, limits::Limits, proxy, trust::Trust};

/// How long connecting may take, over all addresses of the API server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// TCP keepalive idle time, probe interval and probe count, and `TCP_USER_TIMEOUT`. On an idle watch only keepalive
/// detects a peer that vanished, after 10 s and three probes 5 s apart.
const KEEPALIVE: (Duration, Duration, u32, Duration) =
    (Duration::from_secs(10), Duration::from_secs(5), 3, Duration::from_secs(20));
pub(super) type Http = BoxCloneService<Request<Body>, Response<Incoming>, BoxError>;

/// The content of the client certificate, its key and the CA file.
type Content = Vec<Option<Vec<u8>>>;

/// Opens connections to the API server with the present client certificate and CA, and never with replaced ones.
pub(super) struct Connections {
    access: Access,
    limits: Limits,
    resolver: Resolver,
    files: Vec<PathBuf>,
    content: Content,
    http: Http,
    made: Instant,
    /// Whether the API server has rejected the credentials since `made`.
    is_refused: bool,
    next: Option<Making>,
}

/// A client in the making. An exec plugin can take long, so a separate thread waits for it.
struct Making {
    content: Content,
    start: Instant,
    http: oneshot::Receiver<anyhow::Result<Http>>,
}

impl Connections {
    pub(super) async fn new(access: &Access, limits: Limits, resolver: Resolver) -> anyhow::Result<Self> {
        let auth = &access.config.auth_info;
        let files = [&auth.client_certificate, &auth.client_key].into_iter().flatten().map(PathBuf::from);
        let files: Vec<PathBuf> = files.chain(access.config.root_cert_file.clone()).collect();
        let mut making = Making::start(&files, access, &limits, &resolver)?;
        let http = making.end(&limits).await.unwrap_or_else(|| Err(no_answer(access, &limits)))?;
        let (access, content, made) = (access.clone(), making.content, Instant::now());
        Ok(Self { access, limits, resolver, files, content, http, made, is_refused: false, next: None })
    }

    /// The client with the certificates that the files hold now. If they do not fit together, as between the writes of
    /// certificate and key, the last client stays in use.
    ///
    /// # Errors
    ///
    /// If the API server rejected the credentials and the exec plugin returns no others in time. kube-ipvs never runs
    /// the plugin twice at a time.
    pub(super) async fn now(&mut self) -> anyhow::Result<Http> {
        // The plugin's credentials may have expired.
        let is_plugin_due = self.is_refused
            && self.access.config.auth_info.exec.is_some()
            && self.made.elapsed() >= self.limits.longest_pause;
        if self.next.is_none() && (is_plugin_due || read(&self.files) != self.content) {
            self.next = Some(Making::start(&self.files, &self.access, &self.limits, &self.resolver)?);
        }
        if let Some(making) = &mut self.next {
            match making.end(&self.limits).await {
                None if self.is_refused => return Err(no_answer(&self.access, &self.limits)),
                None => return Ok(self.http.clone()),
                Some(Ok(http)) => (self.http, self.content) = (http, std::mem::take(&mut making.content)),
                Some(Err(error)) => {
                    tracing::debug!("cannot use the changed credentials: {error:#}");
                }
            }
            (self.next, self.made, self.is_refused) = (None, Instant::now(), false);
        }
        Ok(self.http.clone())
    }

    /// The API server answered 401.
    pub(super) fn refused(&mut self) {
        self.is_refused = true;
    }
}

impl Making {
    fn start(files: &[PathBuf], access: &Access, limits: &Limits, resolver: &Resolver) -> anyhow::Result<Self> {
        // Read before use, so that kube-ipvs detects a file that is replaced meanwhile.
        let content = read(files);
        let (access, limits, resolver) = (access.clone(), *limits, resolver.clone());
        let (done, http) = oneshot::channel();
        let runtime = Handle::current();
        // A blocking thread of the runtime would delay its shutdown until the plugin ends.
        thread::Builder::new().name("credentials".into()).spawn(move || {
            let _runtime = runtime.enter();
            let _ = done.send(connect(&access, &limits, &resolver));
        })?;
        Ok(Self { content, start: Instant::now(), http })
    }

    /// `None` if the client takes longer than an exec plugin may. The time counts from the start, so that all waiting
    /// requests fail together.
    async fn end(&mut self, limits: &Limits) -> Option<anyhow::Result<Http>> {
        let outcome = timeout_at(self.start + limits.plugin, &mut self.http).await.ok()?;
        Some(outcome.unwrap_or_else(|_| Err(anyhow!("the thread that makes a client has ended"))))
    }
}

fn no_answer(access: &Access, limits: &Limits) -> anyhow::Error {
    let exec = access.config.auth_info.exec.as_ref();
    let command = exec.and_then(|exec| exec.command.as_deref()).unwrap_or_default();
    let time = limits.plugin;
    anyhow!("the kubeconfig's exec plugin {command:?} has not answered for {time:?}: run it by hand on this node")
}

fn read(files: &[PathBuf]) -> Content {
    files.iter().map(|file| fs::read(file).ok()).collect()
}

fn connect(access: &Access, limits: &Limits, resolver: &Resolver) -> anyhow::Result<Http> {
    let mut config = access.config.clone();
    let token_file = config.auth_info.token_file.take();
    if token_file.is_some() {
        // As in kubectl, the token file takes precedence.
        config.auth_info.token = None;
    }
    let auth = config.auth_layer().map_err(|error| credentials_error(&error, config.auth_info.exec.as_ref()))?;
    if let Some(path) = config.root_cert_file.take() {
        let text = fs::read(&path).with_context(|| format!("certificate-authority {}", path.display()))?;
        let certificates = CertificateDer::pem_slice_iter(&text).map(|found| anyhow::Ok(found?.to_vec()));
        let certificates = certificates.collect::<anyhow::Result<Vec<_>>>();
        config.root_cert = Some(certificates.with_context(|| format!("certificate-authority {}", path.display()))?);
    }
    let (time, interval, retries, unconfirmed) = KEEPALIVE;
    let mut connector = HttpConnector::new_with_resolver(resolver.clone());
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_nodelay(true);
    connector.set_keepalive(Some(time));
    connector.set_keepalive_interval(Some(interval));
    connector.set_keepalive_retries(Some(retries));
    connector.set_tcp_user_timeout(Some(unconfirmed));
    let tls = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls(&config)?).https_or_http();
    let tls = match &config.tls_server_name {
        Some(name) => tls.with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(
            name.clone().try_into().with_context(|| format!("tls-server-name {name:?}"))?,
        )),
        None => tls,
    };
    // With HTTP/2 all watches share one connection. Its pings also detect a dead server behind a load balancer.
    let client = HttpClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        // A watch takes its connection from the pool once. If the pool dropped it within the life of a watch, each new
        // watch would open another connection.
        .pool_idle_timeout(limits.watch.saturating_mul(3))
        .http2_keep_alive_interval(limits.ping)
        .http2_keep_alive_timeout(limits.pong)
        .http2_keep_alive_while_idle(true)
        .build(tls.enable_all_versions().wrap_connector(proxy::connector(connector, access.proxy.as_ref())));
    let service = ServiceBuilder::new()
        .option_layer(auth)
        .option_layer(token_file.map(token_from).transpose()?)
        .map_err(BoxError::from)
        .service(client);
    Ok(service.map_err(BoxError::from).boxed_clone())
}

fn tls(config: &Config) -> anyhow::Result<rustls::ClientConfig> {
    let mut tls = config.rustls_client_config().map_err(|error| {
        anyhow!(
            "cannot set up TLS: {error}. Set certificate-authority in the kubeconfig, or install CA certificates on \
             this system"
        )
    })?;
    let known = config.root_cert.iter().flatten().cloned().map(CertificateDer::from).collect::<Vec<_>>();
    if !known.is_empty() && !config.accept_invalid_certs {
        tls.dangerous().set_certificate_verifier(Arc::new(Trust::new(known)?));
    }
    Ok(tls)
}

/// Names each cause once.
fn credentials_error(error: &kube::Error, exec: Option<&ExecConfig>) -> anyhow::Error {
    let (kube::Error::Auth(AuthError::AuthExecStart(cause)), Some(exec)) = (error, exec) else {
        return anyhow!("cannot use the credentials: {error}");
    };
    let command = exec.command.as_deref().unwrap_or_default();
    let place = if command.contains('/') {
        String::new()
    } else {
        format!(", searched in PATH={}", env::var("PATH").unwrap_or_default())
    };
    let hint = exec.install_hint.iter().map(|hint| format!(" ({})", hint.trim())).collect::<String>();
    anyhow!(
        "cannot run the kubeconfig's exec plugin {command:?}: {cause}{place}. Mount or install it there, or give the \
         user a tokenFile or a client-certificate instead{hint}"
    )
}

/// Adds the token that the file holds now. kube's client reads the file once a minute and rejects a trailing newline. A
/// replaced token can become invalid at once, and requests are rare, so kube-ipvs reads the file for each.
fn token_from(path: String) -> anyhow::Result<MapRequestLayer<impl FnMut(Request<Body>) -> Request<Body> + Clone>> {
    let token = fs::read_to_string(&path).with_context(|| format!("cannot read the token in {path}"))?;
    // All copies of the layer share the last token.
    let token = Arc::new(Mutex::new(token));
    Ok(MapRequestLayer::new(move |mut request: Request<Body>| {
        let mut token = token.lock();
        // If the file is unreadable, the last token may still be valid.
        if let Ok(new) = fs::read_to_string(&path) {
            *token = new;
        }
        if let Ok(mut value) = format!("Bearer {}", token.trim()).parse::<HeaderValue>() {
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        request
    }))
}
