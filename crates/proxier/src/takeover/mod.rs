//! Taking a node over from kube-proxy's ipvs mode: what of all that is there kube-proxy made, what of it must go and
//! in which order, and what stays and why. Nothing here touches the kernel: see
//! [`LinuxKernel`](crate::linux::LinuxKernel) for that.
//!
//! kube-proxy says by itself what is its own: its ipsets name every port that it serves, `kube-ipvs0` is its device
//! alone, and its chains have names of their own (`pkg/proxy/ipvs` of Kubernetes).

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

/// What was removed of kube-proxy's leftovers, and what was not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CleanupReport {
    /// How many virtual servers and addresses were kube-proxy's when we started.
    pub adopted: usize,
    /// How many of its chains were removed.
    pub chains: usize,
    /// How many of its ipsets were removed.
    pub sets: usize,
    /// What stays, each with the reason.
    pub kept: Vec<Kept>,
}

impl CleanupReport {
    /// Whether there was nothing of kube-proxy's at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
