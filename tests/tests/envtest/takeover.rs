//! The real kube-proxy in ipvs mode hands over to kube-ipvs, and back.

use std::time::Duration;

use anyhow::{Result, ensure};
use scenarios::{
    Cluster, Conversation, Load, Namespace, Server, Service, Slice, TestResult, Transport, eventually, scenario,
};

/// The node under test: all tested traffic passes through it.
const NODE: &str = "node-3";
const FLAGS: [&str; 4] =
    ["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48", "--nodeport-addresses", "192.168.128.0/24,fd00:128::/64"];
const PODS: [(&str, &str, [&str; 2]); 2] =
    [("web-1", "node-1", ["10.244.1.2", "fd00:10:244:1::2"]), ("web-2", "node-2", ["10.244.2.2", "fd00:10:244:2::2"])];
const SERVED: [&str; 10] = [
    "TCP 10.96.0.80:80",
    "TCP 10.96.0.81:7",
    "TCP 192.168.128.3:30080",
    "TCP 192.168.128.3:30081",
    "TCP 203.0.113.80:80",
    "TCP [fd00:10:96::80]:80",
    "TCP [fd00:10:96::81]:7",
    "TCP [fd00:128::3]:30080",
    "TCP [fd00:128::3]:30081",
    "UDP 10.96.0.53:53",
];

/// `web` over HTTP with all kinds of addresses, `talk` for long connections, `dns` over UDP.
fn deploy(cluster: &Cluster) -> Result<Vec<Server>> {
    let web = Service::new("web")
        .line("type: LoadBalancer")
        .cluster_ip("10.96.0.80")
        .cluster_ip("fd00:10:96::80")
        .line("externalIPs: [203.0.113.80]")
        .port_line("port: 80, targetPort: 8080, nodePort: 30080");
    let talk = Service::new("talk")
        .node_port_type()
        .cluster_ip("10.96.0.81")
        .cluster_ip("fd00:10:96::81")
        .port_line("port: 7, targetPort: 9090, nodePort: 30081");
    let dns = Service::new("dns").cluster_ip("10.96.0.53").port_line("protocol: UDP, port: 53, targetPort: 8053");
    let ready = |slice: Slice, family: usize| {
        let pods = PODS.iter();
        pods.fold(slice, |slice, (_, node, addresses)| slice.ready(addresses[family]).on(node)).to_string()
    };
    let slice = |name: &str| Slice::of(name).name(&format!("{name}-v4"));
    let slice_v6 = |name: &str| Slice::of(name).name(&format!("{name}-v6"));
    let manifests = [
        web.to_string(),
        ready(slice("web").port(8080), 0),
        ready(slice_v6("web").port(8080), 1),
        talk.to_string(),
        ready(slice("talk").port(9090), 0),
        ready(slice_v6("talk").port(9090), 1),
        dns.to_string(),
        ready(slice("dns").named_port("", "UDP", 8053), 0),
    ];
    cluster.manifests.write("all", &manifests.join("---\n"))?;
    let mut servers = Vec::new();
    for (pod, ..) in PODS {
        servers.push(cluster.http(pod, 8080)?);
        servers.push(cluster.echo(pod, Transport::Tcp, 9090)?);
        servers.push(cluster.echo(pod, Transport::Udp, 8053)?);
    }
    Ok(servers)
}

fn await_served(node: &Namespace) -> TestResult {
    eventually(|| {
        let table = node.ipvsadm()?;
        ensure!(table.keys() == SERVED, "{:?}", table.keys());
        for key in SERVED {
            let reals = table.weights(key).unwrap_or_default();
            ensure!(reals.len() == 2 && reals.iter().all(|real| real.ends_with(" 1")), "{key}: {reals:?}");
        }
        Ok(())
    })
}

/// Clients and the addresses that they use.
const TALKS: [(&str, &str); 6] = [
    ("visitor", "10.96.0.81:7"),
    (NODE, "10.96.0.81:7"),
    ("client", "192.168.128.3:30081"),
    ("visitor", "[fd00:10:96::81]:7"),
    (NODE, "[fd00:10:96::81]:7"),
    ("client", "[fd00:128::3]:30081"),
];
const LOADS: [(&str, &str); 5] = [
    ("visitor", "10.96.0.80:80"),
    (NODE, "10.96.0.80:80"),
    ("client", "192.168.128.3:30080"),
    ("visitor", "[fd00:10:96::80]:80"),
    ("client", "[fd00:128::3]:30080"),
];

fn talk(cluster: &Cluster) -> Result<Vec<(Conversation, String)>> {
    let connect = |(from, to): &(&str, &str)| {
        let mut connection = cluster.at(from)?.connect(Transport::Tcp, to)?;
        let name = connection.say()?.name;
        Ok((connection, name))
    };
    TALKS.iter().map(connect).collect()
}

fn still_talk(held: &mut [(Conversation, String)]) -> TestResult {
    for ((connection, name), (from, to)) in held.iter_mut().zip(TALKS) {
        let answer = connection.say();
        ensure!(
            answer.as_ref().is_ok_and(|answer| answer.name == *name),
            "{from} to {to}, which {name} answered: {answer:?}"
        );
    }
    Ok(())
}

/// The rules in iptables and sets in ipset that kube-proxy left. No kubelet runs here, so its chains are missing.
fn leftovers(node: &Namespace) -> Result<String> {
    let script = "iptables-save | grep KUBE- || true; ip6tables-save | grep KUBE- || true; ipset list -name";
    node.run("sh", &["-c", script])
}

/// kube-proxy writes these rules last in its first sync of each family.
fn ensure_rules_are_written(node: &Namespace) -> TestResult {
    let rules = leftovers(node)?;
    for set in ["KUBE-CLUSTER-IP", "KUBE-6-CLUSTER-IP"] {
        ensure!(rules.contains(&format!("--match-set {set}")), "no rule for {set}:\n{rules}");
    }
    Ok(())
}

/// No request fails and no connection ends in either family.
#[test]
fn takeover_from_kube_proxy_and_back_drops_no_connection() -> TestResult {
    let builder = Cluster::builder().pod("visitor", NODE, "10.244.3.9 fd00:10:244:3::9");
    let builder =
        PODS.iter().fold(builder, |builder, (name, node, addresses)| builder.pod(name, node, &addresses.join(" ")));
    scenario(builder, |cluster| {
        let api = cluster.control_plane()?;
        let _servers = deploy(cluster)?;
        let node = cluster.at(NODE)?;
        cluster.at("client")?.ip("route add 203.0.113.0/24 via 192.168.128.3")?;
        let kube_proxy = api.kube_proxy(node, NODE, &FLAGS)?;
        await_served(node)?;
        eventually(|| ensure_rules_are_written(node))?;
        let mut held = talk(cluster)?;
        let loads = LOADS.map(|(from, to)| Load::start(cluster.at(from)?, to, Duration::from_millis(30)));
        let loads = loads.into_iter().collect::<Result<Vec<_>>>()?;

        drop(kube_proxy);
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        eventually(|| {
            let log = proxy.log_text();
            ensure!(log.contains("took over from kube-proxy"), "{log}");
            ensure!(!log.contains("ERROR"), "{log}");
            Ok(())
        })?;
        await_served(node)?;
        cluster.await_settled(NODE, &FLAGS)?;
        let left = leftovers(node)?;
        ensure!(left.is_empty(), "left of kube-proxy:\n{left}");
        still_talk(&mut held)?;
        for to in ["203.0.113.80:80", "192.168.128.3:30080"] {
            cluster.at("client")?.get(to)?;
        }
        cluster.at("visitor")?.echo(Transport::Udp, "10.96.0.53:53")?;

        // And back, as docs/migrating-from-kube-proxy.md describes it.
        ensure!(proxy.terminate()?.success());
        let _kube_proxy = api.kube_proxy(node, NODE, &FLAGS)?;
        // Refused until kube-proxy has written its rules.
        eventually(|| cluster.kube_ipvs(NODE)?.run(&["cleanup", "--handover"]))?;
        ensure_rules_are_written(node)?;
        let tables = node.run("nft", &["list", "tables"])?;
        ensure!(!tables.contains("kube-ipvs"), "{tables}");
        await_served(node)?;
        still_talk(&mut held)?;
        loads
            .into_iter()
            .zip(LOADS)
            .try_for_each(|(load, (from, to))| load.stop(100, &format!("{from} to {to}")).map(drop))?;
        Ok(())
    })
}
