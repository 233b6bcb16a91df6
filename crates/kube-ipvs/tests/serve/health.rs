//! `/healthz` and `/livez`, for load balancers and the kubelet.

use std::{net::TcpListener, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use kube_ipvs::serve::{self, Status};
use proxier::model::{Event, Node};
use serde_json::Value;

use crate::daemon::{Daemon, UNHURRIED, await_listener, configuration, free, get, serve, service};

fn node(leaving: bool) -> Event {
    Event::NodeApplied(Node { leaving, ..Node::new("node-1") })
}

fn web() -> Event {
    Event::ServiceApplied(service("web", "10.96.0.80"))
}

/// With this sync period, updates are soon late.
const SHORT: &str = "--ipvs-sync-period=100ms";
/// Longer than twice that period, after which every late update shows.
const LATE: Duration = Duration::from_millis(300);

/// The daemon's answer at a path: the status, and the JSON without its times.
fn ask(daemon: &Daemon, path: &str) -> Result<(u16, Value)> {
    let answer = get(daemon.health, path, "")?;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let mut json: Value = serde_json::from_str(&answer.body)?;
    fn without_times(value: &mut Value) {
        if let Value::Object(fields) = value {
            fields.retain(|name, _| name != "lastUpdated" && name != "currentTime");
            fields.values_mut().for_each(without_times);
        }
    }
    without_times(&mut json);
    Ok((answer.status, json))
}

#[test]
fn working_proxy_is_healthy() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    assert_eq!(ask(&daemon, "/livez")?, (200, serde_json::json!({"healthy": true})));
    daemon.events(vec![web(), node(false)]);
    let families = serde_json::json!({"IPv4": {"healthy": true}, "IPv6": {"healthy": true}});
    let live = serde_json::json!({"healthy": true, "status": families});
    assert_eq!(ask(&daemon, "/livez")?, (200, live));
    let health = serde_json::json!({"nodeEligible": true, "healthy": true, "status": families});
    assert_eq!(ask(&daemon, "/healthz?verbose")?, (200, health));
    assert_eq!(get(daemon.health, "/", "")?.status, 404);
    assert_eq!(get(daemon.health, "/metrics", "")?.status, 404);
    Ok(())
}

#[test]
fn leaving_node_fails_healthz_and_passes_livez() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    for (event, status) in [(node(false), 200), (node(true), 503), (node(false), 200)] {
        daemon.events(vec![event]);
        let (found, json) = ask(&daemon, "/healthz")?;
        assert_eq!((found, &json["nodeEligible"]), (status, &Value::Bool(status == 200)));
        assert_eq!(ask(&daemon, "/livez")?.0, 200);
    }
    daemon.events(vec![Event::NodeRemoved("node-1".into())]);
    assert_eq!(ask(&daemon, "/healthz")?.0, 503);
    Ok(())
}

/// A daemon that failed to program two Services. They are late after twice this period.
fn failing(sync_period: &str) -> Result<Daemon> {
    let mut daemon = Daemon::start(&[sync_period])?;
    daemon.kernel.reject = vec!["virtual server".into()];
    let other = Event::ServiceApplied(service("other", "10.96.0.81"));
    assert_eq!(daemon.events(vec![web(), other]).failures.len(), 2);
    Ok(daemon)
}

fn await_status(daemon: &Daemon, path: &str, status: u16) -> Result<Value> {
    scenarios::eventually(|| {
        let (found, json) = ask(daemon, path)?;
        ensure!(found == status, "{path}: {found}: {json}");
        Ok(json)
    })
}

#[test]
fn failed_sync_keeps_the_proxy_healthy_until_it_is_late() -> Result<()> {
    let daemon = failing("--ipvs-sync-period=1h")?;
    assert_eq!((ask(&daemon, "/healthz")?.0, ask(&daemon, "/livez")?.0), (200, 200));
    Ok(())
}

#[test]
fn late_failed_sync_makes_the_proxy_unhealthy() -> Result<()> {
    let mut daemon = failing(SHORT)?;
    let json = await_status(&daemon, "/healthz", 503)?;
    assert_eq!(json["healthy"], Value::Bool(false));
    assert_eq!(json["status"]["IPv4"]["healthy"], Value::Bool(false));
    assert_eq!(json["status"]["IPv6"]["healthy"], Value::Bool(true));
    assert_eq!(ask(&daemon, "/livez")?.0, 503);
    // The next retry repairs it.
    daemon.kernel.reject.clear();
    daemon.later(Duration::from_secs(1));
    daemon.sync();
    assert_eq!(ask(&daemon, "/healthz")?.0, 200);
    Ok(())
}

/// If the kernel always rejects a part of one Service, only this Service fails, even as the only one of its family.
#[test]
fn failure_of_one_service_keeps_the_proxy_healthy() -> Result<()> {
    let mut daemon = Daemon::start(&[SHORT])?;
    daemon.kernel.reject = vec!["virtual server TCP [fd00::80]:80".into(), "vips { 10.96.0.80 }".into()];
    let six = Event::ServiceApplied(service("six", "fd00::80"));
    let others = (1..4).map(|n| Event::ServiceApplied(service(&format!("other-{n}"), &format!("10.96.0.{n}"))));
    let report = daemon.events(others.chain([web(), six]).collect());
    assert!(report.failures.len() >= 2, "{:?}", report.failures);
    daemon.later(Duration::from_secs(1));
    assert!(!daemon.sync().failures.is_empty(), "it is tried again");
    thread::sleep(LATE);
    let (status, json) = ask(&daemon, "/healthz")?;
    assert_eq!(status, 200, "{json}");
    // The proxy becomes unhealthy when most Services fail.
    daemon.kernel.reject = vec!["+ real server".into(), "+ virtual server".into()];
    let more = (10..30).map(|n| Event::ServiceApplied(service(&format!("more-{n}"), &format!("10.96.0.{n}"))));
    daemon.events(more.collect());
    await_status(&daemon, "/healthz", 503).map(drop)
}

/// A roll-out goes on only after a node has been brought up to date. For all other checks a proxy without work is
/// healthy, as in kube-proxy.
#[test]
fn readyz_succeeds_after_the_first_complete_sync() -> Result<()> {
    let mut daemon = Daemon::start(&[SHORT])?;
    let ready = |daemon: &Daemon| Ok::<_, anyhow::Error>(get(daemon.health, "/readyz", "")?.status);
    assert_eq!((ready(&daemon)?, ask(&daemon, "/livez")?.0, ask(&daemon, "/healthz")?.0), (503, 200, 200));
    daemon.kernel.unreadable = true;
    daemon.events(vec![web()]);
    assert_eq!(ready(&daemon)?, 503);
    daemon.kernel.unreadable = false;
    daemon.kernel.reject = vec!["+ virtual server".into()];
    daemon.later(Duration::from_secs(1));
    daemon.events(vec![Event::ServiceApplied(service("other", "10.96.0.81"))]);
    assert_eq!(ready(&daemon)?, 503);
    daemon.kernel.reject.clear();
    daemon.later(Duration::from_secs(2));
    daemon.sync();
    assert_eq!(ready(&daemon)?, 200);
    // `/livez` reports later failures.
    daemon.kernel.unreadable = true;
    daemon.later(Duration::from_millis(100));
    daemon.sync();
    await_status(&daemon, "/livez", 503)?;
    assert_eq!(ready(&daemon)?, 200);
    Ok(())
}

/// Without contact with the API server, kube-ipvs serves the last known state. All nodes are equally good, and load
/// balancers must not lose them all at once.
#[test]
fn readyz_fails_after_long_without_api_server_contact() -> Result<()> {
    for (limit, after) in [("--out-of-contact-limit=100ms", 503), ("--out-of-contact-limit=0", 200)] {
        let mut daemon = Daemon::start(&[limit])?;
        daemon.events(vec![web()]);
        let contact = daemon.status.contact();
        contact.heard("services");
        contact.lost("endpointslices");
        scenarios::eventually(|| {
            let ready = get(daemon.health, "/readyz", "")?;
            ensure!(ready.status == after, "{ready:?}");
            Ok(())
        })?;
        assert_eq!((ask(&daemon, "/livez")?.0, ask(&daemon, "/healthz")?.0), (200, 200));
        contact.heard("endpointslices");
        assert_eq!(get(daemon.health, "/readyz", "")?.status, 200);
    }
    Ok(())
}

#[test]
fn unreadable_kernel_makes_the_proxy_unhealthy() -> Result<()> {
    let mut daemon = Daemon::start(&[SHORT])?;
    daemon.kernel.unreadable = true;
    daemon.events(vec![web()]);
    await_status(&daemon, "/livez", 503).map(drop)
}

#[test]
fn stuck_sync_loop_makes_the_proxy_unhealthy() -> Result<()> {
    let mut daemon = Daemon::start(&[SHORT])?;
    daemon.sync();
    let changes = kube_ipvs::source::Changes { events: vec![web()], ..Default::default() };
    daemon.queue(changes);
    await_status(&daemon, "/livez", 503)?;
    daemon.sync();
    assert_eq!(ask(&daemon, "/livez")?.0, 200);
    Ok(())
}

/// If another program has the port, the daemon ends, or it retries until the port is free.
#[test]
fn taken_health_port_ends_the_daemon_or_is_retried() -> Result<()> {
    let (at, other) = (free()?, free()?);
    let taken = TcpListener::bind(at)?;
    let flags = |fail: bool| {
        [
            format!("--healthz-bind-address={at}"),
            format!("--metrics-bind-address={other}"),
            format!("--bind-address-hard-fail={fail}"),
        ]
    };
    let hard = configuration(&flags(true))?;
    let status = Arc::new(Status::new(&hard));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serving = serve::run(&hard, &[], Arc::clone(&status), drop, |_| Ok(Vec::new()), UNHURRIED);
    let error = runtime.block_on(serving).err().context("no error")?;
    assert!(format!("{error:#}").starts_with(&format!("cannot listen on {at} for health checks")), "{error:#}");
    drop(runtime);
    serve(configuration(&flags(false))?, &status);
    await_listener(other)?;
    drop(taken);
    await_listener(at)?;
    assert_eq!(get(at, "/livez", "")?.status, 200);
    Ok(())
}

#[test]
fn unspecified_address_listens_on_both_families() -> Result<()> {
    let port = free()?.port();
    let configuration =
        configuration(&[format!("--healthz-bind-address=0.0.0.0:{port}"), "--metrics-bind-address=".into()])?;
    serve(configuration.clone(), &Arc::new(Status::new(&configuration)));
    await_listener(([127, 0, 0, 1], port).into())?;
    if TcpListener::bind("[::1]:0").is_ok() {
        assert_eq!(get(format!("[::1]:{port}").parse()?, "/livez", "")?.status, 200);
    }
    Ok(())
}
