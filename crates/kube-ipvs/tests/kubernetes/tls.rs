//! TLS in front of the test API server.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn client(&self) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok((params.signed_by(&key, &self.0)?.pem(), key.serialize_pem()))
    }

    fn server(&self) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let certificate = params.signed_by(&key, &self.0)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        Ok((certificate.into(), key))
    }
}

/// A TLS listener. `refused` counts failed handshakes.
#[derive(Debug)]
pub(crate) struct Listener {
    url: String,
    refused: Arc<AtomicUsize>,
}

impl Listener {
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn await_refusals(&self, count: usize) -> Result<()> {
        let before = self.refused.load(Ordering::SeqCst);
        scenarios::eventually(|| {
            let more = self.refused.load(Ordering::SeqCst) - before;
            ensure!(more >= count, "{more} of {count} were refused");
            Ok(())
        })
    }
}

/// Terminates TLS until the test ends.
pub(crate) fn serve(authority: &Authority, to: SocketAddr) -> Result<Listener> {
    let config = config(authority, None)?;
    let (_, config) = watch::channel(Arc::new(config));
    listen(config, to)
}

pub(crate) struct Front<'a> {
    authority: &'a Authority,
    config: watch::Sender<Arc<ServerConfig>>,
    listener: Listener,
}

impl<'a> Front<'a> {
    /// Accepts clients with a certificate of one of these authorities, or any client if there are none.
    pub(crate) fn start(authority: &'a Authority, clients: &[&Authority], to: SocketAddr) -> Result<Self> {
        let known = Some(clients).filter(|clients| !clients.is_empty());
        let (sender, receiver) = watch::channel(Arc::new(config(authority, known)?));
        Ok(Self { authority, config: sender, listener: listen(receiver, to)? })
    }

    pub(crate) fn listener(&self) -> &Listener {
        &self.listener
    }

    pub(crate) fn become_signed_by(&self, authority: &Authority) -> Result<()> {
        Ok(self.config.send(Arc::new(config(authority, None)?))?)
    }

    /// Applies to new connections.
    pub(crate) fn know(&self, clients: &[&Authority]) -> Result<()> {
        Ok(self.config.send(Arc::new(config(self.authority, Some(clients))?))?)
    }
}

pub(crate) fn config(authority: &Authority, clients: Option<&[&Authority]>) -> Result<ServerConfig> {
    let (certificate, key) = authority.server()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(known) => {
            let mut roots = RootCertStore::empty();
            known.iter().try_for_each(|known| roots.add(known.0.der().clone()))?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            config.with_client_cert_verifier(verifier)
        }
    };
    Ok(config.with_single_cert(vec![certificate], key)?)
}

fn listen(config: watch::Receiver<Arc<ServerConfig>>, to: SocketAddr) -> Result<Listener> {
    let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
    socket.set_nonblocking(true)?;
    let url = format!("https://{}", socket.local_addr()?);
    let refused = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&refused);
    thread::spawn(move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = TcpListener::from_std(socket)?;
            loop {
                let (outer, _) = listener.accept().await?;
                let acceptor = TlsAcceptor::from(Arc::clone(&config.borrow()));
                let refused = Arc::clone(&counted);
                tokio::spawn(async move {
                    let outer = acceptor.accept(outer).await;
                    let mut outer = outer.inspect_err(|_| {
                        refused.fetch_add(1, Ordering::SeqCst);
                    })?;
                    let mut inner = TcpStream::connect(to).await?;
                    tokio::io::copy_bidirectional(&mut outer, &mut inner).await
                });
            }
        })
    });
    Ok(Listener { url, refused })
}
