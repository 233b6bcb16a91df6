//! Terminating and vanished endpoints.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use scenarios::{Cluster, Conversation, Server, Slice, TestResult, Transport, eventually, scenario, throughout};

use crate::common::{WEB, WEB_ADDRESS, WEB_PODS, web_cluster, web_service};

const READY: &str = "ready: true, serving: true, terminating: false";
const NOT_READY: &str = "ready: false, serving: false, terminating: false";
const SERVING_TERMINATING: &str = "ready: false, serving: true, terminating: true";
const TERMINATING: &str = "ready: false, serving: false, terminating: true";

fn put(cluster: &Cluster, endpoints: &[(&str, &str)]) -> Result<()> {
    let mut slice = Slice::of("web").port(8080);
    for (name, conditions) in endpoints {
        let (_, node, address) = WEB_PODS.iter().find(|pod| pod.0 == *name).context("no such pod")?;
        slice = slice.endpoint(address, conditions).on(node);
    }
    cluster.manifests.write("web-slice", &slice)
}

fn deploy(cluster: &Cluster, endpoints: &[(&str, &str)]) -> Result<Vec<Server>> {
    cluster.manifests.write("web", &web_service())?;
    put(cluster, endpoints)?;
    WEB_PODS.iter().map(|(name, ..)| cluster.echo(name, Transport::Tcp, 8080)).collect()
}

fn connection_to(cluster: &Cluster, pod: &str) -> Result<Conversation> {
    for _ in 0..6 {
        let mut connection = cluster.at("visitor")?.connect(Transport::Tcp, WEB_ADDRESS)?;
        if connection.say()?.name == pod {
            return Ok(connection);
        }
        connection.reset()?;
    }
    anyhow::bail!("none of six connections came to {pod}")
}

fn new_connections_go_to(cluster: &Cluster, pods: &[&str]) -> TestResult {
    for _ in 0..4 {
        let name = cluster.at("visitor")?.echo(Transport::Tcp, WEB_ADDRESS)?.name;
        ensure!(pods.contains(&name.as_str()), "a new connection came to {name}, not to one of {pods:?}");
    }
    Ok(())
}

/// Terminating endpoints that no longer serve get no connections, even then.
#[test]
fn serving_terminating_endpoints_serve_if_none_is_ready() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let leaving = [("web-1", SERVING_TERMINATING), ("web-2", SERVING_TERMINATING), ("web-3", TERMINATING)];
        let _servers = deploy(cluster, &leaving)?;
        let _proxy = cluster.start_proxy("node-3", &[])?;
        let node = cluster.at("node-3")?;
        node.await_serving(WEB, &["10.244.1.2:8080", "10.244.2.2:8080"])?;
        new_connections_go_to(cluster, &["web-1", "web-2"])?;
        put(cluster, &[("web-1", SERVING_TERMINATING), ("web-2", SERVING_TERMINATING), ("web-3", READY)])?;
        node.await_serving(WEB, &["10.244.2.3:8080"])?;
        new_connections_go_to(cluster, &["web-3"])?;
        put(cluster, &[("web-1", SERVING_TERMINATING), ("web-2", TERMINATING), ("web-3", NOT_READY)])?;
        node.await_serving(WEB, &["10.244.1.2:8080"])?;
        new_connections_go_to(cluster, &["web-1"])
    })
}

/// An endpoint that is not ready or terminating, and still listed, has weight 0. Its established connection survives.
#[test]
fn listed_endpoint_that_is_not_ready_keeps_its_connections() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy(cluster, &[("web-1", READY), ("web-2", READY)])?;
        let _proxy = cluster.start_proxy("node-3", &[])?;
        let node = cluster.at("node-3")?;
        node.await_service(WEB, &["10.244.1.2:8080 1", "10.244.2.2:8080 1"])?;
        let mut held = connection_to(cluster, "web-2")?;
        for conditions in [NOT_READY, SERVING_TERMINATING, TERMINATING] {
            put(cluster, &[("web-1", READY), ("web-2", conditions)])?;
            node.await_service(WEB, &["10.244.1.2:8080 1", "10.244.2.2:8080 0"])?;
            // Neither the daemon nor the kernel ends the connection, now or a little later.
            throughout(Duration::from_secs(1), || {
                assert_eq!(held.say()?.name, "web-2");
                Ok(())
            })?;
            new_connections_go_to(cluster, &["web-1"])?;
        }
        // When it is ready again it returns to the rotation, with its connection.
        put(cluster, &[("web-1", READY), ("web-2", READY)])?;
        node.await_service(WEB, &["10.244.1.2:8080 1", "10.244.2.2:8080 1"])?;
        assert_eq!(held.say()?.name, "web-2");
        Ok(())
    })
}

/// An endpoint that vanished from the slice gets no new connections. Its established connection lives until it ends.
#[test]
fn an_endpoint_that_vanishes_drains_until_idle() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy(cluster, &[("web-1", READY), ("web-2", READY)])?;
        let _proxy = cluster.start_proxy("node-3", &[])?;
        let node = cluster.at("node-3")?;
        node.await_service(WEB, &["10.244.1.2:8080 1", "10.244.2.2:8080 1"])?;
        let mut held = connection_to(cluster, "web-2")?;
        put(cluster, &[("web-1", READY)])?;
        node.await_serving(WEB, &["10.244.1.2:8080"])?;
        // A real server without connections would be removed at once; this one has a connection.
        throughout(Duration::from_secs(3), || {
            assert_eq!(held.say()?.name, "web-2");
            Ok(())
        })?;
        new_connections_go_to(cluster, &["web-1"])?;
        let weights = node.ipvsadm()?.weights(WEB);
        ensure!(weights == Some(vec!["10.244.1.2:8080 1".into(), "10.244.2.2:8080 0".into()]), "{weights:?}");
        held.reset()?;
        // IPVS forgets a reset connection after ten seconds.
        eventually(|| {
            let weights = node.ip_vs()?.weights(WEB);
            ensure!(weights == Some(vec!["10.244.1.2:8080 1".into()]), "{weights:?}");
            Ok(())
        })
    })
}

/// An endpoint that was listed as terminating has had its time to drain.
#[test]
fn a_terminating_endpoint_that_leaves_is_gone_at_once() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let mut servers = deploy(cluster, &[("web-1", READY), ("web-2", READY)])?;
        let _proxy = cluster.start_proxy("node-3", &[])?;
        let node = cluster.at("node-3")?;
        node.await_service(WEB, &["10.244.1.2:8080 1", "10.244.2.2:8080 1"])?;
        let mut held = connection_to(cluster, "web-2")?;
        put(cluster, &[("web-1", READY), ("web-2", SERVING_TERMINATING)])?;
        node.await_service(WEB, &["10.244.1.2:8080 1", "10.244.2.2:8080 0"])?;
        assert_eq!(held.say()?.name, "web-2");
        // As a server on SIGTERM: no new connections, and the established ones continue.
        servers[1].close_listener();
        assert_eq!(held.say()?.name, "web-2");
        put(cluster, &[("web-1", READY)])?;
        node.await_service(WEB, &["10.244.1.2:8080 1"])?;
        new_connections_go_to(cluster, &["web-1"])
    })
}
