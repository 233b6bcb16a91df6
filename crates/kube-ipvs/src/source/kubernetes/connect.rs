//! From the configuration to a client of the API server.

use std::{fs, path::Path, time::Duration};

use anyhow::Context;
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
use tower::{BoxError, ServiceBuilder, limit::RateLimitLayer, util::MapRequestLayer};

use crate::config::ClientConnection;

/// How long a connection may take to be made, for each of the server's addresses.
const CONNECT: Duration = Duration::from_secs(10);
/// A peer that is gone without a word is noticed after the first time and three times the second: on an idle watch nothing
/// else would tell.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(5), 3);

/// As kube-proxy and kubectl look for it: the file, its server replaced by `--master` if that is given; without a file
/// `--master` alone; without either what the kubelet gives to every pod.
pub(super) async fn config(connection: &ClientConnection) -> anyhow::Result<Config> {
    let mut config = find(connection).await?;
    let is_verified = config.cluster_url.scheme_str() == Some("https") && !config.accept_invalid_certs;
    if config.root_cert.is_none() && !is_verified {
        // Those of the system would be looked for, which a small image does not have, and it would be an error.
        config.root_cert = Some(Vec::new());
    }
    Ok(config)
}

async fn find(connection: &ClientConnection) -> anyhow::Result<Config> {
    let master = connection.master.as_str();
    if !connection.kubeconfig.as_os_str().is_empty() {
        return from_file(&connection.kubeconfig, master).await;
    }
    if master.is_empty() {
        return Config::incluster().context(
            "there is no API server to watch: not in a pod with a service account, and neither --kubeconfig nor --manifests is \
             given",
        );
    }
    let url = master.parse().with_context(|| format!("--master {master:?} is not a URL"))?;
    Ok(Config::new(url))
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

/// A client that sends no more requests than the configuration allows. Has to be called within a runtime.
pub(super) fn client(config: &Config, connection: &ClientConnection) -> anyhow::Result<Client> {
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
    let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build(connector);
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

/// How many requests may be sent in which time; none if there is no limit. As for kube-proxy 0 means the default, and less than
/// that no limit.
fn request_limit(connection: &ClientConnection) -> Option<(u64, Duration)> {
    let default = ClientConnection::default();
    let or = |value: f64, default: f64| if value == 0.0 { default } else { value };
    let burst = or(f64::from(connection.burst.get()), f64::from(default.burst.get()));
    let rate = or(connection.qps.into(), default.qps.into());
    let time = Duration::try_from_secs_f64(burst / rate).ok().filter(|_| rate > 0.0)?;
    Some((burst as u64, time))
}

/// Adds the token that the file holds now. kube's client would read it once a minute, and not bear the end of a line in it; but a
/// token that was replaced may be worth nothing from one moment to the next, and requests are few.
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
