//! Endpoints that are on their way out.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use scenarios::{Cluster, Conversation, Server, Slice, TestResult, Transport, eventually, scenario, throughout};

use crate::common::{WEB, WEB_ADDRESS, WEB_PODS, web_cluster, web_service};

const READY: &str = "ready: true, serving: true, terminating: false";
const NOT_READY: &str = "ready: false, serving: false, terminating: false";
const SERVING_TERMINATING: &str = "ready: false, serving: true, terminating: true";
const TERMINATING: &str = "ready: false, serving: false, terminating: true";

/// Lists pods with their conditions.
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

/// A connection from `visitor` through the Service that has come to a certain pod.
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

/// Where nothing is ready, what terminates and still serves has to do; never what serves no longer.
#[test]
fn serving_terminating_endpoints_are_the_fall_back() -> TestResult {
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

/// Not ready, or terminating, but listed: weight 0, and its established connection lives.
#[test]
fn a_listed_endpoint_drains() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy(cluster, &[("web-1", READY), ("web-2", READY)])?;
        let _proxy = cluster.start_proxy("node-3", &[])?;
        let node = cluster.at("node-3")?;
        node.await_service(WEB, &["10.244.1.2:8080 1", "10.244.2.2:8080 1"])?;
        let mut held = connection_to(cluster, "web-2")?;
        for conditions in [NOT_READY, SERVING_TERMINATING, TERMINATING] {
            put(cluster, &[("web-1", READY), ("web-2", conditions)])?;
            node.await_service(WEB, &["10.244.1.2:8080 1", "10.244.2.2:8080 0"])?;
            // Nothing of the daemon's or the kernel's ends it: neither now nor a little later.
            throughout(Duration::from_secs(1), || {
                assert_eq!(held.say()?.name, "web-2");
                Ok(())
            })?;
            new_connections_go_to(cluster, &["web-1"])?;
        }
        // Ready again: back in the rotation, with its connection.
        put(cluster, &[("web-1", READY), ("web-2", READY)])?;
        node.await_service(WEB, &["10.244.1.2:8080 1", "10.244.2.2:8080 1"])?;
        assert_eq!(held.say()?.name, "web-2");
        Ok(())
    })
}

/// Left the slice without a word: no new connections, but the established one lives until it ends; then it is gone.
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
        // A real server without connections would be gone at the change; this one has one.
        throughout(Duration::from_secs(3), || {
            assert_eq!(held.say()?.name, "web-2");
            Ok(())
        })?;
        new_connections_go_to(cluster, &["web-1"])?;
        let weights = node.ipvsadm()?.weights(WEB);
        ensure!(weights == Some(vec!["10.244.1.2:8080 1".into(), "10.244.2.2:8080 0".into()]), "{weights:?}");
        held.reset()?;
        // IPVS itself forgets a connection that was reset after ten seconds.
        eventually(|| {
            let weights = node.ip_vs()?.weights(WEB);
            ensure!(weights == Some(vec!["10.244.1.2:8080 1".into()]), "{weights:?}");
            Ok(())
        })
    })
}

/// One that was seen terminating has had its time: when it leaves the slice it is gone at once.
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
        // What a server does on SIGTERM: no new connections, the old ones to their end.
        servers[1].close_listener();
        assert_eq!(held.say()?.name, "web-2");
        put(cluster, &[("web-1", READY)])?;
        node.await_service(WEB, &["10.244.1.2:8080 1"])?;
        new_connections_go_to(cluster, &["web-1"])
    })
}
