//! Traffic policies, as a table: for every kind of client, of VIP and of policy, who answers and which source it sees.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use scenarios::{Cluster, Failure, Namespace, Server, Service, Slice, TestResult, Transport, scenario};

/// The pods behind every Service, each on its node. `node-3` has none.
const PODS: [(&str, &str, &str); 2] =
    [("app-1", "node-1", "10.244.1.2 fd00:10:244:1::2"), ("app-2", "node-2", "10.244.2.2 fd00:10:244:2::2")];
const POLICIES: [(&str, &str); 4] =
    [("Cluster", "Cluster"), ("Cluster", "Local"), ("Local", "Cluster"), ("Local", "Local")];
const CLIENTS: [(&str, Who, &str); 6] = [
    ("client", Who::Outside, "node-1"),
    ("far-client", Who::Outside, "node-3"),
    ("near", Who::Pod, "node-1"),
    ("visitor", Who::Pod, "node-3"),
    ("node-1", Who::Node, "node-1"),
    ("node-3", Who::Node, "node-3"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Outside,
    Pod,
    Node,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    ClusterIp,
    ExternalIp,
    LoadBalancerIp,
    NodePort,
}

const KINDS: [Kind; 4] = [Kind::ClusterIp, Kind::ExternalIp, Kind::LoadBalancerIp, Kind::NodePort];

/// One line of the table.
#[derive(Debug, Clone, Copy)]
struct Case {
    client: &'static str,
    who: Who,
    /// The node that the packets reach first.
    entry: &'static str,
    kind: Kind,
    /// The number of the Service, and so of its policies.
    service: usize,
    v6: bool,
    transport: Transport,
}

/// Which address the endpoint is to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Client,
    Node,
}

impl Case {
    /// The address that the client asks.
    fn address(&self, cluster: &Cluster) -> Result<String> {
        let number = self.service + 1;
        let port = port(self.transport);
        Ok(match (self.kind, self.v6) {
            (Kind::ClusterIp, false) => format!("10.96.1.{number}:{port}"),
            (Kind::ClusterIp, true) => format!("[fd00:10:96::1:{number}]:{port}"),
            (Kind::ExternalIp, false) => format!("203.0.113.{number}:{port}"),
            (Kind::ExternalIp, true) => format!("[2001:db8:e::{number}]:{port}"),
            (Kind::LoadBalancerIp, false) => format!("198.51.100.{number}:{port}"),
            (Kind::LoadBalancerIp, true) => format!("[2001:db8:1b::{number}]:{port}"),
            (Kind::NodePort, false) => {
                format!("{}:{}", cluster.node(self.entry)?.ipv4(), 30_000 + number + usize::from(port))
            }
            (Kind::NodePort, true) => {
                format!("[{}]:{}", cluster.node(self.entry)?.ipv6(), 30_000 + number + usize::from(port))
            }
        })
    }

    /// Whether the client is a process of the node that its packets reach first.
    fn is_at_home(&self) -> bool {
        self.client == self.entry
    }

    /// Who may answer, and what he sees; nobody: the packets are dropped.
    fn expected(&self) -> (BTreeSet<&'static str>, Source) {
        let (internal, external) = POLICIES[self.service];
        // A process is known by its own node only; a pod by every node, as its address says where it is.
        let is_inside = self.who == Who::Pod || self.is_at_home();
        let policy = match self.kind {
            Kind::ClusterIp => internal,
            // Who is inside does not go out to come in again.
            _ if is_inside => "Cluster",
            _ => external,
        };
        let all = PODS.iter().filter(|(_, node, _)| policy == "Cluster" || *node == self.entry);
        let keeps = match (self.who, self.kind) {
            (Who::Pod, kind) => kind != Kind::NodePort,
            // A process takes the VIP for its source, or an address of its node.
            (Who::Node, _) if self.is_at_home() => false,
            (_, Kind::ClusterIp) => false,
            _ => external == "Local",
        };
        (all.map(|(name, ..)| *name).collect(), if keeps { Source::Client } else { Source::Node })
    }
}

fn port(transport: Transport) -> u16 {
    match transport {
        Transport::Tcp => 80,
        Transport::Udp => 90,
        Transport::Sctp => 100,
    }
}

const TRANSPORTS: [(Transport, &str); 2] = [(Transport::Tcp, "TCP"), (Transport::Udp, "UDP")];

/// A Service of each combination of policies, with all kinds of addresses in both families.
fn deploy(cluster: &Cluster) -> Result<Vec<Server>> {
    for (index, (internal, external)) in POLICIES.iter().enumerate() {
        let number = index + 1;
        let name = format!("app-{number}");
        let service = Service::new(&name)
            .cluster_ip(&format!("10.96.1.{number}"))
            .cluster_ip(&format!("fd00:10:96::1:{number}"))
            .line("type: LoadBalancer")
            .line(&format!("internalTrafficPolicy: {internal}"))
            .line(&format!("externalTrafficPolicy: {external}"))
            .line(&format!("externalIPs: [\"203.0.113.{number}\", \"2001:db8:e::{number}\"]"))
            .load_balancer_ip(&format!("198.51.100.{number}"))
            .load_balancer_ip(&format!("2001:db8:1b::{number}"));
        let service = TRANSPORTS.iter().fold(service, |service, (transport, protocol)| {
            let (port, name) = (port(*transport), protocol.to_lowercase());
            let node_port = 30_000 + number + usize::from(port);
            service.port_line(&format!(
                "name: {name}, protocol: {protocol}, port: {port}, targetPort: 80{port}, nodePort: {node_port}"
            ))
        });
        let slice = |suffix: &str, family: usize| {
            let slice = TRANSPORTS.iter().fold(
                Slice::of(&name).name(&format!("{name}-{suffix}")),
                |slice, (transport, protocol)| {
                    slice.named_port(&protocol.to_lowercase(), protocol, 8000 + port(*transport))
                },
            );
            PODS.iter().fold(slice, |slice, (_, node, addresses)| {
                let address = addresses.split(' ').nth(family).unwrap_or_default();
                slice.ready(address).on(node)
            })
        };
        cluster
            .manifests
            .write(&name, &format!("{service}---\n{}---\n{}", slice("v4", 0), slice("v6", 1)))?;
    }
    let mut servers = Vec::new();
    for (pod, ..) in PODS {
        for (transport, _) in TRANSPORTS {
            servers.push(cluster.echo(pod, transport, 8000 + port(transport))?);
        }
    }
    Ok(servers)
}

/// Clients outside reach VIPs by way of the node that they enter at, as a router in front of the cluster would send
/// them.
fn route(cluster: &Cluster, client: &str, node: &str) -> Result<()> {
    let node = cluster.node(node)?;
    let (v4, v6) = (node.ipv4().to_string(), node.ipv6().to_string());
    for (range, via) in [
        ("10.96.0.0/16", &v4),
        ("203.0.113.0/24", &v4),
        ("198.51.100.0/24", &v4),
        ("fd00:10:96::/64", &v6),
        ("2001:db8::/32", &v6),
    ] {
        cluster.at(client)?.run("ip", &["route", "replace", range, "via", via])?;
    }
    Ok(())
}

/// Asks four times. The names of who answered, and the sources that they saw; none: no answer to the first.
fn ask(
    from: &Namespace,
    is_node: bool,
    transport: Transport,
    to: &str,
) -> Result<Option<Vec<(String, IpAddr)>>> {
    let mut answers = Vec::new();
    for _ in 0..4 {
        match from.try_echo(transport, to)? {
            Ok(answer) => answers.push((answer.name, answer.peer.ip())),
            Err(Failure::TimedOut) if answers.is_empty() => return Ok(None),
            // A process is told at once that its own datagram was dropped.
            Err(Failure::Refused) if answers.is_empty() && is_node && transport == Transport::Udp => {
                return Ok(None);
            }
            Err(failure) => bail!("{failure}"),
        }
    }
    Ok(Some(answers))
}

/// Everything at once, under one deadline: what is dropped waits while the others are answered.
fn check(cluster: &Cluster, case: Case) -> Result<BTreeSet<String>> {
    let to = case.address(cluster)?;
    let (expected, source) = case.expected();
    let from = cluster.at(case.client)?;
    let Some(answers) = ask(from, case.who == Who::Node, case.transport, &to)? else {
        ensure!(expected.is_empty(), "no answer; {expected:?} should");
        return Ok(BTreeSet::new());
    };
    for (name, seen) in &answers {
        ensure!(expected.contains(name.as_str()), "{name} answered; only {expected:?} may");
        let own = from.run("ip", &["-br", "addr"])?.contains(&format!(" {seen}/"));
        let node = cluster.at(case.entry)?.run("ip", &["-br", "addr"])?.contains(&format!(" {seen}/"));
        match source {
            Source::Client => ensure!(own, "{name} saw {seen}, not the client"),
            Source::Node => ensure!(node, "{name} saw {seen}, not {}", case.entry),
        }
    }
    Ok(answers.into_iter().map(|(name, _)| name).collect())
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (client, who, entry) in CLIENTS {
        for kind in KINDS {
            for service in 0..POLICIES.len() {
                for v6 in [false, true] {
                    for (transport, _) in TRANSPORTS {
                        let case = Case { client, who, entry, kind, service, v6, transport };
                        cases.push(case);
                        if kind == Kind::NodePort && who != Who::Outside {
                            // Node ports of another node, too.
                            let entry = if entry == "node-1" { "node-3" } else { "node-1" };
                            cases.push(Case { entry, ..case });
                        }
                    }
                }
            }
        }
    }
    cases
}

#[test]
fn every_client_every_address_every_policy() -> TestResult {
    let builder = Cluster::builder()
        .pod("near", "node-1", "10.244.1.9 fd00:10:244:1::9")
        .pod("visitor", "node-3", "10.244.3.9 fd00:10:244:3::9")
        .host("far-client", "192.168.128.101 fd00:128::101")
        .deadline(std::time::Duration::from_secs(600));
    let builder =
        PODS.iter().fold(builder, |builder, (name, node, address)| builder.pod(name, node, address));
    scenario(builder, |cluster| {
        let _servers = deploy(cluster)?;
        route(cluster, "client", "node-1")?;
        route(cluster, "far-client", "node-3")?;
        let _proxies = cluster.start_proxies(&["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"])?;
        for node in cluster.nodes() {
            let v4 = ["10.244.1.2:8090 1", "10.244.2.2:8090 1"];
            node.namespace().await_service("UDP 10.96.1.2:90", &v4)?;
            node.namespace().await_service(
                "UDP [fd00:10:96::1:2]:90",
                &["[fd00:10:244:1::2]:8090 1", "[fd00:10:244:2::2]:8090 1"],
            )?;
        }
        let cases = cases();
        let all = &*cluster;
        let mut failures = Vec::new();
        let mut reached: BTreeMap<(Kind, usize, &str, &str), BTreeSet<String>> = BTreeMap::new();
        // As many at a time as keep a small machine busy.
        for batch in cases.chunks(48) {
            let results: Vec<(Case, Result<BTreeSet<String>>)> = thread::scope(|scope| {
                let running: Vec<_> =
                    batch.iter().map(|case| (*case, scope.spawn(move || check(all, *case)))).collect();
                let joined = running
                    .into_iter()
                    .map(|(case, thread)| (case, thread.join().unwrap_or_else(|_| bail!("panicked"))));
                joined.collect()
            });
            for (case, result) in results {
                match result {
                    Ok(names) => {
                        reached
                            .entry((case.kind, case.service, case.client, case.entry))
                            .or_default()
                            .extend(names);
                    }
                    Err(error) => failures.push(format!(
                        "{case:?} {:?} to {}: {error:#}",
                        POLICIES[case.service],
                        case.address(all).context("no address")?
                    )),
                }
            }
        }
        ensure!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
        // Where several may answer, each does.
        for case in &cases {
            let names = &reached[&(case.kind, case.service, case.client, case.entry)];
            let expected: BTreeSet<String> = case.expected().0.into_iter().map(str::to_owned).collect();
            ensure!(*names == expected, "{case:?}: {names:?} answered, not {expected:?}");
        }
        Ok(())
    })
}
