//! A ServiceCIDR that holds more than ClusterIPs. kubeadm's 10.96.0.0/12 has a million addresses, which can include
//! pods, Nodes or office hosts.

use anyhow::{Result, ensure};
use scenarios::{Cluster, Namespace, Service, Slice, TestResult, Transport, eventually, scenario};

const FLAGS: [&str; 2] = ["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"];
const RANGES: &str = "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: kubernetes}\n\
                      spec: {cidrs: [10.96.0.0/12, \"fd00:10:96::/48\"]}\n";
/// Outside hosts: one behind a specific route, one behind the default route only, and one that is an endpoint.
const HOSTS: [&str; 3] = ["10.105.0.10", "10.106.0.10", "10.107.0.10"];

/// `web` with a pod within the range, and `far` with an outside host.
fn services() -> String {
    let service = |name: &str, ip: &str, node_port: u16| {
        let service = Service::new(name).node_port_type().cluster_ip(ip);
        service.port_line(&format!("port: 80, targetPort: 8080, nodePort: {node_port}"))
    };
    let web = service("web", "10.96.0.80", 30_080).cluster_ip("fd00:10:96:f::80");
    let far = service("far", "10.96.0.81", 30_081);
    let slices = [
        Slice::of("web").port(8080).ready("10.100.1.2").on("node-1"),
        Slice::of("web").name("web-v6").port(8080).ready("fd00:10:96:1::2").on("node-1"),
        Slice::of("far").port(8080).ready(HOSTS[2]),
    ];
    let slices: Vec<String> = slices.iter().map(Slice::to_string).collect();
    format!("{web}---\n{far}---\n{}---\n{RANGES}", slices.join("---\n"))
}

fn await_ready(cluster: &Cluster, node: &str, flags: &[&str]) -> Result<()> {
    cluster.at(node)?.await_vips(&["10.96.0.80", "10.96.0.81", "fd00:10:96:f::80"])?;
    cluster.await_settled(node, flags)
}

fn answers(from: &Namespace, to: &str, name: &str) -> Result<()> {
    let answer = from.echo(Transport::Tcp, to)?;
    ensure!(answer.name == name, "{to} from {}: {answer:?}", from.name());
    Ok(())
}

#[test]
fn pods_and_hosts_within_the_service_range_are_reached() -> TestResult {
    let builder = Cluster::builder().pod("web", "node-1", "10.100.1.2 fd00:10:96:1::2").pod(
        "visitor",
        "node-3",
        "10.244.3.9 fd00:10:244:3::9",
    );
    scenario(builder, |cluster| {
        let client = cluster.at("client")?;
        for host in HOSTS {
            client.ip(&format!("addr add {host}/32 dev lo"))?;
        }
        client.ip("route add 10.97.0.0/16 via 192.168.128.3")?;
        let _servers = [
            cluster.echo("web", Transport::Tcp, 8080)?,
            cluster.echo_at("client", Transport::Udp, "10.105.0.10:53")?,
            cluster.echo("client", Transport::Tcp, 8080)?,
        ];
        for node in ["node-2", "node-3"] {
            let routes = "route add 10.105.0.0/16 dev eth0\nroute replace default via 192.168.128.100";
            cluster.at(node)?.ip(routes)?;
        }
        cluster.manifests.write("all", &services())?;
        let proxies = cluster.start_proxies(&FLAGS)?;
        for node in ["node-2", "node-3"] {
            await_ready(cluster, node, &FLAGS)?;
            // One client gets more ICMP errors per second than a kernel sends to one peer by default.
            cluster.at(node)?.sysctls(&[("ipv4.icmp_ratemask", "0")])?;
        }
        for from in ["node-2", "node-3", "visitor"] {
            let from = cluster.at(from)?;
            answers(from, "10.100.1.2:8080", "web")?;
            answers(from, "[fd00:10:96:1::2]:8080", "web")?;
            answers(from, "10.96.0.80:80", "web")?;
            answers(from, "[fd00:10:96:f::80]:80", "web")?;
            answers(from, "10.105.0.10:8080", "client")?;
            from.echo(Transport::Udp, "10.105.0.10:53")?;
            answers(from, "10.96.0.81:80", "client")?;
            answers(from, "192.168.128.3:30081", "client")?;
        }
        answers(client, "192.168.128.3:30080", "web")?;
        for from in ["node-3", "visitor", "client"] {
            for transport in [Transport::Tcp, Transport::Udp, Transport::Sctp] {
                cluster.at(from)?.expect_refused(transport, "10.97.0.1:80")?;
            }
        }
        // kube-ipvs cannot tell this host from an unallocated ClusterIP. Only the operator can.
        let node = cluster.at("node-3")?;
        node.expect_refused(Transport::Tcp, "10.106.0.10:8080")?;
        drop(proxies);
        let flags = [&FLAGS[..], &["--reject-unallocated-cluster-ips=false"]].concat();
        let _proxy = cluster.start_proxy("node-3", &flags)?;
        for from in ["node-3", "visitor"] {
            eventually(|| answers(cluster.at(from)?, "10.106.0.10:8080", "client"))?;
        }
        Ok(())
    })
}

/// The default route changes to another gateway, and then is deleted.
#[test]
fn refusal_of_unallocated_addresses_follows_the_default_route() -> TestResult {
    scenario(Cluster::builder(), |cluster| {
        let client = cluster.at("client")?;
        client.ip("addr add 10.106.0.10/32 dev lo")?;
        let _server = cluster.echo("client", Transport::Tcp, 8080)?;
        cluster
            .manifests
            .write("all", &format!("{}---\n{RANGES}", Service::new("web").cluster_ip("10.96.0.80").port(80)))?;
        let flags = [&FLAGS[..], &["--ipvs-sync-period", "1h"]].concat();
        let _proxy = cluster.start_proxy("node-3", &flags)?;
        let node = cluster.at("node-3")?;
        node.await_vips(&["10.96.0.80"])?;
        cluster.await_settled("node-3", &flags)?;
        let await_gateways = |wanted: &[&str]| {
            eventually(|| {
                let sets = node.nft_sets()?;
                ensure!(sets["ip default-gateways"] == wanted, "{:?}", sets["ip default-gateways"]);
                Ok(())
            })
        };
        await_gateways(&["192.168.128.254"])?;
        node.ip("route replace default via 192.168.128.100")?;
        await_gateways(&["192.168.128.100"])?;
        node.expect_refused(Transport::Tcp, "10.106.0.10:8080")?;
        node.ip("route del default\nroute add 10.96.0.0/12 via 192.168.128.100")?;
        await_gateways(&[])?;
        answers(node, "10.106.0.10:8080", "client")
    })
}
