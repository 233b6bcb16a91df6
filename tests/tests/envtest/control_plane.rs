//! Scenarios that need a real API server: RBAC, Events, restarts, and tokens.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use scenarios::{
    Cluster, ControlPlane, Load, Proxy, Request, Service, TestResult, Transport, eventually, scenario, throughout,
    time_out,
};
use serde_json::Value;

use crate::common::{WEB, WEB_ADDRESS, all_web, await_web, deploy_web, web_cluster, web_service, web_slice};

/// The node under test. The requests come from a pod on it.
const NODE: &str = "node-3";

/// Waits until a node serves `web` with these pods' addresses. A restart of the API server can delay this.
fn await_pods(cluster: &Cluster, addresses: &[&str]) -> TestResult {
    let mut wanted: Vec<String> = addresses.iter().map(|address| format!("{address}:8080 1")).collect();
    wanted.sort();
    eventually(|| {
        let table = cluster.at(NODE)?.ipvsadm()?;
        let reals = table.weights(WEB).with_context(|| format!("there is no {WEB}"))?;
        let serving: Vec<String> = reals.into_iter().filter(|real| !real.ends_with(" 0")).collect();
        ensure!(serving == wanted, "{serving:?} serve, not {wanted:?}");
        Ok(())
    })
}

/// Fails if the daemon logs a warning or an error.
fn ensure_no_complaint(proxy: &Proxy) -> TestResult {
    let log = proxy.log_text();
    // If the machine was suspended, the API server has not answered for a while.
    let lines = log.lines().filter(|line| !line.contains("keeps the last known state"));
    let complaint = lines.into_iter().find(|line| line.contains("WARN") || line.contains("ERROR"));
    ensure!(complaint.is_none(), "it complains: {complaint:?}\n{log}");
    Ok(())
}

/// The daemon watches Services, EndpointSlices, its Node and ServiceCIDRs with the rights of manifests/rbac.yaml. It
/// uses only streaming lists. The API server refuses no request, and the daemon logs no complaint.
#[test]
fn shipped_cluster_role_is_sufficient() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let api = cluster.control_plane()?;
        let before = api.requests()?.len();
        let _servers = deploy_web(cluster)?;
        let proxy = cluster.start_proxy(NODE, &["--cluster-cidr", "10.244.0.0/16", "--watch-timeout", "5s"])?;
        await_web(cluster, NODE)?;
        cluster.at("visitor")?.get(WEB_ADDRESS)?;
        // The ServiceCIDRs tell kube-ipvs that no Service has this address, so it rejects the connection at once.
        eventually(|| cluster.at("visitor")?.expect_refused(Transport::Tcp, "10.96.7.7:80"))?;
        // Each watch ends, and the daemon resumes it from the last resource version.
        const RESOURCES: [&str; 4] = ["services", "endpointslices", "nodes", "servicecidrs"];
        let of = |asked: &[Request], resource: &str| -> Vec<Request> {
            let is_of = |request: &&Request| request.uri.contains(&format!("/{resource}?"));
            asked.iter().filter(is_of).cloned().collect()
        };
        let asked = eventually(|| {
            let asked = api.requests()?.split_off(before);
            let few = RESOURCES.into_iter().find(|resource| of(&asked, resource).len() < 3);
            ensure!(few.is_none(), "of {few:?}: {} requests in all", asked.len());
            Ok(asked)
        })?;
        for resource in RESOURCES {
            let ours = of(&asked, resource);
            ensure!(ours.iter().all(|request| request.verb == "watch"), "{ours:?}");
            let lists = ours.iter().filter(|request| request.uri.contains("sendInitialEvents=true")).count();
            ensure!(lists == 1, "of {resource}: {ours:?}");
        }
        let refused = asked.iter().find(|request| request.status != 200);
        ensure!(refused.is_none(), "it is refused: {refused:?}");
        ensure_no_complaint(&proxy)
    })
}

/// A second ServiceCIDR extends the ClusterIPs of a cluster. kube-ipvs rejects its unallocated addresses at once and
/// serves the others. When the ServiceCIDR is deleted, kube-ipvs stops rejecting its addresses.
#[test]
fn service_cidr_takes_effect_until_it_is_deleted() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let api = cluster.control_plane()?;
        let _servers = deploy_web(cluster)?;
        let _proxy = cluster.start_proxy(NODE, &["--cluster-cidr", "10.244.0.0/16"])?;
        await_web(cluster, NODE)?;
        let is_known = || -> Result<bool> {
            let sets = cluster.at(NODE)?.nft_sets()?;
            let ranges = sets.get("ip service-ranges").context("no set of ranges")?;
            Ok(ranges.iter().any(|range| range.starts_with("10.200.0.0/24")))
        };
        ensure!(!is_known()?, "a range of an earlier scenario");
        let range = "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: more}\nspec: {cidrs: [10.200.0.0/24]}\n";
        api.apply(range)?;
        eventually(|| cluster.at("visitor")?.expect_refused(Transport::Tcp, "10.200.0.9:80"))?;
        ensure!(is_known()?, "refused, and not for the range");
        // The API server starts to allocate from a new ServiceCIDR some time after its creation.
        let service = Service::new("more").cluster_ip("10.200.0.9").port_line("port: 80, targetPort: 8080");
        eventually(|| cluster.manifests.write("more", &service))?;
        let slice = web_slice(&["web-1"]).to_string().replace("web-1", "more-1").replace("name: web ", "name: more ");
        cluster.manifests.write("more-slice", &slice)?;
        cluster.at(NODE)?.await_service("TCP 10.200.0.9:80", &["10.244.1.2:8080 1"])?;
        cluster.at("visitor")?.get("10.200.0.9:80")?;
        cluster.manifests.remove("more")?;
        cluster.at(NODE)?.await_no_service("TCP 10.200.0.9:80")?;
        api.delete(range)?;
        eventually(|| {
            ensure!(!is_known()?, "the range is still there");
            Ok(())
        })
    })
}

/// In-cluster clients reach the API server through the Service `kubernetes`, whose slice the API server itself writes.
#[test]
fn api_server_is_reached_through_the_kubernetes_service() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let api = cluster.control_plane()?;
        let _proxy = cluster.start_proxy(NODE, &["--cluster-cidr", "10.244.0.0/16"])?;
        api.serve_own_service(true)?;
        let reached = ask_by_service(cluster, api);
        api.serve_own_service(false)?;
        reached?;
        cluster.at(NODE)?.await_no_service("TCP 10.96.0.1:443")
    })
}

fn ask_by_service(cluster: &Cluster, api: &ControlPlane) -> TestResult {
    cluster.at(NODE)?.await_service("TCP 10.96.0.1:443", &["192.168.128.250:6443 1"])?;
    let authority = api.token_file().with_file_name("ca.crt");
    for from in ["visitor", NODE] {
        let words =
            ["-sS", "--max-time", &time_out(), "--cacert", &authority.to_string_lossy(), "https://10.96.0.1/version"];
        let said = cluster.at(from)?.run("curl", &words)?;
        ensure!(said.contains("gitVersion"), "{from} reads {said}");
    }
    Ok(())
}

#[test]
fn services_stay_served_while_the_api_server_restarts() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let api = cluster.control_plane()?;
        let _servers = deploy_web(cluster)?;
        let mut proxy = cluster.start_proxy(NODE, &["--cluster-cidr", "10.244.0.0/16"])?;
        await_web(cluster, NODE)?;
        let load = Load::start(cluster.at("visitor")?, WEB_ADDRESS, Duration::from_millis(50))?;
        api.away();
        // Meanwhile the daemon retries its connection to the API server.
        throughout(Duration::from_secs(5), || await_web(cluster, NODE))?;
        api.back()?;
        cluster.manifests.write("web-slice", &web_slice(&["web-1"]))?;
        await_pods(cluster, &["10.244.1.2"])?;
        proxy.check_alive()?;
        load.stop(50, "a pod").map(drop)
    })
}

/// A new token replaces the old one in the file, and the old one expires.
#[test]
fn daemon_uses_a_replaced_service_account_token() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let api = cluster.control_plane()?;
        let secret =
            |name: &str| format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: kube-system}}\n");
        api.apply(&secret("first"))?;
        fs::write(api.token_file(), api.token(Some("first"))?)?;
        let _servers = deploy_web(cluster)?;
        let mut proxy = cluster.start_proxy(NODE, &["--watch-timeout", "10s"])?;
        await_web(cluster, NODE)?;
        fs::write(api.token_file(), api.token(None)?)?;
        api.delete(&secret("first"))?;
        // Longer than the API server caches a valid token, and longer than a watch of the daemon lasts.
        std::thread::sleep(Duration::from_secs(30));
        cluster.manifests.write("web-slice", &web_slice(&["web-2"]))?;
        await_pods(cluster, &["10.244.2.2"])?;
        ensure!(!proxy.log_text().contains("401"), "the old token was used:\n{}", proxy.log_text());
        proxy.check_alive()
    })
}

/// If two Services want the same external IP and port, kube-ipvs posts an Event about the younger one.
#[test]
fn event_about_a_disputed_address_is_accepted() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let api = cluster.control_plane()?;
        for (name, ip) in [("older", "10.96.0.21"), ("younger", "10.96.0.22")] {
            let service = Service::new(name).cluster_ip(ip).line("externalIPs: [203.0.113.9]").port(80);
            cluster.manifests.write(name, &service)?;
            // Creation times decide, and the API server stores them in whole seconds.
            std::thread::sleep(Duration::from_millis(1100));
        }
        let proxy = cluster.start_proxy(NODE, &[])?;
        cluster.at(NODE)?.await_vips(&["10.96.0.21", "10.96.0.22", "203.0.113.9"])?;
        let event = eventually(|| {
            let events = api.get("/apis/events.k8s.io/v1/namespaces/default/events")?;
            let events = events["items"].as_array().cloned().unwrap_or_default();
            let ours = |event: &&Value| event["reportingController"] == "kube-ipvs";
            events.iter().find(ours).cloned().with_context(|| format!("no Event:\n{}", proxy.log_text()))
        })?;
        ensure!(event["reason"] == "AddressInUse", "{event}");
        ensure!(event["regarding"]["name"] == "younger", "{event}");
        ensure!(event["reportingInstance"] == NODE, "{event}");
        Ok(())
    })
}

/// A Service without a ClusterIP gets one from the API server's ranges, and a node port too.
#[test]
fn allocated_cluster_ip_and_node_port_are_served() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let api = cluster.control_plane()?;
        let _servers = deploy_web(cluster)?;
        let service = web_service().to_string().replace("clusterIP: \"10.96.0.80\"", "type: NodePort");
        let service = service.replace("  clusterIPs: [\"10.96.0.80\"]\n", "").replace("name: web\n", "name: any\n");
        cluster.manifests.write("any", &service)?;
        let slice = web_slice(&all_web()).to_string().replace("web-1", "any-1").replace("name: web ", "name: any ");
        cluster.manifests.write("any-slice", &slice)?;
        let _proxy = cluster.start_proxy(NODE, &["--cluster-cidr", "10.244.0.0/16"])?;
        let made = api.get("/api/v1/namespaces/default/services/any")?;
        let text = |value: &Value| -> Result<String> { Ok(value.as_str().context("no address")?.to_owned()) };
        let address = text(&made["spec"]["clusterIP"])?;
        let node_port = made["spec"]["ports"][0]["nodePort"].as_u64().context("no node port")?;
        let reals = ["10.244.1.2:8080 1", "10.244.2.2:8080 1", "10.244.2.3:8080 1"];
        cluster.at(NODE)?.await_service(&format!("TCP {address}:80"), &reals)?;
        cluster.at("visitor")?.get(&format!("{address}:80"))?;
        cluster.at("client")?.get(&format!("192.168.128.3:{node_port}")).map(drop)
    })
}
