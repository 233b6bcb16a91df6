//! From the configuration to a client of the API server.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, ensure};
use http::{HeaderValue, Request, header::AUTHORIZATION};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt},
    config::{KubeConfigOptions, Kubeconfig},
};
use tower::{BoxError, ServiceBuilder, limit::RateLimitLayer, service_fn, util::MapRequestLayer};

use crate::config::ClientConnection;

/// How long a connection may take to be made, for each of the server's addresses.
const CONNECT: Duration = Duration::from_secs(10);
/// A peer that is gone without a word is noticed after the first time and three times the second: on an idle watch
/// nothing else would tell.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(5), 3);

/// As kube-proxy and kubectl look for it: the file, its server replaced by `--master` if that is given; without a file
/// `--master` alone; without either what the kubelet gives to every pod.
pub(super) async fn config(connection: &ClientConnection, pod: &Pod) -> anyhow::Result<Config> {
    let mut config = find(connection, pod).await?;
    let is_verified = config.cluster_url.scheme_str() == Some("https") && !config.accept_invalid_certs;
    if config.root_cert.is_none() && !is_verified {
        // Those of the system would be looked for, which a small image does not have, and it would be an error.
        config.root_cert = Some(Vec::new());
    }
    Ok(config)
}

async fn find(connection: &ClientConnection, pod: &Pod) -> anyhow::Result<Config> {
    let master = connection.master.as_str();
    if !connection.kubeconfig.as_os_str().is_empty() {
        return from_file(&connection.kubeconfig, master).await;
    }
    if master.is_empty() {
        return pod.config().await.context(
            "there is no API server to watch: not in a pod with a service account, and neither --kubeconfig nor --manifests is \
             given",
        );
    }
    let url = master.parse().with_context(|| format!("--master {master:?} is not a URL"))?;
    Ok(Config::new(url))
}

/// What the kubelet gives to every pod: by it a pod without any flag finds its API server.
#[derive(Debug, Clone)]
pub struct Pod {
    /// `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT` of its environment.
    pub server: Option<(String, String)>,
    /// The folder with the service account's `token` and the API server's `ca.crt`.
    pub account: PathBuf,
}

impl Pod {
    /// What this process was given.
    pub fn of_this_process() -> Self {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            server: variable("KUBERNETES_SERVICE_HOST").zip(variable("KUBERNETES_SERVICE_PORT")),
            account: "/var/run/secrets/kubernetes.io/serviceaccount".into(),
        }
    }

    async fn config(&self) -> anyhow::Result<Config> {
        let (host, port) = self.server.as_ref().context("KUBERNETES_SERVICE_HOST and _PORT are not set")?;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let path = |name: &str| -> anyhow::Result<String> {
            let path = self.account.join(name);
            ensure!(path.exists(), "there is no {}", path.display());
            Ok(path.to_string_lossy().into_owned())
        };
        let file = serde_json::json!({
            "clusters": [{"name": "pod", "cluster": {
                "server": format!("https://{host}:{port}"), "certificate-authority": path("ca.crt")?,
            }}],
            "users": [{"name": "pod", "user": {"tokenFile": path("token")?}}],
            "contexts": [{"name": "pod", "context": {"cluster": "pod", "user": "pod"}}],
            "current-context": "pod",
        });
        let file: Kubeconfig = serde_json::from_value(file)?;
        Ok(Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?)
    }
}

async fn from_file(path: &Path, master: &str) -> anyhow::Result<Config> {
    let context = || format!("--kubeconfig {}", path.display());
    let mut file = Kubeconfig::read_from(path).with_context(context)?;
    if !master.is_empty() {
        for cluster in file.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
            cluster.server = Some(master.to_owned());
        }
    }
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.with_context(context)
}

/// Connections to the API server, none of which was made with a client's certificate that has been replaced since:
/// what has expired is worth nothing, and the API server looks at it again with each request.
struct Connections {
    config: Config,
    /// The files of the certificate and its key, and what they said.
    files: Vec<PathBuf>,
    content: Vec<Option<Vec<u8>>>,
    http: HttpClient<HttpsConnector, Body>,
}

impl Connections {
    fn new(config: &Config) -> anyhow::Result<Self> {
        let auth = &config.auth_info;
        let files = [&auth.client_certificate, &auth.client_key].into_iter().flatten();
        let files: Vec<PathBuf> = files.map(PathBuf::from).collect();
        Ok(Self { content: read(&files), http: connect(config)?, files, config: config.clone() })
    }

    /// The client with the certificate that the files hold now. Where they cannot be used, as between the writing of
    /// one and of the other, the last one may still be good.
    fn now(&mut self) -> HttpClient<HttpsConnector, Body> {
        let content = read(&self.files);
        if content != self.content {
            match connect(&self.config) {
                Ok(http) => (self.http, self.content) = (http, content),
                Err(error) => {
                    tracing::debug!("the client's certificate has changed and cannot be used: {error:#}")
                }
            }
        }
        self.http.clone()
    }
}

fn read(files: &[PathBuf]) -> Vec<Option<Vec<u8>>> {
    files.iter().map(|file| fs::read(file).ok()).collect()
}

type HttpsConnector = hyper_rustls::HttpsConnector<HttpConnector>;

fn connect(config: &Config) -> anyhow::Result<HttpClient<HttpsConnector, Body>> {
    let (time, interval, retries) = KEEPALIVE;
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_nodelay(true);
    connector.set_keepalive(Some(time));
    connector.set_keepalive_interval(Some(interval));
    connector.set_keepalive_retries(Some(retries));
    let connector =
        config.rustls_https_connector_with_connector(connector).context(
        "TLS cannot be set up; is a certificate-authority named in the kubeconfig, or has this system any of its own?",
    )?;
    Ok(HttpClient::builder(TokioExecutor::new()).build(connector))
}

/// A client that sends no more requests than the configuration allows. Has to be called within a runtime.
pub(super) fn client(config: &Config, connection: &ClientConnection) -> anyhow::Result<Client> {
    let connections = Arc::new(Mutex::new(Connections::new(config)?));
    let http = service_fn(move |request| {
        connections.lock().unwrap_or_else(PoisonError::into_inner).now().request(request)
    });
    let mut config = config.clone();
    let token_file = config.auth_info.token_file.take();
    if token_file.is_some() {
        // As for kubectl: the file comes first.
        config.auth_info.token = None;
    }
    let auth = config.auth_layer().context("the credentials cannot be used")?;
    // As many as the burst at once, and then no more than the rate allows in the mean.
    let limit = request_limit(connection).map(|(burst, time)| RateLimitLayer::new(burst, time));
    let service = ServiceBuilder::new()
        .option_layer(limit)
        .layer(config.base_uri_layer())
        .option_layer(auth)
        .option_layer(token_file.map(token_from).transpose()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, "default").build())
}

/// How many requests may be sent in which time; none if there is no limit. As for kube-proxy 0 means the default, and
/// less than that no limit.
fn request_limit(connection: &ClientConnection) -> Option<(u64, Duration)> {
    let default = ClientConnection::default();
    let or = |value: f64, default: f64| if value == 0.0 { default } else { value };
    let burst = or(f64::from(connection.burst.get()), f64::from(default.burst.get()));
    let rate = or(connection.qps.into(), default.qps.into());
    let time = Duration::try_from_secs_f64(burst / rate).ok().filter(|_| rate > 0.0)?;
    Some((burst as u64, time))
}

/// Adds the token that the file holds now. kube's client would read it once a minute, and not bear the end of a line
/// in it; but a token that was replaced may be worth nothing from one moment to the next, and requests are few.
fn token_from(
    path: String,
) -> anyhow::Result<MapRequestLayer<impl FnMut(Request<Body>) -> Request<Body> + Clone>> {
    let mut token = fs::read_to_string(&path).with_context(|| format!("cannot read the token in {path}"))?;
    Ok(MapRequestLayer::new(move |mut request: Request<Body>| {
        // Where it cannot be read any more, the last one may still be good.
        if let Ok(new) = fs::read_to_string(&path) {
            token = new;
        }
        if let Ok(mut value) = format!("Bearer {}", token.trim()).parse::<HeaderValue>() {
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        request
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_limited_as_by_kube_proxy() {
        let limit = |qps, burst: &str| {
            let burst = burst.parse().unwrap();
            request_limit(&ClientConnection { qps, burst, ..ClientConnection::default() })
        };
        let usual = Some((10, Duration::from_secs(2)));
        assert_eq!((limit(5.0, "10"), limit(0.0, "0")), (usual, usual));
        assert_eq!(limit(20.0, "10"), Some((10, Duration::from_millis(500))));
        assert_eq!((limit(-1.0, "10"), limit(f32::NAN, "10")), (None, None));
    }
}
