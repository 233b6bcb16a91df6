//! The connections to the API server, and the credentials that go with them.

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

/// How long a connection may take to be made, for all of the server's addresses.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that is gone without a word is noticed after the first time and three times the second: on an idle watch
/// nothing else would tell. What was sent may stay unconfirmed for the third.
const KEEPALIVE: (Duration, Duration, u32, Duration) =
    (Duration::from_secs(10), Duration::from_secs(5), 3, Duration::from_secs(20));
pub(super) type Http = BoxCloneService<Request<Body>, Response<Incoming>, BoxError>;

/// What the files of our certificate, of its key and of the authority said.
type Content = Vec<Option<Vec<u8>>>;

/// Connections to the API server, none of which is made with a certificate, of ours or of its authority, that has been
/// replaced since.
pub(super) struct Connections {
    access: Access,
    limits: Limits,
    resolver: Resolver,
    files: Vec<PathBuf>,
    content: Content,
    http: Http,
    made: Instant,
    /// Whether the API server has refused the credentials since.
    is_refused: bool,
    /// The next client, as long as it is being made.
    next: Option<Making>,
}

/// A client that is being made, on a thread of its own: an exec plugin takes as long as it likes.
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

    /// The client with the certificates that the files hold now. Where they cannot be used, as between the writing of
    /// one and of the other, the last ones may still be good.
    ///
    /// # Errors
    ///
    /// When the credentials were refused and an exec plugin gives no others for too long. It is not started twice.
    pub(super) async fn now(&mut self) -> anyhow::Result<Http> {
        // What an exec plugin gave may have expired.
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
                    tracing::debug!("the credentials have changed and cannot be used: {error:#}");
                }
            }
            (self.next, self.made, self.is_refused) = (None, Instant::now(), false);
        }
        Ok(self.http.clone())
    }

    /// The API server does not know us, or not any more.
    pub(super) fn refused(&mut self) {
        self.is_refused = true;
    }
}

impl Making {
    fn start(files: &[PathBuf], access: &Access, limits: &Limits, resolver: &Resolver) -> anyhow::Result<Self> {
        // Before they are used: what is replaced in between is read again.
        let content = read(files);
        let (access, limits, resolver) = (access.clone(), *limits, resolver.clone());
        let (done, http) = oneshot::channel();
        let runtime = Handle::current();
        // Not one of the runtime's threads: it would wait for the plugin when it ends.
        thread::Builder::new().name("credentials".into()).spawn(move || {
            let _runtime = runtime.enter();
            // The receiver may be gone.
            let _ = done.send(connect(&access, &limits, &resolver));
        })?;
        Ok(Self { content, start: Instant::now(), http })
    }

    /// Waits until the client is made. Nothing if that takes longer than an exec plugin may, counted from its start: so
    /// all who wait are told at the same time.
    async fn end(&mut self, limits: &Limits) -> Option<anyhow::Result<Http>> {
        let outcome = timeout_at(self.start + limits.plugin, &mut self.http).await.ok()?;
        Some(outcome.unwrap_or_else(|_| Err(anyhow!("the thread that makes a client has ended"))))
    }
}

fn no_answer(access: &Access, limits: &Limits) -> anyhow::Error {
    let exec = access.config.auth_info.exec.as_ref();
    let command = exec.and_then(|exec| exec.command.as_deref()).unwrap_or_default();
    let time = limits.plugin;
    anyhow!("the kubeconfig's exec plugin {command:?} has not answered for {time:?}; run it by hand on this node")
}

fn read(files: &[PathBuf]) -> Content {
    files.iter().map(|file| fs::read(file).ok()).collect()
}

fn connect(access: &Access, limits: &Limits, resolver: &Resolver) -> anyhow::Result<Http> {
    let mut config = access.config.clone();
    let token_file = config.auth_info.token_file.take();
    if token_file.is_some() {
        // As for kubectl: the file comes first.
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
    // All watches share one connection where the server speaks HTTP/2. Its pings find a server that is gone behind a
    // balancer, too.
    let client = HttpClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        // Longer than a watch lasts, which takes the connection once: else each new one would make another connection.
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
            "TLS cannot be set up; is a certificate-authority named in the kubeconfig, or has this system any of its own? {error}"
        )
    })?;
    let known = config.root_cert.iter().flatten().cloned().map(CertificateDer::from).collect::<Vec<_>>();
    if !known.is_empty() && !config.accept_invalid_certs {
        tls.dangerous().set_certificate_verifier(Arc::new(Trust::new(known)?));
    }
    Ok(tls)
}

/// Why there are no credentials, each cause once.
fn credentials_error(error: &kube::Error, exec: Option<&ExecConfig>) -> anyhow::Error {
    let (kube::Error::Auth(AuthError::AuthExecStart(cause)), Some(exec)) = (error, exec) else {
        return anyhow!("the credentials cannot be used: {error}");
    };
    let command = exec.command.as_deref().unwrap_or_default();
    let place = if command.contains('/') {
        String::new()
    } else {
        format!(", looked for in PATH={}", env::var("PATH").unwrap_or_default())
    };
    let hint = exec.install_hint.iter().map(|hint| format!(" ({})", hint.trim())).collect::<String>();
    anyhow!(
        "the kubeconfig's exec plugin {command:?} cannot be run: {cause}{place}. Mount or install it there, or give the user \
         a tokenFile or a client-certificate instead{hint}"
    )
}

/// Adds the token that the file holds now. kube's client would read it once a minute, and not bear the end of a line
/// in it; but a token that was replaced may be worth nothing from one moment to the next, and requests are few.
fn token_from(path: String) -> anyhow::Result<MapRequestLayer<impl FnMut(Request<Body>) -> Request<Body> + Clone>> {
    let token = fs::read_to_string(&path).with_context(|| format!("cannot read the token in {path}"))?;
    // Each request has a copy of the layer, and all of them have the last token.
    let token = Arc::new(Mutex::new(token));
    Ok(MapRequestLayer::new(move |mut request: Request<Body>| {
        let mut token = token.lock();
        // Where it cannot be read any more, the last one may still be good.
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
