use std::{collections::BTreeSet, net::IpAddr, num::NonZeroU32, sync::Arc};

use foldhash::HashSet;
use ipnet::IpNet;

use super::{Family, PortNumber, Protocol, ServiceId, ServiceOptions, ServicePortId};

/// Seconds since 1970, as `metadata.creationTimestamp` says.
pub type Timestamp = i64;

/// A Service, as far as a proxy acts on it.
///
/// Headless and `ExternalName` Services have no `cluster_ips`, and so nothing is programmed for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `metadata.namespace` and `metadata.name`.
    pub id: ServiceId,
    /// `metadata.creationTimestamp`: of two Services that ask for the same kind of thing the older one gets it.
    pub created: Timestamp,
    /// `spec.clusterIPs`, at most one of each family.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.sessionAffinity`.
    pub affinity: Affinity,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip`, except those of `ipMode: Proxy`, which the load balancer serves itself.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`: the sources that may reach the load-balancer IPs. Empty: all sources.
    pub source_ranges: Vec<IpNet>,
    /// `spec.healthCheckNodePort`: where a load balancer asks a node over HTTP whether it has endpoints of its own.
    pub health_check_port: Option<PortNumber>,
    /// `spec.internalTrafficPolicy`: to which endpoints the ClusterIPs lead.
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`: to which endpoints node ports, external and load-balancer IPs lead.
    pub external_policy: TrafficPolicy,
    /// What it chooses by annotations; none where it has none.
    pub options: Option<Box<ServiceOptions>>,
}

impl Service {
    /// A Service of this name that asks for nothing.
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

    /// What it chooses by annotations.
    pub fn options(&self) -> &ServiceOptions {
        static NONE: ServiceOptions = ServiceOptions::DEFAULT;
        self.options.as_deref().unwrap_or(&NONE)
    }

    /// Whether it has a ClusterIP of a family: in others nothing of it is served.
    pub fn has_family(&self, family: Family) -> bool {
        self.cluster_ips.iter().any(|ip| Family::of(*ip) == family)
    }

    /// Its addresses that are not those of nodes, each once.
    pub fn vips(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let all = [&self.cluster_ips, &self.external_ips, &self.load_balancer_ips];
        all.into_iter().flatten().copied().collect::<BTreeSet<_>>().into_iter()
    }

    /// Where load balancers ask each node for its health, if they do: `spec.healthCheckNodePort`. It has a meaning with
    /// the external policy `Local` only.
    pub(crate) fn asked_health_port(&self) -> Option<PortNumber> {
        let is_asked = self.external_policy == TrafficPolicy::Local && !self.cluster_ips.is_empty();
        self.health_check_port.filter(|_| is_asked)
    }

    /// The ports of its ClusterIPs behind which all endpoints are, in the order of `ports`: where these lead to local
    /// ones only and clients in the cluster are still to reach all of them by way of an external address.
    ///
    /// Such a port is half of all ports away from the Service's own, so that it does not depend on the other ports.
    /// Only where the Service uses that one itself is it another, from the top.
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
/// `targetPort` is not here: EndpointSlices say, under the same port name, which number each endpoint uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// `name`, empty where it has none.
    pub name: Arc<str>,
    /// `protocol`.
    pub protocol: Protocol,
    /// `port`: where the Service listens on its VIPs.
    pub port: PortNumber,
    /// `nodePort`: where it listens on node addresses.
    pub node_port: Option<PortNumber>,
}

impl ServicePort {
    /// A port without a node port.
    pub fn new(name: impl Into<Arc<str>>, protocol: Protocol, port: PortNumber) -> Self {
        Self { name: name.into(), protocol, port, node_port: None }
    }
}

/// To which endpoints traffic is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrafficPolicy {
    /// To all.
    #[default]
    Cluster,
    /// To those on the node that the traffic reaches, and nowhere else.
    Local,
}

/// `spec.sessionAffinity`: whether one client stays on one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Affinity {
    /// `None`: IPVS schedules every connection independently.
    #[default]
    None,
    /// `ClientIP`: an address stays on its endpoint until it has been silent for so many seconds.
    ClientIp(NonZeroU32),
}
