use std::net::IpAddr;

use ipnet::IpNet;

/// The fields of a Node that a proxy acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Node {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `status.addresses` of type `InternalIP`, in order. The first of each family is the primary one.
    pub internal_ips: Vec<IpAddr>,
    /// All IP addresses in `status.addresses`, of any type.
    pub addresses: Vec<IpAddr>,
    /// The label `topology.kubernetes.io/zone`.
    pub zone: Option<Box<str>>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// Whether the Node is being deleted (`metadata.deletionTimestamp`), or the cluster autoscaler will delete it
    /// (taint `ToBeDeletedByClusterAutoscaler`). Load balancers should then avoid it.
    pub leaving: bool,
}

impl Node {
    /// A Node with only a name.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            internal_ips: Vec::new(),
            addresses: Vec::new(),
            zone: None,
            pod_cidrs: Vec::new(),
            leaving: false,
        }
    }
}

/// A ServiceCIDR (`networking.k8s.io/v1`): ranges of ClusterIPs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ServiceCidr {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `spec.cidrs`.
    pub ranges: Vec<IpNet>,
}
