//! The HTTP client of the API server.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
    vec,
};

use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, StatusCode, Uri, header::USER_AGENT};
use hyper_util::{client::legacy::connect::dns::Name, rt::TokioIo};
use kube::{
    Client,
    client::{Body, ClientBuilder, ConfigExt},
};
use tokio::{
    net::{TcpStream, lookup_host},
    sync::{Mutex, watch},
    time::Instant,
};
use tower::{Service, ServiceBuilder, ServiceExt, limit::RateLimitLayer, service_fn};
use tower_http::decompression::DecompressionLayer;

use super::{answer, connections::Connections, kubeconfig::Access, limits::Limits, proxy, version::platform};
use crate::{config::ClientConnection, serve::Contact};

pub(super) type Stream = TokioIo<TcpStream>;

/// The addresses of the API server and of the HTTP proxy before it, by host name.
pub(super) type Addresses = BTreeMap<Box<str>, BTreeSet<IpAddr>>;

pub(super) struct Connector {
    pub(super) client: Client,
    addresses: watch::Receiver<Addresses>,
    ports: BTreeMap<Box<str>, BTreeSet<u16>>,
}

impl Connector {
    /// Limits the request rate as configured. Call it within a Tokio runtime.
    pub(super) async fn new(
        access: &Access,
        connection: &ClientConnection,
        limits: &Limits,
        contact: &Contact,
    ) -> anyhow::Result<Self> {
        let urls = [Some(&access.config.cluster_url), access.proxy.as_ref().map(|proxy| proxy.uri())];
        let (mut ports, mut known) = (BTreeMap::<_, BTreeSet<_>>::new(), Addresses::new());
        for url in urls.into_iter().flatten() {
            let host = proxy::host(url);
            ports.entry(host.into()).or_default().insert(port(url));
            known.extend(host.parse().ok().map(|address| (host.into(), BTreeSet::from([address]))));
        }
        let (sender, addresses) = watch::channel(known);
        let resolver = Resolver(Arc::new(sender));
        let connections = Arc::new(Mutex::new(Connections::new(access, *limits, resolver).await?));
        let contact = contact.clone();
        let http = service_fn(move |request: Request<Body>| {
            let (connections, contact) = (Arc::clone(&connections), contact.clone());
            async move {
                let (method, url) = (request.method().clone(), request.uri().clone());
                let start = Instant::now();
                let http = connections.lock().await.now().await;
                let answer = match http {
                    Ok(http) => http.oneshot(request).await,
                    Err(error) => Err(error.into()),
                };
                let code = answer.as_ref().ok().map(|answer| answer.status());
                if code == Some(StatusCode::UNAUTHORIZED) {
                    connections.lock().await.refused();
                }
                contact.asked(&method, &url, code, start.elapsed());
                answer
            }
        });
        let mut config = access.config.clone();
        config.headers.push((USER_AGENT, HeaderValue::from_str(&user_agent())?));
        let limit = request_limit(connection).map(|(burst, time)| RateLimitLayer::new(burst, time));
        let service = ServiceBuilder::new()
            .option_layer(limit)
            .layer(config.base_uri_layer())
            .layer(config.extra_headers_layer()?)
            .and_then(answer::unified)
            .layer(DecompressionLayer::new().gzip(!config.disable_compression))
            .service(http);
        Ok(Self { client: ClientBuilder::new(service, "default").build(), addresses, ports })
    }

    /// Waits until the API server's name resolves to other addresses.
    pub(super) async fn moved(&mut self) {
        if self.addresses.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn servers(&mut self) -> BTreeSet<SocketAddr> {
        let mut servers = BTreeSet::new();
        for (host, addresses) in &*self.addresses.borrow_and_update() {
            for port in self.ports.get(host).into_iter().flatten() {
                servers.extend(addresses.iter().map(|address| SocketAddr::new(*address, *port)));
            }
        }
        servers
    }
}

fn port(url: &Uri) -> u16 {
    let usual = if url.scheme_str() == Some("https") { 443 } else { 80 };
    url.port_u16().unwrap_or(usual)
}

/// The format of Kubernetes components, so that audit logs and API priority and fairness can tell kube-ipvs apart.
fn user_agent() -> String {
    format!("kube-ipvs/{} ({}) kubernetes/unknown", env!("CARGO_PKG_VERSION"), platform())
}

/// Resolves names with the system's resolver, and publishes the addresses as those of the API server.
#[derive(Clone)]
pub(super) struct Resolver(Arc<watch::Sender<Addresses>>);

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let publish = Arc::clone(&self.0);
        Box::pin(async move {
            let found: Vec<SocketAddr> = lookup_host((name.as_str(), 0)).await?.collect();
            let addresses: BTreeSet<IpAddr> = found.iter().map(SocketAddr::ip).collect();
            publish.send_if_modified(|known| {
                let before = known.insert(name.as_str().into(), addresses.clone());
                before != Some(addresses)
            });
            Ok(found.into_iter())
        })
    }
}

/// The burst and the time it refills in; `None` for no limit. As in kube-proxy, 0 means the default and a negative
/// value no limit.
fn request_limit(connection: &ClientConnection) -> Option<(u64, Duration)> {
    let default = ClientConnection::default();
    let or = |value: f64, default: f64| if value == 0.0 { default } else { value };
    let burst = or(f64::from(connection.burst.get()), f64::from(default.burst.get()));
    let rate = or(connection.qps.into(), default.qps.into());
    let time = Duration::try_from_secs_f64(burst / rate).ok().filter(|_| rate > 0.0)?;
    Some((burst as u64, time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_rate_is_limited_as_in_kube_proxy() {
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
