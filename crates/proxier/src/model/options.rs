use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ipvs_netlink::Scheduler;

use super::{Endpoint, PortNumber};

/// What a Service chooses beyond the fields that Kubernetes has for it: its annotations `kube-ipvs.io/…`, which
/// docs/annotations.md describes. The default is a Service without annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceOptions {
    /// `scheduler`; none: the node's default.
    pub scheduler: Option<Scheduler>,
    /// `hash-on`; none: as the scheduler does by default.
    pub hash_on: Option<HashOn>,
    /// `hash-fallback`; none: yes.
    pub hash_fallback: Option<bool>,
    /// `udp-scheduling`.
    pub udp_scheduling: UdpScheduling,
    /// `forwarding`.
    pub forwarding: Forwarding,
    /// `local-endpoint-weight`: by which factor endpoints on this node are preferred.
    pub local_weight: Weight,
    /// `node-weights`: by which factor those on certain nodes are; on all others by 1.
    pub node_weights: BTreeMap<Arc<str>, Weight>,
    /// `max-drain-time`; none: the node's default.
    pub max_drain_time: Option<Duration>,
}

impl ServiceOptions {
    /// Of a Service without annotations.
    pub const DEFAULT: Self = Self {
        scheduler: None,
        hash_on: None,
        hash_fallback: None,
        udp_scheduling: UdpScheduling::Flow,
        forwarding: Forwarding::Masq,
        local_weight: 1,
        node_weights: BTreeMap::new(),
        max_drain_time: None,
    };

    /// The weight of an endpoint: its own, times the factor of its node, times that of this node. With 0 it takes no
    /// new connections.
    pub fn weight(&self, endpoint: &Endpoint, is_local: bool) -> Weight {
        let node = endpoint.node.as_ref().and_then(|node| self.node_weights.get(node)).copied().unwrap_or(1);
        let local = if is_local { self.local_weight } else { 1 };
        endpoint.weight.saturating_mul(node).saturating_mul(local)
    }
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The weight of a real server, or a factor of it: how many new connections it gets, relative to the others. IPVS can
/// have more than 65535; ipvsadm cannot.
pub type Weight = u16;

/// What a hashing scheduler (`sh`, `mh`) knows a client by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashOn {
    /// Its address: all its connections go to one endpoint.
    Address,
    /// Its address and its port: each connection goes where it goes for itself, on every node to the same endpoint.
    AddressAndPort,
}

/// What of UDP is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UdpScheduling {
    /// A flow: what comes from one socket goes to one endpoint while it goes on.
    #[default]
    Flow,
    /// Every datagram by itself (`IP_VS_SVC_F_ONEPACKET`). IPVS keeps nothing by which it could translate an answer,
    /// and so the endpoint has to answer the client itself.
    Datagram,
    /// Every datagram by itself, for there are no answers.
    OneWayDatagram,
}

/// How packets reach the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Forwarding {
    /// Their destination is rewritten, and the answers come back by way of this node.
    #[default]
    Masq,
    /// As they are, to the endpoint's link-layer address ("direct routing"). It answers the client itself.
    Direct,
    /// Within IP packets to the endpoint. It answers the client itself.
    Ipip,
    /// Within GRE packets to the endpoint.
    Gre,
    /// Within UDP packets to this port of the endpoint (Generic UDP Encapsulation).
    Gue(PortNumber),
}
