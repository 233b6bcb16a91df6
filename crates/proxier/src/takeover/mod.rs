//! The takeover of a node from kube-proxy, in each of its modes: which objects kube-proxy made, which of them must go
//! and in which order, and which stay and why. This module does not touch the kernel: see
//! [`LinuxKernel`](crate::linux::LinuxKernel) for that.
//!
//! kube-proxy identifies its objects. The ipsets of its ipvs mode name every port that it serves, and it alone uses
//! `kube-ipvs0`. Its chains and its nftables table have unique names. The iptables and nftables modes leave only rules:
//! conntrack keeps their open connections.

mod adopted_state;
mod kept;
mod leftovers;
mod mode;
mod names;
mod preview;
#[cfg(test)]
mod tests;

pub(crate) use adopted_state::{AdoptedState, Entry, KubeProxyState, is_of_the_link};
pub use kept::Kept;
pub(crate) use leftovers::{Base, Chain, ChainId, Hook, Leftovers, Rule, Verdict};
pub use mode::KubeProxyMode;
pub(crate) use mode::{modes, served_by_kube_proxy};
pub(crate) use names::{
    IpsetKind, NFTABLES_MODE, SERVICES, TABLES, holds, legacy_commands, sets_to_destroy, sets_to_empty,
};
pub use preview::Preview;

/// The result of removing kube-proxy's leftovers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CleanupReport {
    /// The number of virtual servers and addresses that kube-ipvs adopted from kube-proxy when it started.
    pub adopted: usize,
    /// The number of kube-proxy's chains that were removed.
    pub chains: usize,
    /// The number of tables of kube-proxy's nftables mode that were removed.
    pub tables: usize,
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
