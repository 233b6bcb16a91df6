//! The end of kube-ipvs on a node: it removes its state, or hands it over to kube-proxy.

use std::collections::BTreeMap;

use ipvs_netlink::Destination;

use super::{LinuxKernel, unavailable};
use crate::{
    kernel::{Kernel, KernelUnavailable},
    model::{Family, Protocol, VirtualServerKey},
    plan::{Change, Plan},
    state::State,
    takeover::{self, AdoptedState, KubeProxyMode},
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
        let state = self.read_state(&State::default())?;
        let recorded = |key: &VirtualServerKey| state.is_recorded(key);
        let servers: Vec<VirtualServerKey> = state.virtual_servers.keys().copied().filter(recorded).collect();
        let removed = servers.iter().copied().map(Change::RemoveVirtualServer);
        let vips = state.recorded_vips.union(&state.owned_vips).copied();
        let bound = vips.filter(|address| state.bound_vips.contains(address)).map(Change::Unbind);
        let plan = self.carry_out(Plan::new(removed.chain(bound).collect()))?;
        // Without IPVS, conntrack would send further datagrams of these flows to the VIP itself.
        let deleted = self.conntrack.delete_flows_through_ipvs(&servers, &state, &mut self.meter.flow_deletions);
        deleted.map_err(unavailable("cannot delete flows of UDP"))?;
        self.nft.remove().map_err(unavailable("nftables"))?;
        self.addresses.remove().map_err(unavailable(self.device()))?;
        Ok(plan)
    }

    /// Makes IPVS schedule no new connections to virtual servers of kube-ipvs, and keep the open ones. Returns the
    /// number of connections over TCP and SCTP that are left.
    ///
    /// # Errors
    ///
    /// If the kernel could not be read, and the first real server that could not be changed.
    pub fn drain_all(&mut self) -> Result<u64, KernelUnavailable> {
        self.adopted_state = Some(AdoptedState::default());
        let state = self.read_state(&State::default())?;
        let own = || state.virtual_servers.iter().filter(|(key, _)| state.is_recorded(key));
        let real_servers = own().flat_map(|(key, server)| server.real_servers.iter().map(move |real| (*key, real)));
        let serving = real_servers.filter(|(_, (_, destination))| destination.weight != 0);
        let drained = serving.map(|(key, (address, destination))| Change::UpdateRealServer {
            key,
            address: *address,
            destination: Destination { weight: 0, ..*destination },
        });
        self.carry_out(Plan::new(drained.collect()))?;
        let keys: Vec<VirtualServerKey> = own().map(|(key, _)| *key).collect();
        let connected: Vec<_> = keys.into_iter().filter(|key| key.protocol != Protocol::Udp).collect();
        Ok(self.connections(&connected)?.values().sum())
    }

    fn carry_out(&mut self, plan: Plan) -> Result<Plan, KernelUnavailable> {
        if let Some(failure) = self.apply(&plan).failures.first() {
            let change = plan.changes()[failure.change].to_string();
            return Err(KernelUnavailable::new(change, failure.reason.clone()));
        }
        Ok(plan)
    }

    /// The families that kube-ipvs serves, and the mode in which kube-proxy serves each of them, according to nftables.
    /// `None`: not yet. There, a [`handover`](Self::handover) would leave Services without rules. Rules of legacy
    /// iptables are not visible.
    ///
    /// # Errors
    ///
    /// If nftables cannot be read.
    pub fn kube_proxy_serves(&mut self) -> Result<BTreeMap<Family, Option<KubeProxyMode>>, KernelUnavailable> {
        let mut ours = State::default();
        self.nft.read_into(&mut ours).map_err(unavailable("nftables"))?;
        let chains = self.nft.foreign_chains().map_err(unavailable("nftables"))?;
        let tables = self.nft.tables_of_kube_proxy().map_err(unavailable("nftables"))?;
        let theirs = takeover::served_by_kube_proxy(&chains, &tables);
        let families = ours.elements.keys().map(VirtualServerKey::family);
        Ok(families.map(|family| (family, theirs.get(&family).copied())).collect())
    }

    /// Leaves virtual servers and addresses to kube-proxy's ipvs mode, which serves them again. Moves all addresses to
    /// the device that kube-proxy knows. Removes only the tables and the record.
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
