//! The takeover of a node from kube-proxy's ipvs mode: which objects kube-proxy made, which of them must go and in
//! which order, and which stay and why. This module does not touch the kernel: see
//! [`LinuxKernel`](crate::linux::LinuxKernel) for that.
//!
//! kube-proxy identifies its objects (`pkg/proxy/ipvs` of Kubernetes). Its ipsets name every port that it serves. It
//! alone uses `kube-ipvs0`. Its chains have unique names.

mod adopted_state;
mod kept;
mod leftovers;
mod names;
#[cfg(test)]
mod tests;
mod way_back;

pub(crate) use adopted_state::{AdoptedState, Entry, KubeProxyState, is_of_the_link};
pub use kept::Kept;
pub(crate) use leftovers::{Base, Chain, ChainId, Hook, Leftovers, Rule, Verdict};
pub(crate) use names::{IpsetKind, TABLES, holds, legacy_commands, sets_to_destroy, sets_to_empty};
pub(crate) use way_back::served_by_kube_proxy;

/// The result of removing kube-proxy's leftovers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CleanupReport {
    /// The number of virtual servers and addresses that kube-ipvs adopted from kube-proxy when it started.
    pub adopted: usize,
    /// The number of kube-proxy's chains that were removed.
    pub chains: usize,
    /// The number of kube-proxy's ipsets that were removed.
    pub sets: usize,
    /// The objects that stay, each with the reason.
    pub kept: Vec<Kept>,
}

impl CleanupReport {
    /// Whether the node had no leftovers of kube-proxy.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
