use std::net::IpAddr;

/// A Node, as far as a proxy acts on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `status.addresses` of type `InternalIP`, in their order: the first of each family is its primary one.
    pub internal_ips: Vec<IpAddr>,
}
