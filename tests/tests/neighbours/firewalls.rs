//! firewalld and ufw on the nodes of the clients' packets and of the endpoint.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use scenarios::{
    Attempt, Cluster, ClusterBuilder, Conversation, Load, Monitor, Program, Server, Service, Slice, TestResult,
    Transport, eventually, scenario, socket_address,
};

use crate::debian::Debian;

const NODE: &str = "node-3";
const NODE_OF_ENDPOINT: &str = "node-1";
/// kube-ipvs finds drift by the kernel's notices only.
const FLAGS: [&str; 4] = ["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48", "--ipvs-sync-period", "1h"];
/// Pods and nodes.
const SOURCES: [&str; 4] = ["10.244.0.0/16", "fd00:10:244::/48", "192.168.128.0/29", "fd00:128::/125"];
const PORTS: [&str; 2] = ["30000-32767/tcp", "80-81/tcp"];
/// Clients and their destinations: a ClusterIP of each family, a node port, and a load-balancer IP of a Service
/// whose endpoint is on the client's node.
const CLIENTS: [(&str, [&str; 2]); 6] = [
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

/// The first packet of these clients is rejected, or `dropped` counts it.
fn ensure_denied(cluster: &Cluster, clients: &[(&str, [&str; 2])], dropped: impl Fn() -> Result<u64>) -> Result<()> {
    for (from, [to, _]) in clients {
        let before = dropped()?;
        let mut attempt = Attempt::start(cluster.at(from)?, Transport::Tcp, socket_address(to)?)?;
        eventually(|| match attempt.outcome()? {
            Some(Ok(())) => Ok(Some("connects")),
            Some(Err(_)) => Ok(None),
            None => {
                ensure!(dropped()? > before, "{from} to {to}: no outcome");
                Ok(None)
            }
        })?
        .map_or(Ok(()), |connects| Err(anyhow::anyhow!("{from} {connects} to {to}")))?;
    }
    Ok(())
}

/// Each client connects again and again, and holds a connection open.
struct Users(Vec<(String, Load, Conversation)>);

impl Users {
    fn start(cluster: &Cluster) -> Result<Self> {
        let start = |(from, [to, held]): (&str, [&str; 2])| {
            let client = cluster.at(from)?;
            let load = Load::start(client, to, Duration::from_millis(10))?;
            Ok((format!("{from} to {to}"), load, client.connect_from_own_port(Transport::Tcp, held)?))
        };
        Ok(Self(CLIENTS.into_iter().map(start).collect::<Result<_>>()?))
    }

    fn go_on(&mut self, after: &str) -> Result<()> {
        for (name, load, held) in &mut self.0 {
            load.go_on(1).and_then(|()| Ok(held.say()?)).with_context(|| format!("{name}, after {after}"))?;
        }
        Ok(())
    }

    fn stop(self) -> Result<()> {
        self.0.into_iter().try_for_each(|(name, load, _)| load.stop(4, &name).map(drop))
    }
}

/// The firewall has changed no table of kube-ipvs.
fn ensure_untouched(monitor: &Monitor) -> Result<()> {
    let touched: Vec<_> = monitor.notices()?.into_iter().filter(|line| line.contains("kube-ipvs")).collect();
    ensure!(touched.is_empty(), "{}", touched.join("\n"));
    Ok(())
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
        let _servers = deploy(cluster)?;
        let _proxy = cluster.start_proxy(NODE, &FLAGS)?;
        cluster.await_settled(NODE, &FLAGS)?;
        ensure_answers(cluster).context("before firewalld")?;
        let monitor = Monitor::start(cluster.at(NODE)?, cluster.directory())?;
        let nodes = [Debian::on(cluster, NODE)?, Debian::on(cluster, NODE_OF_ENDPOINT)?];
        let mut daemons = nodes.iter().map(start_firewalld).collect::<Result<Vec<_>>>()?;
        let rejected = || Ok(0);
        ensure_denied(cluster, &CLIENTS, rejected)?;

        let sources = SOURCES.map(|source| format!("--add-source={source}"));
        let trusted = format!("firewall-cmd --permanent --zone=trusted {}", sources.join(" "));
        let ports = format!("firewall-cmd --permanent {}", PORTS.map(|port| format!("--add-port={port}")).join(" "));
        let commands = [trusted.as_str(), &ports, "firewall-cmd --reload"];
        nodes[1].run_all(commands)?;
        let [visitor, visitor_6, of_node, outside @ ..] = CLIENTS;
        cluster.at(of_node.0)?.get(of_node.1[0])?;
        ensure_denied(cluster, &[&[visitor, visitor_6], &outside[..]].concat(), rejected)?;
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
        users.stop()?;
        ensure_untouched(&monitor)?;
        cluster.await_settled(NODE, &FLAGS)
    })
}

/// The packets that the policies of ufw have dropped on both nodes: `INPUT` of both families, and `FORWARD` of IPv4.
fn dropped_by_policies(cluster: &Cluster) -> Result<u64> {
    let mut sum = 0;
    for node in [NODE, NODE_OF_ENDPOINT] {
        for (program, chain) in [("iptables-nft", "INPUT"), ("iptables-nft", "FORWARD"), ("ip6tables-nft", "INPUT")] {
            let listing = cluster.at(node)?.run(program, &["-nvxL", chain])?;
            let counted = listing.split_once("policy DROP ").and_then(|(_, rest)| rest.split_once(" packets"));
            sum += counted.with_context(|| format!("{chain} of {node} drops nothing: {listing}"))?.0.parse::<u64>()?;
        }
    }
    Ok(sum)
}

/// The defaults deny incoming and routed packets. With rules for pods, nodes and ports, all of them work, and
/// connections survive a reload and a restart of ufw.
#[test]
fn ufw_with_pods_nodes_and_ports_is_reloaded_and_restarted_under_load() -> TestResult {
    scenario(builder(), |cluster| {
        let _servers = deploy(cluster)?;
        let _proxy = cluster.start_proxy(NODE, &FLAGS)?;
        cluster.await_settled(NODE, &FLAGS)?;
        let monitor = Monitor::start(cluster.at(NODE)?, cluster.directory())?;
        let nodes = [Debian::on(cluster, NODE)?, Debian::on(cluster, NODE_OF_ENDPOINT)?];
        let defaults = ["ufw default deny incoming", "ufw default deny routed", "ufw --force enable"];
        nodes.iter().try_for_each(|node| node.run_all(defaults))?;
        let dropped = || dropped_by_policies(cluster);
        ensure_denied(cluster, &CLIENTS, dropped)?;

        let allow = |prefix: &'static str| SOURCES.map(|source| format!("ufw {prefix} from {source}"));
        let ports = PORTS.map(|port| format!("ufw allow {}", port.replace('-', ":")));
        let commands = [&allow("allow")[..], &allow("route allow"), &ports].concat();
        nodes[1].run_all(commands.iter().map(String::as_str))?;
        let [visitor, visitor_6, of_node, outside @ ..] = CLIENTS;
        cluster.at(of_node.0)?.get(of_node.1[0])?;
        ensure_denied(cluster, &[&[visitor, visitor_6], &outside[..]].concat(), dropped)?;
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
        users.stop()?;
        ensure_untouched(&monitor)?;
        cluster.await_settled(NODE, &FLAGS)
    })
}
