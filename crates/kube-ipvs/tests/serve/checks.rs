//! The ports at which load balancers ask about one Service.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::{Result, ensure};
use kube_ipvs::events::About;
use proxier::model::{Event, NodeAddress, Service, ServiceId, TrafficPolicy};
use serde_json::{Value, json};

use crate::daemon::{Daemon, await_listener, await_nobody, free, get, port, service, slice};

fn lb(name: &str, address: &str, at: SocketAddr) -> Event {
    let health_check_port = Some(port(at.port()));
    let service = service(name, address);
    Event::ServiceApplied(Service { health_check_port, external_policy: TrafficPolicy::Local, ..service })
}

fn await_answer(at: SocketAddr, name: &str, endpoints: u64) -> Result<()> {
    scenarios::eventually(|| {
        let answer = get(at, "/whatever/path?x", "")?;
        let body: Value = serde_json::from_str(&answer.body)?;
        let expected = json!({
            "service": { "namespace": "default", "name": name },
            "localEndpoints": endpoints,
            "serviceProxyHealthy": true,
        });
        ensure!(body == expected, "{body}");
        ensure!(answer.status == if endpoints > 0 { 200 } else { 503 }, "{answer:?}");
        ensure!(answer.header("x-load-balancing-endpoint-weight") == Some(&*endpoints.to_string()), "{answer:?}");
        ensure!(answer.header("content-type") == Some("application/json"), "{answer:?}");
        Ok(())
    })
}

#[test]
fn health_check_port_follows_its_service() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    let (one, two) = (free()?, free()?);
    daemon.events(vec![lb("a", "10.96.0.1", one), lb("b", "10.96.0.2", two)]);
    await_answer(one, "a", 0)?;
    daemon.events(vec![Event::SliceApplied(slice("a", &["10.244.1.1", "10.244.1.2"]))]);
    await_answer(one, "a", 2)?;
    await_answer(two, "b", 0)?;
    daemon.events(vec![Event::SliceApplied(slice("a", &[]))]);
    await_answer(one, "a", 0)?;
    // A new port, which another Service had until now.
    let gone = Event::ServiceRemoved(ServiceId::new("default", "b"));
    daemon.events(vec![gone, lb("a", "10.96.0.1", two)]);
    await_answer(two, "a", 0)?;
    await_nobody(one)?;
    daemon.events(vec![Event::ServiceApplied(service("a", "10.96.0.1"))]);
    await_nobody(two)
}

#[test]
fn health_check_port_taken_by_another_program_is_retried() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    let at = free()?;
    let taken = TcpListener::bind(("0.0.0.0", at.port()))?;
    let unavailable = |daemon: &mut Daemon, count: u32| {
        scenarios::eventually(|| {
            let metrics = daemon.scrape("", Vec::new())?.body;
            let line = format!("kube_ipvs_health_check_ports_unavailable {count}\n");
            ensure!(metrics.contains(&line), "{line} is not in:\n{metrics}");
            Ok(())
        })
    };
    daemon.events(vec![lb("a", "10.96.0.1", at)]);
    let said = daemon.recorded()?;
    assert_eq!(
        (said.about, said.reason),
        (About::Service(ServiceId::new("default", "a")), "HealthCheckNodePortUnavailable")
    );
    ensure!(said.note.contains(&format!(":{}, its healthCheckNodePort: Address", at.port())), "{}", said.note);
    unavailable(&mut daemon, 1)?;
    drop(taken);
    await_listener(at)?;
    await_answer(at, "a", 0)?;
    unavailable(&mut daemon, 0)
}

#[test]
fn health_check_ports_listen_where_node_ports_are_served() -> Result<()> {
    let mut daemon = Daemon::start(&["--nodeport-addresses=127.0.0.0/30"])?;
    let address = |ip: &str| NodeAddress { address: ip.parse().expect("an address"), global: true };
    let addresses = |ips: &[&str]| Event::NodeAddresses(ips.iter().map(|ip| address(ip)).collect());
    let port = free()?.port();
    let at = |last: u8| SocketAddr::from(([127, 0, 0, last], port));
    daemon.events(vec![lb("a", "10.96.0.1", at(1)), addresses(&["127.0.0.2", "127.0.0.9"])]);
    await_answer(at(2), "a", 0)?;
    await_nobody(at(1))?;
    daemon.events(vec![addresses(&["127.0.0.1", "127.0.0.9"])]);
    await_answer(at(1), "a", 0)?;
    await_nobody(at(2))?;
    await_nobody(at(9))
}

#[test]
fn unhealthy_proxy_fails_the_health_checks_of_services() -> Result<()> {
    let mut daemon = Daemon::start(&["--ipvs-sync-period=100ms"])?;
    let at = free()?;
    daemon.events(vec![lb("a", "10.96.0.1", at), Event::SliceApplied(slice("a", &["10.244.1.1"]))]);
    await_answer(at, "a", 1)?;
    daemon.kernel.unreadable = true;
    daemon.later(Duration::from_millis(100));
    ensure!(daemon.sync().unavailable.is_some(), "it could be read");
    scenarios::eventually(|| {
        let answer = get(at, "/", "")?;
        let body: Value = serde_json::from_str(&answer.body)?;
        ensure!(answer.status == 503 && body["serviceProxyHealthy"] == json!(false), "{answer:?}");
        ensure!(body["localEndpoints"] == json!(1), "{answer:?}");
        Ok(())
    })
}

/// If the kernel rejects a part of one Service, the node reports only that Service as unhealthy. It goes on taking
/// traffic for all others.
#[test]
fn service_rejected_by_the_kernel_leaves_other_health_checks_good() -> Result<()> {
    let mut daemon = Daemon::start(&["--ipvs-sync-period=100ms"])?;
    daemon.kernel.reject = vec!["+ virtual server TCP 10.96.0.2:80".into()];
    let (good, bad) = (free()?, free()?);
    let endpoints = ["a", "b", "c"].map(|name| Event::SliceApplied(slice(name, &["10.244.1.1"])));
    let other = Event::ServiceApplied(service("c", "10.96.0.3"));
    let services = [lb("a", "10.96.0.1", good), lb("b", "10.96.0.2", bad), other];
    let report = daemon.events(services.into_iter().chain(endpoints).collect());
    ensure!(!report.failures.is_empty(), "it was not refused");
    let says = |daemon: &Daemon, bad_is: u16| -> Result<()> {
        let answers = [get(good, "/", "")?, get(bad, "/", "")?, get(daemon.health, "/healthz", "")?];
        assert_eq!(answers.each_ref().map(|answer| answer.status), [200, bad_is, 200], "{answers:#?}");
        Ok(())
    };
    await_answer(good, "a", 1)?;
    await_listener(bad)?;
    says(&daemon, 503)?;
    // That holds over time and through other syncs.
    for _ in 0..3 {
        // Together they exceed twice the sync period, after which every late update shows.
        std::thread::sleep(Duration::from_millis(150));
        daemon.later(Duration::from_millis(150));
        daemon.events(vec![Event::SliceApplied(slice("c", &["10.244.1.9"]))]);
        says(&daemon, 503)?;
    }
    daemon.kernel.reject.clear();
    daemon.later(Duration::from_millis(1100));
    daemon.sync();
    says(&daemon, 200)
}
