use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ipvs_netlink::Scheduler;

use super::{Endpoint, PortNumber};

/// A Service's annotations `kube-ipvs.io/…`, as docs/annotations.md describes them. Default: no annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct ServiceOptions {
    /// `scheduler`. None: the node's default.
    pub scheduler: Option<Scheduler>,
    /// `hash-on`. None: the scheduler's default.
    pub hash_on: Option<HashOn>,
    /// `hash-fallback`. None: yes.
    pub hash_fallback: Option<bool>,
    /// `udp-scheduling`.
    pub udp_scheduling: UdpScheduling,
    /// `forwarding`.
    pub forwarding: Forwarding,
    /// `local-endpoint-weight`: the weight factor of endpoints on this node.
    pub local_weight: Weight,
    /// `node-weights`: the weight factors of endpoints on these nodes. It is 1 on all others.
    pub node_weights: BTreeMap<Arc<str>, Weight>,
    /// `max-drain-time`. None: the node's default.
    pub max_drain_time: Option<Duration>,
}

impl ServiceOptions {
    /// The options of a Service without annotations.
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

    /// The weight of an endpoint times the factors of its node and of this node. At 0 it takes no new connections.
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

/// A real server's share of new connections, or a factor of it. IPVS accepts more than 65535; ipvsadm does not.
pub type Weight = u16;

/// The part of a client's socket that a hashing scheduler (`sh`, `mh`) hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum HashOn {
    /// The address: all connections of a client go to one endpoint.
    Address,
    /// The address and the port: each connection is hashed separately. Every node chooses the same endpoint.
    AddressAndPort,
}

/// The unit in which UDP is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum UdpScheduling {
    /// A flow: datagrams from one socket go to one endpoint while the flow lasts.
    #[default]
    Flow,
    /// Every datagram separately (`IP_VS_SVC_F_ONEPACKET`). IPVS keeps no connection with which it could translate an
    /// answer, so the endpoint must answer the client directly.
    Datagram,
    /// Every datagram separately, for protocols without answers.
    OneWayDatagram,
}

/// How packets reach the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Forwarding {
    /// With destination NAT. Answers come back through this node.
    #[default]
    Masq,
    /// Unchanged, to the endpoint's link-layer address ("direct routing"). The endpoint answers the client directly.
    Direct,
    /// In IP packets to the endpoint. The endpoint answers the client directly.
    Ipip,
    /// In GRE packets to the endpoint.
    Gre,
    /// In UDP packets to this port of the endpoint (Generic UDP Encapsulation).
    Gue(PortNumber),
}
