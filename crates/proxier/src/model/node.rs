use std::net::IpAddr;

use ipnet::IpNet;

/// A Node, as far as a proxy acts on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `status.addresses` of type `InternalIP`, in their order: the first of each family is its primary one.
    pub internal_ips: Vec<IpAddr>,
    /// All of `status.addresses` that are IP addresses, of whatever type.
    pub addresses: Vec<IpAddr>,
    /// The label `topology.kubernetes.io/zone`.
    pub zone: Option<Box<str>>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// Whether it is being deleted (`metadata.deletionTimestamp`), or the cluster autoscaler is about to (a taint
    /// `ToBeDeletedByClusterAutoscaler`): no load balancer should choose it any more.
    pub leaving: bool,
}

impl Node {
    /// A Node of this name of which nothing else is known.
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

/// A ServiceCIDR (`networking.k8s.io/v1`): ranges from which ClusterIPs are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceCidr {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `spec.cidrs`.
    pub ranges: Vec<IpNet>,
}
