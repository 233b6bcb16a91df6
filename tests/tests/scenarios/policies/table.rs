//! The table: every client, address and policy, in any state of the endpoints.

use std::collections::BTreeSet;

use anyhow::Result;
use scenarios::{Cluster, Transport};

/// The pods behind every Service, each on its node. `node-3` has none.
pub(super) const PODS: [(&str, &str, &str); 2] =
    [("app-1", "node-1", "10.244.1.2 fd00:10:244:1::2"), ("app-2", "node-2", "10.244.2.2 fd00:10:244:2::2")];
/// The internal and the external policy of each Service.
pub(super) const POLICIES: [(&str, &str); 4] =
    [("Cluster", "Cluster"), ("Cluster", "Local"), ("Local", "Cluster"), ("Local", "Local")];
pub(super) const TRANSPORTS: [(Transport, &str); 3] =
    [(Transport::Tcp, "TCP"), (Transport::Udp, "UDP"), (Transport::Sctp, "SCTP")];
const CLIENTS: [(&str, Who, &str); 6] = [
    ("client", Who::Outside, "node-1"),
    ("far-client", Who::Outside, "node-3"),
    ("near", Who::Pod, "node-1"),
    ("visitor", Who::Pod, "node-3"),
    ("node-1", Who::Node, "node-1"),
    ("node-3", Who::Node, "node-3"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Outside,
    Pod,
    Node,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    ClusterIp,
    ExternalIp,
    LoadBalancerIp,
    NodePort,
}

const KINDS: [Kind; 4] = [Kind::ClusterIp, Kind::ExternalIp, Kind::LoadBalancerIp, Kind::NodePort];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Ready,
    /// The pod exists, and its readiness probe fails.
    NotReady,
    Terminating,
    Gone,
}

pub(super) type State = [Condition; 2];

#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) client: &'static str,
    who: Who,
    /// The node of the client, or the node at which it enters.
    node: &'static str,
    /// Whether nodes can tell their own pods from those of other nodes.
    told_apart: bool,
    /// The node that the packets reach first.
    pub(super) entry: &'static str,
    pub(super) kind: Kind,
    /// The index of the Service in `POLICIES`.
    pub(super) service: usize,
    v6: bool,
    pub(super) transport: Transport,
}

/// The expected outcome of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// One of these pods answers and sees this source address.
    Answered(BTreeSet<&'static str>, Source),
    Refused,
    /// The entry node drops the packet. The rule with this comment counts it.
    Dropped(&'static str),
}

/// The source address that the endpoint sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Client,
    Node,
}

const DROPPED_INSIDE: &str = "policy Local, and no endpoint on this node";
const DROPPED_OUTSIDE: &str = "policy Local, no endpoint on this node, and no short circuit";
/// The comments of all rules that drop for a policy.
pub(super) const DROPS: [&str; 2] = [DROPPED_INSIDE, DROPPED_OUTSIDE];

impl Case {
    pub(super) fn address(&self, cluster: &Cluster) -> Result<String> {
        let number = self.service + 1;
        let port = port(self.transport);
        let node = cluster.node(self.entry)?;
        let node_port = node_port(self.service, self.transport);
        Ok(match (self.kind, self.v6) {
            (Kind::ClusterIp, false) => format!("10.96.1.{number}:{port}"),
            (Kind::ClusterIp, true) => format!("[fd00:10:96::1:{number}]:{port}"),
            (Kind::ExternalIp, false) => format!("203.0.113.{number}:{port}"),
            (Kind::ExternalIp, true) => format!("[2001:db8:e::{number}]:{port}"),
            (Kind::LoadBalancerIp, false) => format!("198.51.100.{number}:{port}"),
            (Kind::LoadBalancerIp, true) => format!("[2001:db8:1b::{number}]:{port}"),
            (Kind::NodePort, false) => format!("{}:{node_port}", node.ipv4()),
            (Kind::NodePort, true) => format!("[{}]:{node_port}", node.ipv6()),
        })
    }

    pub(super) fn is_at_home(&self) -> bool {
        self.client == self.entry
    }

    /// Whether node-3 connects to a node port of node-1. IPVS on node-1 knows the connection by node-3's address and
    /// port. For minutes it also matches answers of the local app-1 to a connection that node-3 masqueraded to the same
    /// port (docs/dataplane.md).
    pub(super) fn node_3_asks_node_1(&self) -> bool {
        self.client == "node-3" && !self.is_at_home()
    }

    pub(super) fn fate(&self, state: State) -> Fate {
        let (internal, external) = POLICIES[self.service];
        // A node knows only its own processes. If its podCIDR is known, it also knows only its own pods. Otherwise
        // every node treats all pods as local.
        let is_inside = match self.who {
            Who::Pod => !self.told_apart || self.node == self.entry,
            Who::Node | Who::Outside => self.is_at_home(),
        };
        let policy = match self.kind {
            Kind::ClusterIp => internal,
            // Inside clients use all endpoints, whatever the external policy.
            _ if is_inside => "Cluster",
            _ => external,
        };
        let here = |node: &str| policy == "Cluster" || node == self.entry;
        let serving = serving(state, here);
        if serving.is_empty() {
            return match (self::serving(state, |_| true).is_empty(), self.kind) {
                (true, _) => Fate::Refused,
                (false, Kind::ClusterIp) => Fate::Dropped(DROPPED_INSIDE),
                (false, _) => Fate::Dropped(DROPPED_OUTSIDE),
            };
        }
        let keeps = match (self.who, self.kind) {
            (Who::Pod, Kind::NodePort) => !is_inside && external == "Local",
            (Who::Pod, _) => true,
            // A process uses the VIP, or an address of its node, as source.
            (Who::Node, _) if self.is_at_home() => false,
            (_, Kind::ClusterIp) => false,
            _ => external == "Local",
        };
        Fate::Answered(serving, if keeps { Source::Client } else { Source::Node })
    }
}

/// The pods on some nodes that get connections: the ready ones, or the terminating ones if none is ready.
fn serving(state: State, here: impl Fn(&str) -> bool) -> BTreeSet<&'static str> {
    let of = |wanted: Condition| -> BTreeSet<&'static str> {
        let pods = PODS.iter().zip(state).filter(|(pod, condition)| *condition == wanted && here(pod.1));
        pods.map(|((name, ..), _)| *name).collect()
    };
    let ready = of(Condition::Ready);
    if ready.is_empty() { of(Condition::Terminating) } else { ready }
}

pub(super) fn port(transport: Transport) -> u16 {
    match transport {
        Transport::Tcp => 80,
        Transport::Udp => 90,
        Transport::Sctp => 100,
    }
}

pub(super) fn node_port(service: usize, transport: Transport) -> usize {
    30_001 + service + usize::from(port(transport))
}

/// The cases of pods that connect to node ports of another node, which can tell them from its own pods.
pub(super) fn cases_of_pods_elsewhere() -> Vec<Case> {
    let elsewhere = cases().into_iter().filter(|case| case.who == Who::Pod && case.node != case.entry);
    elsewhere.map(|case| Case { told_apart: true, ..case }).collect()
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (client, who, node) in CLIENTS {
        for kind in KINDS {
            for service in 0..POLICIES.len() {
                for v6 in [false, true] {
                    for (transport, _) in TRANSPORTS {
                        let (entry, told_apart) = (node, false);
                        let case = Case { client, who, node, told_apart, entry, kind, service, v6, transport };
                        cases.push(case);
                        if kind == Kind::NodePort && who != Who::Outside {
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
