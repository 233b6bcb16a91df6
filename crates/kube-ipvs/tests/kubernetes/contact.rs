//! The log, Events and metrics report lost contact with the API server.

use std::{
    io::{self, Write},
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, ensure};
use kube_ipvs::{
    config::ClientConnection,
    serve::Contact,
    source::kubernetes::{KubernetesSource, Limits},
};
use scenarios::{ApiServer, Service, eventually};

use crate::follower::{Follower, LIMITS, fast};

fn service(name: &str) -> Service {
    Service::new(name).cluster_ip("10.96.0.7").port(80)
}

/// The API server rejects the token. The state stays in force, and each watch requests one Event.
#[test]
fn lost_contact_is_reported_after_the_limit() -> Result<()> {
    let api = ApiServer::start()?;
    api.apply(&service("web"))?;
    let contact = Contact::default();
    let limits = Limits { contact: Some(Duration::from_millis(100)), ..LIMITS };
    let flags = ClientConnection { master: api.url(), ..fast() };
    let follower = Follower::start_in_contact(flags, limits, contact.clone());
    follower.eventually(|world| world.services.len() == 1)?;
    eventually(|| {
        ensure!(contact.lost_for().is_none(), "contact is lost");
        Ok(())
    })?;
    api.tokens(&["another-token"]);
    api.cut();
    follower.eventually(|world| world.event_notes.len() >= 2)?;
    let said = follower.world().event_notes.clone();
    ensure!(said.iter().all(|said| said.starts_with("OutOfContact: ") && said.contains("401")), "{said:#?}");
    ensure!(contact.lost_for().is_some_and(|time| time >= Duration::from_millis(100)), "no contact is lost");
    assert_eq!(follower.world().services.len(), 1);
    api.tokens(&[]);
    api.apply(&service("late"))?;
    follower.eventually(|world| world.services.len() == 2)?;
    eventually(|| {
        ensure!(contact.lost_for().is_none(), "contact is lost");
        Ok(())
    })
}

fn log_of(connection: &ClientConnection, node: &str) -> Result<String> {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let source = KubernetesSource::open(connection, node).await?.with_limits(LIMITS);
            source.follow(|_| ControlFlow::Break(())).await
        })
    })?;
    let text = log.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(String::from_utf8(text)?)
}

/// Without its Node no endpoint is local, so every Service with a policy `Local` would lose its traffic silently.
#[test]
fn unknown_node_name_is_logged_once() -> Result<()> {
    let api = ApiServer::start()?;
    api.apply(&"kind: Node\nmetadata: { name: node-1 }\n")?;
    let connection = ClientConnection { master: api.url(), ..fast() };
    let said = log_of(&connection, "node-x")?;
    assert_eq!(said.matches("the API server has no Node node-x").count(), 1, "{said}");
    ensure!(said.contains("--hostname-override"), "{said}");
    let said = log_of(&connection, "node-1")?;
    ensure!(!said.contains("the API server has no Node"), "{said}");
    Ok(())
}

/// kube-ipvs delivers the addresses of the API server, so that no Service takes them.
#[test]
fn api_server_addresses_are_delivered() -> Result<()> {
    let api = ApiServer::start()?;
    for host in ["127.0.0.1", "localhost"] {
        let (master, at) = (api.url().replace("127.0.0.1", host), api.address().to_string());
        let follower = Follower::start_with(ClientConnection { master, ..fast() }, LIMITS);
        follower.eventually(|world| world.servers.contains(&at))?;
    }
    Ok(())
}
