//! The end of kube-ipvs on a node: it removes its state, or hands it over to kube-proxy.

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
    /// Removes only the state of kube-ipvs: the virtual servers and addresses in its record, and its tables. It also
    /// removes the device if no other program has an address on it.
    ///
    /// # Errors
    ///
    /// The first object that could not be read or removed. A second call continues from there.
    pub fn clean_up(&mut self) -> Result<Plan, KernelUnavailable> {
        // Objects of kube-proxy that kube-ipvs never served belong to kube-proxy.
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

    /// The families that kube-ipvs serves and kube-proxy does not yet, according to nftables. In these families,
    /// [`handover`](Self::handover) would leave Services without masquerade. Rules of legacy iptables are not visible.
    ///
    /// # Errors
    ///
    /// If nftables cannot be read.
    pub fn not_served_by_kube_proxy(&mut self) -> Result<BTreeSet<Family>, KernelUnavailable> {
        let mut ours = State::default();
        self.nft.observe(&mut ours).map_err(unavailable("nftables"))?;
        let chains = self.nft.foreign_chains().map_err(unavailable("nftables"))?;
        let theirs = takeover::served_by_kube_proxy(&chains);
        Ok(ours.elements.keys().map(VirtualServerKey::family).filter(|family| !theirs.contains(family)).collect())
    }

    /// Leaves virtual servers and addresses to kube-proxy, which serves them again. Moves all addresses to the device
    /// that kube-proxy knows. Removes only the tables and the record.
    ///
    /// # Errors
    ///
    /// The first object that could not be removed. A second call continues from there.
    pub fn handover(&mut self) -> Result<(), KernelUnavailable> {
        self.addresses.gather().map_err(unavailable(self.device()))?;
        self.nft.remove().map_err(unavailable("nftables"))?;
        let Some(record) = &mut self.record else { return Ok(()) };
        record.remove().map_err(unavailable("the copy of the record of ownership"))
    }
}
