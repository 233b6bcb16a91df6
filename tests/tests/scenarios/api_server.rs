//! The daemon on an API server that goes away, returns, and rejects its token.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use scenarios::{
    ApiServer, Cluster, Kind, Load, Service, Slice, TestResult, VIP_DEVICE, eventually, scenario, throughout,
};

use crate::common::{WEB, WEB_ADDRESS, WEB_PODS, all_web, await_web, web_cluster, web_service, web_slice};

/// The node under test. The requests come from a pod on it.
const NODE: &str = "node-3";

/// Starts an API server on the host `client`. Returns it with its kubeconfig.
pub(crate) fn api_server(cluster: &Cluster, token: Option<&str>) -> Result<(ApiServer, PathBuf)> {
    let api = ApiServer::start_in(cluster.at("client")?, "192.168.128.100:6443".parse()?)?;
    let token_file = cluster.directory().join("token");
    if let Some(token) = token {
        fs::write(&token_file, token)?;
        api.tokens(&[token]);
    }
    let kubeconfig = cluster.directory().join("kubeconfig");
    fs::write(&kubeconfig, api.kubeconfig(token_file.to_str().filter(|_| token.is_some())))?;
    Ok((api, kubeconfig))
}

fn deploy(cluster: &Cluster, api: &ApiServer) -> Result<Vec<scenarios::Server>> {
    api.apply(&web_service())?;
    api.apply(&web_slice(&all_web()))?;
    api.apply(&Service::new("second").cluster_ip("10.96.0.81").port(80))?;
    api.apply(&Slice::of("second").port(8080).ready("10.244.1.2"))?;
    WEB_PODS.iter().map(|(name, ..)| cluster.http(name, 8080)).collect()
}

/// The state that the daemon wrote, as the tools read it back.
fn written(cluster: &Cluster) -> Result<(String, Vec<std::net::IpAddr>, scenarios::Sets)> {
    let node = cluster.at(NODE)?;
    Ok((node.ipvsadm()?.configuration(), node.vips()?, node.nft_sets()?))
}

/// If the API server is away, the daemon changes nothing, whether it runs or starts. When the API server returns, the
/// daemon applies the missed changes.
#[test]
fn services_stay_served_while_the_api_server_is_away() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let (mut api, kubeconfig) = api_server(cluster, None)?;
        let _servers = deploy(cluster, &api)?;
        let start = || cluster.kube_ipvs(NODE)?.start_with_kubeconfig(&kubeconfig, &["--ipvs-sync-period", "1s"]);
        let proxy = start()?;
        await_web(cluster, NODE)?;
        let node = cluster.at(NODE)?;
        node.await_service("TCP 10.96.0.81:80", &["10.244.1.2:8080 1"])?;
        node.await_vips(&["10.96.0.80", "10.96.0.81"])?;
        let before = written(cluster)?;
        let load = Load::start(cluster.at("visitor")?, WEB_ADDRESS, Duration::from_millis(10))?;
        let unchanged = || {
            ensure!(written(cluster)? == before, "something was touched");
            Ok(())
        };

        let connected = r#"kube_ipvs_watch_connected{resource="services"}"#;
        ensure!(node.metric(connected)? == 1.0, "services are followed, and {connected} says no");
        let host = api.address();
        let requests = format!(r#"rest_client_requests_total{{code="200",host="{host}",method="GET"}}"#);
        ensure!(node.metric(&requests)? > 0.0, "no request was counted");

        api.away();
        eventually(|| {
            let value = node.metric(connected)?;
            ensure!(value == 0.0, "nothing is followed, and {connected} is {value}");
            Ok(())
        })?;
        api.delete(Kind::Service, "second")?;
        api.delete(Kind::EndpointSlice, "second-1")?;
        // Longer than several sync periods of one second.
        throughout(Duration::from_secs(5), unchanged)?;
        // A restarted daemon does not know the cluster yet, so it changes nothing and repairs no drift.
        let status = proxy.terminate()?;
        ensure!(status.success(), "SIGTERM ended it with {status}");
        let mut proxy = start()?;
        eventually(|| {
            let log = proxy.log_text();
            ensure!(log.contains("cannot reach the API server"), "it says nothing:\n{log}");
            Ok(())
        })?;
        throughout(Duration::from_secs(5), unchanged)?;
        proxy.check_alive()?;

        api.back()?;
        node.await_no_service("TCP 10.96.0.81:80")?;
        node.await_vips(&["10.96.0.80"])?;
        load.stop(200, "a pod")?;

        // The API server returns after it has compacted its history.
        api.away();
        api.apply(&Service::new("third").cluster_ip("10.96.0.82").port(80))?;
        api.apply(&web_slice(&["web-1"]))?;
        api.compact();
        api.back()?;
        node.await_service("TCP 10.96.0.82:80", &[])?;
        node.await_serving(WEB, &["10.244.1.2:8080"])?;
        proxy.check_alive()
    })
}

/// The file gets a new token, and the API server no longer accepts the old one.
#[test]
fn daemon_reads_a_replaced_token_from_its_file() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let (api, kubeconfig) = api_server(cluster, Some("first"))?;
        let _servers = deploy(cluster, &api)?;
        let proxy = cluster.kube_ipvs(NODE)?.start_with_kubeconfig(&kubeconfig, &[])?;
        await_web(cluster, NODE)?;
        fs::write(cluster.directory().join("token"), "second")?;
        api.tokens(&["second"]);
        api.cut();
        api.apply(&web_slice(&["web-1"]))?;
        cluster.at(NODE)?.await_serving(WEB, &["10.244.1.2:8080"])?;
        assert_eq!(api.last_token().as_deref(), Some("second"));
        // If the API server rejects a token, the daemon logs the refusal and keeps the state.
        fs::write(cluster.directory().join("token"), "unknown")?;
        api.cut();
        eventually(|| {
            let log = proxy.log_text();
            ensure!(log.contains("answers 401"), "the log does not have the refusal:\n{log}");
            Ok(())
        })?;
        cluster.at(NODE)?.await_serving(WEB, &["10.244.1.2:8080"])
    })
}

#[test]
fn diff_and_explain_read_from_the_api_server() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let (api, kubeconfig) = api_server(cluster, None)?;
        let _servers = deploy(cluster, &api)?;
        let kubeconfig = kubeconfig.to_string_lossy();
        let flags = ["--kubeconfig", &kubeconfig, "--hostname-override", NODE];
        let command = cluster.kube_ipvs(NODE)?;
        let output = command.output(&[&["diff"], &flags[..]].concat())?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.code() == Some(1) && said.contains("10.96.0.80:80"), "{:?}\n{said}", output.status);
        let said = command.run(&[&["explain", "web"], &flags[..]].concat())?;
        ensure!(said.contains("10.244.2.3:8080 weight 1"), "{said}");
        ensure!(!cluster.at(NODE)?.has_device(VIP_DEVICE)?, "a command has changed something");
        Ok(())
    })
}
