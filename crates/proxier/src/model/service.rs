use std::{net::IpAddr, num::NonZeroU32, sync::Arc};

use super::{PortNumber, Protocol, ServiceId, ServicePortId};

/// Seconds since 1970, as `metadata.creationTimestamp` says.
pub type Timestamp = i64;

/// A Service, as far as a proxy acts on it.
///
/// Headless and `ExternalName` Services have no `cluster_ips`, and so nothing is programmed for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `metadata.namespace` and `metadata.name`.
    pub id: ServiceId,
    /// `metadata.creationTimestamp`: of two Services that ask for the same thing the older one gets it.
    pub created: Timestamp,
    /// `spec.clusterIPs`, at most one of each family.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.sessionAffinity`.
    pub affinity: Affinity,
}

impl Service {
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

/// `spec.sessionAffinity`: whether one client stays on one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Affinity {
    /// `None`: every connection is scheduled anew.
    #[default]
    None,
    /// `ClientIP`: an address stays on its endpoint until it has been silent for so many seconds.
    ClientIp(NonZeroU32),
}
