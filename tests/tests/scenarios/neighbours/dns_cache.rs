//! `NodeLocal DNSCache`. The cache itself is dnsmasq. The device and the rules are those that node-cache makes.

use anyhow::{Context, Result, ensure};
use scenarios::{
    Cluster, Namespace, Program, Service, Slice, TestResult, Transport, dig, dns_server, dns_server_at, eventually,
    scenario,
};

const NODE: &str = "node-3";
const FLAGS: [&str; 2] = ["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"];
const DEVICE: &str = "nodelocaldns";
/// The address of the cache alone, in each family, and the ClusterIP of the Service for DNS.
const OWN: [&str; 2] = ["169.254.25.10", "fd00:25::10"];
const CLUSTER_IPS: [&str; 2] = ["10.96.0.10", "fd00:10:96::10"];

fn services() -> String {
    let dns = CLUSTER_IPS.iter().fold(Service::new("kube-dns"), |dns, address| dns.cluster_ip(address));
    let dns = dns
        .port_line("name: dns, protocol: UDP, port: 53, targetPort: 53")
        .port_line("name: dns-tcp, protocol: TCP, port: 53, targetPort: 53")
        .port_line("name: metrics, protocol: TCP, port: 9153, targetPort: 9153");
    let slice = |name: &str, address: &str| {
        let slice = Slice::of("kube-dns").name(name).named_port("dns", "UDP", 53).named_port("dns-tcp", "TCP", 53);
        slice.named_port("metrics", "TCP", 9153).ready(address).on("node-1")
    };
    format!("{dns}---\n{}---\n{}", slice("dns-v4", "10.244.1.2"), slice("dns-v6", "fd00:10:244:1::2"))
}

/// Adds (`-I`) or deletes (`-D`) the rules of node-cache for an address.
fn rules(node: &Namespace, action: &str, address: &str) -> Result<()> {
    let iptables = if address.contains(':') { "ip6tables-nft" } else { "iptables-nft" };
    let mut lines = Vec::new();
    for protocol in ["tcp", "udp"] {
        let question = format!("-p {protocol} -d {address} --dport 53");
        let answer = format!("-p {protocol} -s {address} --sport 53");
        for (table, chain, packets, target) in [
            ("raw", "PREROUTING", &question, "NOTRACK"),
            ("filter", "INPUT", &question, "ACCEPT"),
            ("raw", "OUTPUT", &answer, "NOTRACK"),
            ("filter", "OUTPUT", &answer, "ACCEPT"),
            ("raw", "OUTPUT", &question, "NOTRACK"),
        ] {
            lines.push(format!("{iptables} -t {table} {action} {chain} {packets} -j {target}"));
        }
    }
    node.run("sh", &["-ec", &lines.join("\n")]).map(drop)
}

/// node-cache makes the device first. It adds its rules when its DNS server runs.
fn start_cache(cluster: &Cluster, addresses: &[&str]) -> Result<Program> {
    let node = cluster.at(NODE)?;
    node.ip(&format!("link add {DEVICE} type dummy"))?;
    for address in addresses {
        let (length, option) = if address.contains(':') { (128, "nodad") } else { (32, "") };
        node.ip(&format!("addr add {address}/{length} dev {DEVICE} {option}"))?;
    }
    node.ip(&format!("link set {DEVICE} up"))?;
    let cache = dns_server_at(node, "cache", cluster.directory(), &[], addresses)?;
    addresses.iter().try_for_each(|address| rules(node, "-I", address))?;
    Ok(cache)
}

/// When it ends, node-cache removes the device first, and then its rules.
fn stop_cache(cluster: &Cluster, cache: Program, addresses: &[&str]) -> Result<()> {
    let node = cluster.at(NODE)?;
    drop(cache);
    node.ip(&format!("link delete {DEVICE}"))?;
    addresses.iter().try_for_each(|address| rules(node, "-D", address))
}

/// Fails unless a pod and a process of the node get their answers from `server`, over UDP and TCP.
fn ensure_answers(cluster: &Cluster, addresses: &[&str], server: &str) -> Result<()> {
    for from in ["visitor", NODE] {
        for address in addresses {
            for protocol in ["+notcp", "+tcp"] {
                let answer = dig(cluster.at(from)?, address, &[protocol, "whoami.cluster.local", "TXT"]);
                let answer = answer.with_context(|| format!("{from} asks {address} ({protocol})"))?;
                ensure!(answer == format!("\"{server}\""), "{from} asks {address} ({protocol}): {answer}");
            }
        }
    }
    Ok(())
}

fn ensure_bound(node: &Namespace, are_bound: bool) -> Result<()> {
    let vips: &[&str] = if are_bound { &CLUSTER_IPS } else { &[] };
    node.await_vips(vips)
}

/// The cache on its own address answers there, and the Service answers at its ClusterIP. If the cache has the ClusterIP
/// too, it answers there as well, in any order of start. The other ports of that ClusterIP stay with the Service.
#[test]
fn dns_cache_answers_on_its_own_address_and_on_the_cluster_ip() -> TestResult {
    let builder = Cluster::builder().pod("dns", "node-1", "10.244.1.2 fd00:10:244:1::2").pod(
        "visitor",
        NODE,
        "10.244.3.9 fd00:10:244:3::9",
    );
    scenario(builder, |cluster| {
        let _dns = dns_server(cluster.at("dns")?, "dns", cluster.directory(), &[])?;
        let _metrics = cluster.echo("dns", Transport::Tcp, 9153)?;
        cluster.manifests.write("kube-dns", &services())?;
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        let node = cluster.at(NODE)?;
        ensure_bound(node, true)?;
        cluster.await_settled(NODE, &FLAGS)?;

        let cache = start_cache(cluster, &OWN)?;
        ensure_answers(cluster, &OWN, "cache")?;
        ensure_answers(cluster, &CLUSTER_IPS, "dns")?;
        stop_cache(cluster, cache, &OWN)?;

        let both = [OWN, CLUSTER_IPS].concat();
        let cache = start_cache(cluster, &both)?;
        ensure_bound(node, false)?;
        cluster.await_settled(NODE, &FLAGS)?;
        ensure_answers(cluster, &both, "cache")?;
        for address in ["10.96.0.10:9153", "[fd00:10:96::10]:9153"] {
            for from in ["visitor", NODE] {
                let name = cluster.at(from)?.echo(Transport::Tcp, address)?.name;
                ensure!(name == "dns", "{from} reaches {name} at {address}");
            }
        }

        proxy.terminate()?;
        ensure_answers(cluster, &CLUSTER_IPS, "cache")?;
        let _proxy = cluster.start_proxy(NODE, &FLAGS)?;
        cluster.await_settled(NODE, &FLAGS)?;
        ensure_answers(cluster, &CLUSTER_IPS, "cache")?;

        stop_cache(cluster, cache, &both)?;
        ensure_bound(node, true)?;
        eventually(|| ensure_answers(cluster, &CLUSTER_IPS, "dns"))
    })
}

/// Rules that exempt a VIP on kube-ipvs0 from conntrack. conntrack calls the endpoint's SYN+ACK invalid, because it has
/// seen no SYN. kube-ipvs drops such packets unless conntrack is to be liberal. UDP has no such state.
#[test]
fn untracked_tcp_to_a_vip_is_answered_only_if_conntrack_is_liberal() -> TestResult {
    const INVALID: &str = "drop packets that conntrack calls invalid";
    let builder = Cluster::builder().pod("dns", "node-1", "10.244.1.2").pod("visitor", NODE, "10.244.3.9");
    scenario(builder, |cluster| {
        let _dns = dns_server(cluster.at("dns")?, "dns", cluster.directory(), &[])?;
        cluster.manifests.write("kube-dns", &services())?;
        let (node, visitor) = (cluster.at(NODE)?, cluster.at("visitor")?);
        rules(node, "-I", CLUSTER_IPS[0])?;
        let ask = |protocol: &str| dig(visitor, CLUSTER_IPS[0], &[protocol, "whoami.cluster.local", "TXT"]);

        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        cluster.await_settled(NODE, &FLAGS)?;
        ensure!(ask("+notcp")? == "\"dns\"", "no answer over UDP");
        let dropped = node.nft_packets(INVALID)?;
        let output = visitor.output("curl", &["-sS", "--connect-timeout", "1", "http://10.96.0.10:53/"])?;
        ensure!(!output.status.success(), "untracked TCP is answered");
        eventually(|| {
            ensure!(node.nft_packets(INVALID)? > dropped, "no SYN+ACK was dropped");
            Ok(())
        })?;
        proxy.terminate()?;

        let flags = [&FLAGS[..], &["--conntrack-tcp-be-liberal"]].concat();
        let _proxy = cluster.start_proxy(NODE, &flags)?;
        cluster.await_settled(NODE, &flags)?;
        ensure!(ask("+tcp")? == "\"dns\"", "no answer over TCP");
        Ok(())
    })
}
