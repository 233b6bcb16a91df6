//! Broken manifests: the log names each of them, and valid objects stay in force.

use anyhow::{Context, Result, ensure};
use scenarios::{Cluster, Namespace, Proxy, Service, Slice, TestResult, eventually, scenario, throughout};
use std::time::Duration;

use crate::common::{WEB, WEB_ADDRESS, await_web, deploy_web, web_cluster};

const NODE: &str = "node-3";

/// A Service whose `spec:` is on line 5.
fn service(spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n{spec}")
}

/// A slice whose `addressType:` is on line 7.
fn slice(rest: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  labels:\n    \
         kubernetes.io/service-name: web\n{rest}"
    )
}

/// Broken manifests, each with the texts that the log must contain: the line in the file, the object, the field, the
/// wrong value.
fn broken() -> Vec<(String, Vec<&'static str>)> {
    let endpoint =
        |text: &str| slice(&format!("addressType: IPv4\nports:\n- port: 80\nendpoints:\n- addresses:\n  - {text}\n"));
    vec![
        (service("ports:\n- port: 70000"), vec![":7:", "default/web", "spec.ports[0].port", "70000"]),
        (service("ports:\n- port: 0"), vec![":7:", "default/web", "spec.ports[0].port"]),
        (service("ports:\n- port: -1"), vec![":7:", "default/web", "spec.ports[0].port", "-1"]),
        (service("ports:\n- port: \"80\""), vec![":7:", "default/web", "spec.ports[0].port", "quotes"]),
        (service("ports:\n- port: http"), vec![":7:", "default/web", "spec.ports[0].port", "http"]),
        (service("ports:\n- name: http\n  targetPort: 80"), vec![":7:", "default/web", "spec.ports[0]", "port"]),
        (service("ports: 80"), vec![":6:", "default/web", "spec.ports"]),
        (service("clusterIP: 10.96.0.80\nports: []"), vec![":7:", "default/web", "spec.ports"]),
        (
            service("type: NodePort\nports:\n- port: 80\n  nodePort: 65536"),
            vec![":9:", "default/web", "nodePort", "65536"],
        ),
        (service("ports:\n- port: 80\n  nodePort: 30080"), vec![":8:", "default/web", "nodePort", "spec.type"]),
        (service("ports:\n- {name: a, port: 80}\n- {name: b, port: 80}"), vec![":8:", "default/web", "TCP 80"]),
        (service("ports:\n- {name: a, port: 80}\n- {name: a, port: 81}"), vec![":8:", "default/web", "name"]),
        (service("ports:\n- port: 80\n- port: 81"), vec![":7:", "default/web", "name"]),
        (service("ports:\n- port: 80\n  protocol: tcp"), vec![":8:", "default/web", "protocol", "tcp"]),
        (service("type: Nodeport\nports:\n- port: 80"), vec![":6:", "default/web", "spec.type", "Nodeport"]),
        (service("sessionAffinity: ClientIp\nports:\n- port: 80"), vec![":6:", "default/web", "sessionAffinity"]),
        (service("clusterIP: 10.96.0\nports:\n- port: 80"), vec![":6:", "default/web", "spec.clusterIP", "10.96.0"]),
        (service("clusterIP: 10.96.0.80/32\nports:\n- port: 80"), vec![":6:", "default/web", "spec.clusterIP", "/32"]),
        (service("clusterIP: 127.0.0.1\nports:\n- port: 80"), vec![":6:", "default/web", "spec.clusterIP", "loopback"]),
        (endpoint("10.244.1"), vec![":12:", "default/web-1", "addresses[0]", "10.244.1"]),
        (endpoint("fd00::1"), vec![":12:", "default/web-1", "addresses[0]", "addressType"]),
        (endpoint("127.0.0.1"), vec![":12:", "default/web-1", "addresses[0]", "loopback"]),
        (slice("addressType: ipv4\nendpoints: []\n"), vec![":7:", "default/web-1", "addressType", "ipv4"]),
        (slice("endpoints: []\n"), vec!["default/web-1", "addressType", "missing"]),
        ("kind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n".into(), vec!["apiVersion", "missing"]),
        ("apiVersion: v1\nkind: Service\nspec: {ports: [{port: 80}]}\n".into(), vec!["metadata.name", "missing"]),
        ("apiVersion: v2\nkind: Service\nmetadata: {name: web}\n".into(), vec![":1:", "default/web", "v2"]),
        ("apiVersion: v1\nkind: Service\nmetadata:\n\tname: web\n".into(), vec![":4:", "tab"]),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: \"web}\nspec: {}\n".into(), vec![":3:", "quote"]),
        ("\n".into(), vec!["is empty"]),
        ("just words\n".into(), vec!["just words"]),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{po\0".into(), vec!["NUL"]),
    ]
}

/// Waits until the log since `from` has one line with all of `needles`.
fn await_message(proxy: &mut Proxy, from: usize, needles: &[&str]) -> Result<()> {
    eventually(|| {
        proxy.check_alive()?;
        let log = proxy.log_text();
        let new = log.get(from..).unwrap_or_default();
        let named = new.lines().any(|line| needles.iter().all(|needle| line.contains(needle)));
        ensure!(named, "no line names all of {needles:?}; the log went on with:\n{new}");
        Ok(())
    })
}

fn unharmed(cluster: &Cluster, node: &Namespace, configuration: &str) -> Result<()> {
    let now = node.ipvsadm()?.configuration();
    ensure!(now == configuration, "the kernel's state changed from\n{configuration}to\n{now}");
    for to in [WEB_ADDRESS, "10.96.0.81:80"] {
        cluster.at("visitor")?.get(to)?;
    }
    Ok(())
}

/// Each broken manifest appears once as a new file, and once as the only change of a valid file. The last valid content
/// of that file stays in force.
#[test]
fn broken_manifests_are_logged_and_change_nothing() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let other = Service::new("other").cluster_ip("10.96.0.81").port(80);
        let other_slice = Slice::of("other").port(8080).ready("10.244.1.2");
        cluster.manifests.write("other", &format!("{other}---\n{other_slice}"))?;
        let good = cluster.manifests.read("web")? + "---\n" + &cluster.manifests.read("web-slice")?;
        cluster.manifests.write("web", &good)?;
        cluster.manifests.remove("web-slice")?;

        let mut proxy = cluster.start_proxy(NODE, &[])?;
        let node = cluster.at(NODE)?;
        await_web(cluster, NODE)?;
        node.await_service("TCP 10.96.0.81:80", &["10.244.1.2:8080 1"])?;
        let configuration = node.ipvsadm()?.configuration();
        for (number, (text, needles)) in broken().into_iter().enumerate() {
            let alone = format!("broken-{number}");
            for file in [alone.as_str(), "web"] {
                let from = proxy.log_text().len();
                cluster.manifests.write(file, &text)?;
                let name = format!("{file}.yaml");
                let needles: Vec<&str> = std::iter::once(name.as_str()).chain(needles.iter().copied()).collect();
                await_message(&mut proxy, from, &needles)
                    .and_then(|()| unharmed(cluster, node, &configuration))
                    .with_context(|| format!("case {number} as {name}:\n{text}"))?;
            }
            cluster.manifests.remove(&alone)?;
            cluster.manifests.write("web", &good)?;
        }
        // All files are valid again, and the daemon applies further changes.
        cluster.manifests.edit("web", "10.244.2.3", "10.244.2.4")?;
        node.await_serving(WEB, &["10.244.1.2:8080", "10.244.2.2:8080", "10.244.2.4:8080"])
    })
}

/// Two Services want the same address or node port. The older one gets it, and the log names both. When the older one
/// is deleted, the younger one gets it.
#[test]
fn older_service_wins_a_disputed_address_or_node_port() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let twin = |name: &str, created: &str, ip: &str, node_port: u16| {
            let service = Service::new(name).created(created).node_port_type().cluster_ip(ip);
            service.port_line(&format!("port: 80, targetPort: 8080, nodePort: {node_port}"))
        };
        let with_slice = |service: Service, name: &str, address: &str| {
            format!("{service}---\n{}", Slice::of(name).port(8080).ready(address))
        };
        let (old, young) = ("2023-05-01T00:00:00Z", "2024-05-01T00:00:00Z");
        // The younger one comes first in the folder and by name, so only its age decides.
        let clash = twin("a-young-ip", young, "10.96.0.90", 30090);
        cluster.manifests.write("a-young-ip", &with_slice(clash, "a-young-ip", "10.244.2.2"))?;
        let clash = twin("b-young-port", young, "10.96.0.92", 30091);
        cluster.manifests.write("b-young-port", &with_slice(clash, "b-young-port", "10.244.2.3"))?;
        let mut proxy = cluster.start_proxy(NODE, &[])?;
        let node = cluster.at(NODE)?;
        node.await_service("TCP 10.96.0.90:80", &["10.244.2.2:8080 1"])?;
        node.await_service("TCP 192.168.128.3:30091", &["10.244.2.3:8080 1"])?;

        let from = proxy.log_text().len();
        let older = twin("old-ip", old, "10.96.0.90", 30093);
        cluster.manifests.write("old-ip", &with_slice(older, "old-ip", "10.244.1.2"))?;
        node.await_serving("TCP 10.96.0.90:80", &["10.244.1.2:8080"])?;
        await_message(&mut proxy, from, &["default/a-young-ip", "default/old-ip", "10.96.0.90"])?;
        let from = proxy.log_text().len();
        let older = twin("old-port", old, "10.96.0.94", 30091);
        cluster.manifests.write("old-port", &with_slice(older, "old-port", "10.244.1.2"))?;
        node.await_serving("TCP 192.168.128.3:30091", &["10.244.1.2:8080"])?;
        await_message(&mut proxy, from, &["default/b-young-port", "default/old-port", "30091"])?;

        // Undisputed addresses work for all four, and `web` is not affected.
        node.await_serving("TCP 192.168.128.3:30090", &["10.244.2.2:8080"])?;
        node.await_serving("TCP 10.96.0.92:80", &["10.244.2.3:8080"])?;
        await_web(cluster, NODE)?;
        let (visitor, client) = (cluster.at("visitor")?, cluster.at("client")?);
        // The disputed addresses do not flap.
        throughout(Duration::from_millis(500), || {
            assert_eq!(visitor.get("10.96.0.90:80")?.name, "web-1");
            assert_eq!(client.get("192.168.128.3:30091")?.name, "web-1");
            assert_eq!(client.get("192.168.128.3:30090")?.name, "web-2");
            assert_eq!(visitor.get("10.96.0.92:80")?.name, "web-3");
            visitor.get(WEB_ADDRESS)?;
            Ok(())
        })?;
        cluster.manifests.remove("old-ip")?;
        cluster.manifests.remove("old-port")?;
        node.await_serving("TCP 10.96.0.90:80", &["10.244.2.2:8080"])?;
        node.await_serving("TCP 192.168.128.3:30091", &["10.244.2.3:8080"])?;
        assert_eq!(visitor.get("10.96.0.90:80")?.name, "web-2");
        assert_eq!(client.get("192.168.128.3:30091")?.name, "web-3");
        Ok(())
    })
}
