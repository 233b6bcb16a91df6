//! The examples of `proxier` and `proxier-kubernetes`: programs that embed the proxy, on nodes without kube-ipvs.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use scenarios::{Kind, Load, Service, TestResult, scenario};

use crate::{
    api_server::api_server,
    common::{WEB, WEB_ADDRESS, WEB_PODS, all_web, await_web, ensure_rotation, web_cluster, web_service, web_slice},
};

const NODE: &str = "node-3";
const REQUESTS: usize = 6;

#[test]
fn serve_one_serves_a_service_from_code_and_leaves_it_when_it_ends() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = WEB_PODS.iter().map(|(name, ..)| cluster.http(name, 8080)).collect::<Result<Vec<_>>>()?;
        let (node, visitor) = (cluster.at(NODE)?, cluster.at("visitor")?);
        let program = cluster.example(NODE, "serve_one")?;
        let all = ["10.244.1.2:8080", "10.244.2.2:8080", "10.244.2.3:8080"];
        let running = program.spawn(&[&[WEB_ADDRESS], &all[..]].concat())?;
        await_web(cluster, NODE)?;
        node.await_vips(&["10.96.0.80"])?;
        ensure_rotation(&visitor.get_many(WEB_ADDRESS, REQUESTS)?, &all_web())?;

        // It repairs its state when another program changes it.
        node.run("ip", &["addr", "del", "10.96.0.80/32", "dev", scenarios::VIP_DEVICE])?;
        node.await_vips(&["10.96.0.80"])?;

        let load = Load::start(visitor, WEB_ADDRESS, Duration::from_millis(10))?;
        running.terminate()?;
        load.go_on(REQUESTS)?;
        let _again = program.spawn(&[WEB_ADDRESS, all[0], all[1]])?;
        node.await_serving(WEB, &all[..2])?;
        load.go_on(REQUESTS)?;
        load.stop(REQUESTS, "a pod")?;
        Ok(())
    })
}

#[test]
fn mini_proxy_follows_the_api_server_through_an_outage() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = WEB_PODS.iter().map(|(name, ..)| cluster.http(name, 8080)).collect::<Result<Vec<_>>>()?;
        let (mut api, kubeconfig) = api_server(cluster, None)?;
        // kube's client reads the host's certificates of authorities even for http, and the bench has none.
        let authority = cluster.directory().join("authority.pem");
        fs::write(&authority, include_str!("authority.pem"))?;
        let authorities = format!("SSL_CERT_FILE={}", authority.display());
        api.apply(&web_service())?;
        api.apply(&web_slice(&all_web()))?;
        api.apply(&Service::new("second").cluster_ip("10.96.0.81").port(80))?;
        let (node, visitor) = (cluster.at(NODE)?, cluster.at("visitor")?);
        let environment = format!("KUBECONFIG={}", kubeconfig.display());
        let mut proxy = cluster.example(NODE, "env")?.spawn(&[&environment, &authorities, "mini_proxy", NODE])?;
        await_web(cluster, NODE)?;
        node.await_vips(&["10.96.0.80", "10.96.0.81"])?;
        ensure_rotation(&visitor.get_many(WEB_ADDRESS, REQUESTS)?, &all_web())?;

        let load = Load::start(visitor, WEB_ADDRESS, Duration::from_millis(10))?;
        // Watched changes: a watch goes on where the last one ended.
        api.apply(&web_slice(&["web-1", "web-2"]))?;
        node.await_serving(WEB, &["10.244.1.2:8080", "10.244.2.2:8080"])?;
        api.end_watches();
        api.apply(&Service::new("third").cluster_ip("10.96.0.82").port(80))?;
        node.await_vips(&["10.96.0.80", "10.96.0.81", "10.96.0.82"])?;

        // Changes that a new list has: the history is gone.
        api.away();
        api.delete(Kind::Service, "second")?;
        api.apply(&web_slice(&["web-2", "web-3"]))?;
        api.compact();
        load.go_on(REQUESTS)?;
        api.back()?;
        node.await_vips(&["10.96.0.80", "10.96.0.82"])?;
        node.await_no_service("TCP 10.96.0.81:80")?;
        node.await_serving(WEB, &["10.244.2.2:8080", "10.244.2.3:8080"])?;
        load.go_on(REQUESTS)?;
        let report = load.stop(REQUESTS, "a pod")?;
        ensure!(report.answers.len() == WEB_PODS.len(), "not all pods answered: {:?}", report.answers);
        proxy.check_alive()
    })
}
