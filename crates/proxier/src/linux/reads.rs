//! Read-only calls for commands.

use std::{collections::BTreeMap, sync::Arc};

use super::{LinuxKernel, Meter, Notices, unavailable};
use crate::{
    kernel::KernelUnavailable,
    model::VirtualServerKey,
    state::{Membership, State},
};

impl LinuxKernel {
    /// Reads the state as [`read_state`](crate::kernel::Kernel::read_state) does, and writes nothing, not even to the
    /// record. Use it while another process owns the kernel.
    ///
    /// # Errors
    ///
    /// If any part cannot be read.
    pub fn inspect(&mut self) -> Result<State, KernelUnavailable> {
        Ok(self.read(&State::default())?.0)
    }

    /// The Service port behind each virtual server of kube-ipvs, from the record in nftables.
    ///
    /// # Errors
    ///
    /// If nftables cannot be read.
    pub fn owners(&mut self) -> Result<BTreeMap<VirtualServerKey, Arc<str>>, KernelUnavailable> {
        let mut state = State::default();
        self.nft.read_into(&mut state).map_err(unavailable("nftables"))?;
        let owner = |(key, entry): (_, Membership)| Some((key, entry.comment?));
        Ok(state.elements.into_iter().filter_map(owner).collect())
    }

    /// The kernel operations since the last call.
    pub fn take_meter(&mut self) -> Meter {
        std::mem::take(&mut self.meter)
    }

    /// Notices of changes by other programs from now on. Give each of the two a thread.
    ///
    /// # Errors
    ///
    /// If the kernel rejects a subscription.
    pub fn notices(&self) -> Result<[Notices; 2], KernelUnavailable> {
        let names = &self.settings.names;
        let of_tables = Notices::of_tables(self.nft.port(), names.clone()).map_err(unavailable("nftables"))?;
        let of_devices = Notices::of_devices(self.addresses.port(), names.clone());
        Ok([of_tables, of_devices.map_err(unavailable("rtnetlink"))?])
    }

    /// Chains of other programs at the forward hook with the policy drop, which can block packets to endpoints. One
    /// message for each.
    ///
    /// # Errors
    ///
    /// If nftables cannot be read.
    pub fn dropping_chains(&mut self) -> Result<Vec<String>, KernelUnavailable> {
        let chains = self.nft.dropping_at_forward().map_err(unavailable("nftables"))?;
        let message = |chain| {
            format!(
                "the chain {chain} drops packets that none of its rules accepts. If no rule accepts packets to and \
                 from endpoints, as kube-proxy's KUBE-FORWARD did, Services with endpoints on other nodes time out"
            )
        };
        Ok(chains.into_iter().map(message).collect())
    }

    /// Problems that the operator must know, although Services are served.
    pub fn warnings(&self) -> Vec<String> {
        let record = self.record.as_ref().zip(self.record_error.as_ref()).map(|(record, error)| {
            format!(
                "cannot write the copy of the record of ownership to {}: {error}. Services are served. If another \
                 program empties nftables while this proxy is not running, this proxy forgets which virtual servers \
                 and addresses it owns",
                record.path().display()
            )
        });
        let v6 = self
            .nft
            .without_v6()
            .map(|error| format!("nftables has no table for IPv6: {error}. This proxy serves Services over IPv4 only"));
        record.into_iter().chain(v6).collect()
    }

    /// Passes every netlink datagram to `observer` before it is sent, for benchmarks that replay them.
    #[doc(hidden)]
    pub fn observe_sends(&mut self, observer: impl Fn(netlink_batch::Protocol, &[u8]) + Send + Clone + 'static) {
        use netlink_batch::Protocol::{Generic, Netfilter, Route};
        let to = |protocol| {
            let observer = observer.clone();
            move |bytes: &[u8]| observer(protocol, bytes)
        };
        self.ipvs.observe_sends(to(Generic));
        self.addresses.observe_sends(to(Route));
        self.nft.observe_sends(to(Netfilter));
    }
}
