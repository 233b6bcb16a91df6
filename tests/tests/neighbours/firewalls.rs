//! firewalld and ufw on the nodes of the clients' packets and of the endpoint.

use anyhow::{Context, Result, ensure};
use scenarios::{
    Cluster, ClusterBuilder, Failure, Monitor, Namespace, Program, Proxy, Server, Service, Slice, TestResult,
    Transport, eventually, scenario,
};

use crate::debian::Debian;
use crate::users::{Users, ensure_denied};

const NODE: &str = "node-3";
const NODE_OF_ENDPOINT: &str = "node-1";
pub(crate) const NODES: [&str; 2] = [NODE, NODE_OF_ENDPOINT];
/// kube-ipvs finds drift by the kernel's notices only.
const FLAGS: [&str; 4] = ["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48", "--ipvs-sync-period", "1h"];
/// Pods and nodes.
const SOURCES: [&str; 4] = ["10.244.0.0/16", "fd00:10:244::/48", "192.168.128.0/29", "fd00:128::/125"];
const PORTS: [&str; 2] = ["30000-32767/tcp", "80-81/tcp"];
/// Clients and their destinations: a ClusterIP of each family, a node port, and a load-balancer IP of a Service
/// whose endpoint is on the client's node.
pub(crate) const CLIENTS: [(&str, [&str; 2]); 6] = [
    ("visitor", ["10.96.0.80:80", "10.96.0.80:81"]),
    ("visitor", ["[fd00:10:96::80]:80", "[fd00:10:96::80]:81"]),
    (NODE, ["10.96.0.80:80", "10.96.0.80:81"]),
    ("client", ["192.168.128.3:30080", "192.168.128.3:30081"]),
    ("client", ["203.0.113.80:80", "203.0.113.80:81"]),
    ("client", ["203.0.113.81:80", "203.0.113.81:81"]),
];

fn builder() -> ClusterBuilder {
    Cluster::builder().pod("web", NODE_OF_ENDPOINT, "10.244.1.2 fd00:10:244:1::2").pod("local", NODE, "10.244.3.2").pod(
        "visitor",
        NODE,
        "10.244.3.9 fd00:10:244:3::9",
    )
}

fn deploy(cluster: &Cluster) -> Result<Vec<Server>> {
    let ports = |service: Service, first: u16| {
        let port =
            |name, port, target, node| format!("name: {name}, port: {port}, targetPort: {target}, nodePort: {node}");
        let service = service.line("type: LoadBalancer").port_line(&port("http", 80, 8080, first));
        service.port_line(&port("echo", 81, 8081, first + 1))
    };
    let slice = |name: &str| Slice::of(name).named_port("http", "TCP", 8080).named_port("echo", "TCP", 8081);
    let web = ports(Service::new("web").cluster_ip("10.96.0.80").cluster_ip("fd00:10:96::80"), 30080);
    let local = ports(Service::new("local").cluster_ip("10.96.0.81"), 30082).line("externalTrafficPolicy: Local");
    let objects = [
        web.load_balancer_ip("203.0.113.80").to_string(),
        slice("web").ready("10.244.1.2").on(NODE_OF_ENDPOINT).to_string(),
        slice("web").name("web-6").ready("fd00:10:244:1::2").on(NODE_OF_ENDPOINT).to_string(),
        local.load_balancer_ip("203.0.113.81").to_string(),
        slice("local").ready("10.244.3.2").on(NODE).to_string(),
    ];
    cluster.manifests.write("all", &objects.join("---\n"))?;
    cluster.at("client")?.ip("route add 203.0.113.0/24 via 192.168.128.3")?;
    let servers = ["web", "local"].map(|pod| [cluster.http(pod, 8080), cluster.echo(pod, Transport::Tcp, 8081)]);
    servers.into_iter().flatten().collect()
}

fn ensure_answers(cluster: &Cluster) -> Result<()> {
    CLIENTS.iter().try_for_each(|(from, [to, _])| cluster.at(from)?.get(to).map(drop))
}

/// As in a cluster, each node runs kube-ipvs. Its rules need conntrack, so conntrack knows all connections already when
/// a firewall starts to drop packets that conntrack calls invalid. A FIN is such a packet if it is the first of its
/// connection that conntrack sees.
fn start_proxies(cluster: &Cluster) -> Result<Vec<Proxy>> {
    let proxies = NODES.iter().map(|node| cluster.start_proxy(node, &FLAGS)).collect::<Result<_>>()?;
    await_settled(cluster)?;
    Ok(proxies)
}

fn await_settled(cluster: &Cluster) -> Result<()> {
    NODES.iter().try_for_each(|node| cluster.await_settled(node, &FLAGS))
}

fn monitors(cluster: &Cluster) -> Result<Vec<Monitor>> {
    NODES.iter().map(|node| Monitor::start(cluster.at(node)?, cluster.directory())).collect()
}

fn debians(cluster: &Cluster) -> Result<Vec<Debian>> {
    NODES.iter().map(|node| Debian::on(cluster, node)).collect()
}

/// The firewalls have changed no table of kube-ipvs.
fn ensure_untouched(monitors: &[Monitor]) -> Result<()> {
    for monitor in monitors {
        let touched: Vec<_> = monitor.notices()?.into_iter().filter(|line| line.contains("kube-ipvs")).collect();
        ensure!(touched.is_empty(), "{}", touched.join("\n"));
    }
    Ok(())
}

/// firewalld rejects by ICMP "administratively prohibited": `EHOSTUNREACH`, and in IPv6 `EACCES`. A reset would come
/// from elsewhere.
fn is_prohibited(failure: &Failure) -> bool {
    let codes = ["(os error 113)", "(os error 13)"];
    matches!(failure, Failure::Other(text) if codes.iter().any(|code| text.ends_with(code)))
}

fn start_firewalld(debian: &Debian) -> Result<Program> {
    let daemon = debian.start("firewalld", &["--nofork", "--nopid"])?;
    eventually(|| debian.run("firewall-cmd", &["--state"]))?;
    Ok(daemon)
}

/// The zone `public` rejects pods, node ports and load-balancer IPs. With sources in the zone `trusted`, and with
/// ports, all of them work, and connections survive a reload and a restart of firewalld.
#[test]
fn firewalld_with_pods_nodes_and_ports_is_reloaded_and_restarted_under_load() -> TestResult {
    scenario(builder(), |cluster| {
        let servers = deploy(cluster)?;
        let _proxies = start_proxies(cluster)?;
        ensure_answers(cluster).context("before firewalld")?;
        let monitors = monitors(cluster)?;
        let nodes = debians(cluster)?;
        let mut daemons = nodes.iter().map(start_firewalld).collect::<Result<Vec<_>>>()?;
        let ensure_rejected = |clients: &[_]| ensure_denied(cluster, clients, is_prohibited, || Ok(0));
        ensure_rejected(&CLIENTS)?;

        let sources = SOURCES.map(|source| format!("--add-source={source}"));
        let trusted = format!("firewall-cmd --permanent --zone=trusted {}", sources.join(" "));
        let ports = format!("firewall-cmd --permanent {}", PORTS.map(|port| format!("--add-port={port}")).join(" "));
        let commands = [trusted.as_str(), &ports, "firewall-cmd --reload"];
        nodes[1].run_all(commands)?;
        let [visitor, visitor_6, of_node, outside @ ..] = CLIENTS;
        cluster.at(of_node.0)?.get(of_node.1[0])?;
        ensure_rejected(&[&[visitor, visitor_6], &outside[..]].concat())?;
        nodes[0].run_all(commands)?;
        ensure_answers(cluster).context("beside firewalld")?;

        let mut users = Users::start(cluster)?;
        for node in &nodes {
            node.run("firewall-cmd", &["--reload"])?;
        }
        users.go_on("a reload")?;
        for daemon in daemons.drain(..) {
            daemon.terminate()?;
        }
        users.go_on("the end of firewalld")?;
        let _daemons = nodes.iter().map(start_firewalld).collect::<Result<Vec<_>>>()?;
        users.go_on("a start of firewalld")?;
        users.stop(&servers)?;
        ensure_untouched(&monitors)?;
        await_settled(cluster)
    })
}

/// firewalld 1.3 flushes the rules of other programs if iptables is installed, as it is for ufw.
#[test]
fn firewalld_flushes_rules_of_iptables_at_its_start_a_reload_and_its_end() -> TestResult {
    scenario(builder(), |cluster| {
        let (node, debian) = (cluster.at(NODE)?, Debian::on(cluster, NODE)?);
        let run = |arguments: &[&str]| -> Result<String> {
            ["iptables-nft", "ip6tables-nft"].iter().map(|program| node.run(program, arguments)).collect()
        };
        let add = || run(&["-A", "INPUT", "-p", "tcp", "--dport", "9"]);
        let ensure_flushed = |by| -> Result<()> {
            let listing = run(&["-S", "INPUT"])?;
            ensure!(!listing.contains("--dport 9"), "not flushed by {by}: {listing}");
            Ok(())
        };
        add()?;
        let daemon = start_firewalld(&debian)?;
        ensure_flushed("a start")?;
        add()?;
        debian.run("firewall-cmd", &["--reload"])?;
        ensure_flushed("a reload")?;
        add()?;
        daemon.terminate()?;
        ensure_flushed("the end")
    })
}

/// The end of each chain whose policy of ufw drops packets.
const ENDS: [(&str, &str); 4] =
    [("iptables-nft", "INPUT"), ("iptables-nft", "FORWARD"), ("ip6tables-nft", "INPUT"), ("ip6tables-nft", "FORWARD")];

/// Counts the SYNs that no rule of ufw accepts or drops, before the policy drops them.
fn count_at_ends(node: &Namespace) -> Result<()> {
    ENDS.iter().try_for_each(|(program, chain)| {
        let listing = node.run(program, &["-S", chain])?;
        ensure!(listing.contains(&format!("-P {chain} DROP")), "{program}: {listing}");
        node.run(program, &["-A", chain, "-p", "tcp", "--syn"]).map(drop)
    })
}

fn counted_at_ends(cluster: &Cluster) -> Result<u64> {
    let mut sum = 0;
    for (node, (program, chain)) in NODES.into_iter().flat_map(|node| ENDS.map(|end| (node, end))) {
        let listing = cluster.at(node)?.run(program, &["-nvxL", chain])?;
        let counted = listing.lines().last().and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        sum += counted.with_context(|| format!("{chain} of {node} counts nothing: {listing}"))?;
    }
    Ok(sum)
}

/// The defaults deny incoming and routed packets. With rules for pods, nodes and ports, all of them work, and
/// connections survive a reload and a restart of ufw.
#[test]
fn ufw_with_pods_nodes_and_ports_is_reloaded_and_restarted_under_load() -> TestResult {
    scenario(builder(), |cluster| {
        let servers = deploy(cluster)?;
        let _proxies = start_proxies(cluster)?;
        let monitors = monitors(cluster)?;
        let nodes = debians(cluster)?;
        let defaults = ["ufw default deny incoming", "ufw default deny routed", "ufw --force enable"];
        nodes.iter().try_for_each(|node| node.run_all(defaults))?;
        NODES.iter().try_for_each(|node| count_at_ends(cluster.at(node)?))?;
        let ensure_dropped = |clients: &[_]| ensure_denied(cluster, clients, |_| false, || counted_at_ends(cluster));
        ensure_dropped(&CLIENTS)?;

        let allow = |prefix: &'static str| SOURCES.map(|source| format!("ufw {prefix} from {source}"));
        let ports = PORTS.map(|port| format!("ufw allow {}", port.replace('-', ":")));
        let commands = [&allow("allow")[..], &allow("route allow"), &ports].concat();
        nodes[1].run_all(commands.iter().map(String::as_str))?;
        let [visitor, visitor_6, of_node, outside @ ..] = CLIENTS;
        cluster.at(of_node.0)?.get(of_node.1[0])?;
        ensure_dropped(&[&[visitor, visitor_6], &outside[..]].concat())?;
        nodes[0].run_all(commands.iter().map(String::as_str))?;
        ensure_answers(cluster).context("beside ufw")?;

        let mut users = Users::start(cluster)?;
        for (command, name) in [
            ("ufw reload", "a reload"),
            ("/lib/ufw/ufw-init stop", "the end of ufw"),
            ("/lib/ufw/ufw-init start", "a start of ufw"),
        ] {
            nodes.iter().try_for_each(|node| node.run_all([command]))?;
            users.go_on(name)?;
        }
        users.stop(&servers)?;
        ensure_untouched(&monitors)?;
        await_settled(cluster)
    })
}
