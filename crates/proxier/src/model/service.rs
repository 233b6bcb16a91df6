use std::{collections::BTreeSet, net::IpAddr, num::NonZeroU32, sync::Arc};

use foldhash::HashSet;
use ipnet::IpNet;

use super::{Family, PortNumber, Protocol, ServiceId, ServiceOptions, ServicePortId};

/// Seconds since 1970, as in `metadata.creationTimestamp`.
pub type Timestamp = i64;

/// The fields of a Service that a proxy acts on.
///
/// Headless and `ExternalName` Services have no `cluster_ips`, so the engine programs nothing for them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Service {
    /// `metadata.namespace` and `metadata.name`.
    pub id: ServiceId,
    /// `metadata.creationTimestamp`. If two Services claim one key by the same kind of address, the older one gets it.
    pub created: Timestamp,
    /// `spec.clusterIPs`, at most one of each family.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.sessionAffinity`.
    pub affinity: Affinity,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip`, without those of `ipMode: Proxy`, which the load balancer serves itself.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`: the sources that can reach the load-balancer IPs. Empty: all sources.
    pub source_ranges: Vec<IpNet>,
    /// `spec.healthCheckNodePort`: where load balancers ask over HTTP whether this node has local endpoints.
    pub health_check_port: Option<PortNumber>,
    /// `spec.internalTrafficPolicy`: the endpoints of the ClusterIPs.
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`: the endpoints of node ports, external and load-balancer IPs.
    pub external_policy: TrafficPolicy,
    /// Its choices by annotations. None: it has no annotations.
    pub options: Option<Box<ServiceOptions>>,
}

impl Service {
    /// A Service with only a name.
    pub fn new(id: ServiceId) -> Self {
        Self {
            id,
            created: 0,
            cluster_ips: Vec::new(),
            ports: Vec::new(),
            affinity: Affinity::None,
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            source_ranges: Vec::new(),
            health_check_port: None,
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Cluster,
            options: None,
        }
    }

    /// Its choices by annotations, or the defaults.
    pub fn options(&self) -> &ServiceOptions {
        static NONE: ServiceOptions = ServiceOptions::DEFAULT;
        self.options.as_deref().unwrap_or(&NONE)
    }

    /// Whether it has a ClusterIP of a family. It is not served in other families.
    pub fn has_family(&self, family: Family) -> bool {
        self.cluster_ips.iter().any(|ip| Family::of(*ip) == family)
    }

    /// Its ClusterIPs, external and load-balancer IPs, each once.
    pub fn vips(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let all = [&self.cluster_ips, &self.external_ips, &self.load_balancer_ips];
        all.into_iter().flatten().copied().collect::<BTreeSet<_>>().into_iter()
    }

    /// `spec.healthCheckNodePort`, if load balancers use it: only with the external policy `Local`.
    pub(crate) fn asked_health_port(&self) -> Option<PortNumber> {
        let is_asked = self.external_policy == TrafficPolicy::Local && !self.cluster_ips.is_empty();
        self.health_check_port.filter(|_| is_asked)
    }

    /// For each port, in the order of `ports`: a port of the ClusterIPs that leads to all endpoints. It is needed if
    /// the ClusterIPs lead only to local endpoints, and clients in the cluster must reach all endpoints by an external
    /// address.
    ///
    /// It is the Service's port with the top bit flipped, so it does not depend on the other ports. If the Service uses
    /// that port itself, or it is 0, a free port from the top replaces it.
    pub(crate) fn inner_ports(&self) -> Vec<Option<PortNumber>> {
        use TrafficPolicy::Local;
        let has_external = !self.external_ips.is_empty() || !self.load_balancer_ips.is_empty();
        let is_asked = |port: &ServicePort| has_external || port.node_port.is_some();
        let mut inner = vec![None; self.ports.len()];
        if (self.internal_policy, self.external_policy) != (Local, Local) {
            return inner;
        }
        let mut taken: HashSet<(Protocol, PortNumber)> =
            self.ports.iter().map(|port| (port.protocol, port.port)).collect();
        let mut rest = Vec::new();
        for (port, inner) in self.ports.iter().zip(&mut inner).filter(|(port, _)| is_asked(port)) {
            let opposite = PortNumber::new(port.port.get() ^ 0x8000);
            match opposite.filter(|number| !taken.contains(&(port.protocol, *number))) {
                Some(number) => *inner = Some(number),
                None => rest.push((port, inner)),
            }
        }
        let opposites =
            self.ports.iter().filter_map(|port| Some((port.protocol, PortNumber::new(port.port.get() ^ 0x8000)?)));
        taken.extend(opposites);
        rest.sort_by_key(|(port, _)| port.port);
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let all = (1..=u16::MAX).rev().filter_map(PortNumber::new);
            let mut free = all.filter(|number| !taken.contains(&(protocol, *number)));
            for (_, inner) in rest.iter_mut().filter(|(port, _)| port.protocol == protocol) {
                **inner = free.next();
            }
        }
        inner
    }

    /// The name of one of its ports.
    pub fn port_id(&self, port: &ServicePort) -> ServicePortId {
        ServicePortId { service: self.id.clone(), port: port.name.clone() }
    }
}

/// One entry of `spec.ports`.
///
/// `targetPort` is not here: EndpointSlices give each endpoint's port number under the same port name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ServicePort {
    /// `name`. Empty if the port has none.
    pub name: Arc<str>,
    /// `protocol`.
    pub protocol: Protocol,
    /// `port` on the Service's VIPs.
    pub port: PortNumber,
    /// `nodePort` on node addresses.
    pub node_port: Option<PortNumber>,
}

impl ServicePort {
    /// A port without a node port.
    pub fn new(name: impl Into<Arc<str>>, protocol: Protocol, port: PortNumber) -> Self {
        Self { name: name.into(), protocol, port, node_port: None }
    }
}

/// The endpoints that traffic is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum TrafficPolicy {
    /// All endpoints.
    #[default]
    Cluster,
    /// Only endpoints on the node that the traffic reaches.
    Local,
}

/// `spec.sessionAffinity`: whether a client stays on one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Affinity {
    /// `None`: IPVS schedules every connection independently.
    #[default]
    None,
    /// `ClientIP`: a client address stays on its endpoint until it is idle for this many seconds.
    ClientIp(NonZeroU32),
}
