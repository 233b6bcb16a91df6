//! HTTP/2, as real API servers speak it: all watches share one connection.

use std::{
    fs,
    future::pending,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use http::{Request, Uri, Version};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use kube_ipvs::{config::ClientConnection, source::kubernetes::Limits};
use scenarios::{ApiServer, Service, eventually};
use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::TlsAcceptor;

use crate::{
    follower::{Follower, LIMITS, asked, fast},
    tls,
};

/// Speaks HTTP/2 over TLS in front of a test API server, until the test ends.
struct Gateway {
    url: String,
    open: Arc<AtomicUsize>,
    frozen: watch::Sender<()>,
}

impl Gateway {
    fn start(authority: &tls::Authority, to: SocketAddr) -> Result<Self> {
        let mut config = tls::config(authority, None)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
        socket.set_nonblocking(true)?;
        let url = format!("https://{}", socket.local_addr()?);
        let open = Arc::new(AtomicUsize::new(0));
        let (frozen, _) = watch::channel(());
        let (counted, freezes) = (Arc::clone(&open), frozen.clone());
        thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let listener = TcpListener::from_std(socket)?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    let (acceptor, open, mut frozen) = (acceptor.clone(), Arc::clone(&counted), freezes.subscribe());
                    tokio::spawn(async move {
                        let stream = TokioIo::new(acceptor.accept(stream).await?);
                        let client = Client::builder(TokioExecutor::new()).build_http::<Incoming>();
                        let service = service_fn(move |mut request: Request<Incoming>| {
                            let client = client.clone();
                            async move {
                                let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
                                *request.uri_mut() = format!("http://{to}{path}").parse::<Uri>()?;
                                *request.version_mut() = Version::HTTP_11;
                                let mut answer = client.request(request).await?;
                                answer.headers_mut().remove("transfer-encoding");
                                anyhow::Ok(answer)
                            }
                        });
                        open.fetch_add(1, Ordering::SeqCst);
                        let server = http2::Builder::new(TokioExecutor::new());
                        let mut served = pin!(server.serve_connection(stream, service));
                        tokio::select! {
                            _ = served.as_mut() => {}
                            // The connection stays open and silent.
                            _ = frozen.changed() => pending::<()>().await,
                        }
                        open.fetch_sub(1, Ordering::SeqCst);
                        anyhow::Ok(())
                    });
                }
            })
        });
        Ok(Self { url, open, frozen })
    }

    fn flags(&self, authority: &tls::Authority, folder: &tempfile::TempDir) -> Result<ClientConnection> {
        let (file, authority_file) = (folder.path().join("kubeconfig"), folder.path().join("ca.crt"));
        fs::write(&authority_file, authority.pem())?;
        let url = &self.url;
        let text = format!(
            "{{clusters: [{{name: c, cluster: {{server: \"{url}\", certificate-authority: ca.crt}}}}], contexts: [{{name: x, \
             context: {{cluster: c}}}}], current-context: x}}"
        );
        fs::write(&file, text)?;
        Ok(ClientConnection { kubeconfig: file, ..fast() })
    }
}

#[test]
fn all_watches_share_one_connection() -> Result<()> {
    let api = ApiServer::start()?;
    api.apply(&Service::new("web").cluster_ip("10.96.0.7").port(80))?;
    let (authority, folder) = (tls::Authority::new()?, tempfile::tempdir()?);
    let gateway = Gateway::start(&authority, api.address())?;
    let follower = Follower::start_with(gateway.flags(&authority, &folder)?, LIMITS);
    follower.eventually(|world| world.services.len() == 1)?;
    // By the second round of watches, connections opened in parallel at the start are closed.
    let paths = ["/services?", "/endpointslices?", "/nodes?", "/servicecidrs?"];
    eventually(|| {
        let watches = |path| asked(&api, |request| request.contains(path) && request.contains("watch=true"));
        let watched = paths.map(watches);
        ensure!(watched.iter().all(|watches| *watches >= 2), "{watched:?} watches");
        let open = gateway.open.load(Ordering::SeqCst);
        ensure!(open == 1, "{open} connections are open");
        Ok(())
    })
}

/// The server behind a load balancer is gone. The connection stays open, so only pings detect that.
#[test]
fn silent_http2_connection_is_given_up() -> Result<()> {
    let api = ApiServer::start()?;
    api.apply(&Service::new("web").cluster_ip("10.96.0.7").port(80))?;
    let (authority, folder) = (tls::Authority::new()?, tempfile::tempdir()?);
    let gateway = Gateway::start(&authority, api.address())?;
    // On a slow machine a ping can time out on a healthy connection. That costs one attempt.
    let (ping, pong) = (Duration::from_millis(100), Duration::from_secs(1));
    let limits = Limits { watch: Duration::from_secs(200), ping, pong, ..LIMITS };
    let follower = Follower::start_with(gateway.flags(&authority, &folder)?, limits);
    follower.eventually(|world| world.services.len() == 1)?;
    gateway.frozen.send_replace(());
    api.apply(&Service::new("late").cluster_ip("10.96.0.8").port(80))?;
    follower.eventually(|world| world.services.len() == 2)
}
