//! The end of our service: all of ours goes, or kube-proxy goes on with it.

use std::collections::BTreeSet;

use super::{LinuxKernel, unavailable};
use crate::{
    kernel::{Kernel, KernelUnavailable},
    model::{Family, VirtualServerKey},
    plan::{Change, Plan},
    state::State,
    takeover::{self, AdoptedState},
};

impl LinuxKernel {
    /// Removes what is ours and nothing else: the virtual servers and addresses that our record names, and our tables.
    /// The device is removed too if no other program has an address on it.
    ///
    /// # Errors
    ///
    /// The first thing that could not be read or removed. Calling it again goes on from there.
    pub fn clean_up(&mut self) -> Result<Plan, KernelUnavailable> {
        // What kube-proxy made and we never served is not ours.
        self.adopted_state = Some(AdoptedState::default());
        let state = self.observe(&State::default())?;
        let recorded = |key: &VirtualServerKey| state.is_recorded(key);
        let servers = state.virtual_servers.keys().copied().filter(recorded).map(Change::RemoveServer);
        let vips = state.recorded_vips.union(&state.owned_vips).copied();
        let bound = vips.filter(|address| state.bound_vips.contains(address)).map(Change::Unbind);
        let plan = Plan::new(servers.chain(bound).collect());
        if let Some(failure) = self.apply(&plan).failures.first() {
            let change = plan.changes()[failure.change].to_string();
            return Err(KernelUnavailable::new(change, failure.reason.clone()));
        }
        self.nft.remove().map_err(unavailable("nftables"))?;
        self.addresses.remove().map_err(unavailable(self.device()))?;
        Ok(plan)
    }

    /// The families in which we serve and kube-proxy does not yet, as far as nftables says: there
    /// [`handover`](Self::handover) would leave Services without masquerade. Rules of legacy iptables cannot be
    /// seen.
    ///
    /// # Errors
    ///
    /// When nftables cannot be read.
    pub fn not_served_by_kube_proxy(&mut self) -> Result<BTreeSet<Family>, KernelUnavailable> {
        let mut ours = State::default();
        self.nft.observe(&mut ours).map_err(unavailable("nftables"))?;
        let chains = self.nft.foreign_chains().map_err(unavailable("nftables"))?;
        let theirs = takeover::served_by_kube_proxy(&chains);
        Ok(ours.elements.keys().map(VirtualServerKey::family).filter(|family| !theirs.contains(family)).collect())
    }

    /// Leaves virtual servers and addresses to kube-proxy, which serves them again: removes our tables and our
    /// record, and nothing else.
    ///
    /// # Errors
    ///
    /// The first thing that could not be removed. Calling it again goes on from there.
    pub fn handover(&mut self) -> Result<(), KernelUnavailable> {
        self.nft.remove().map_err(unavailable("nftables"))?;
        let Some(record) = &mut self.record else { return Ok(()) };
        record.remove().map_err(unavailable("the record of what is ours"))
    }
}
