//! The takeover of a node from kube-proxy. [`crate::takeover`] makes the decisions.

use netlink_batch::Error;

use super::{LinuxKernel, ipset::IpSets, ipvs, unavailable};
use crate::{
    kernel::{Kernel, KernelUnavailable},
    model::VirtualServerKey,
    state::State,
    takeover::{self, AdoptedState, CleanupReport, IpsetKind, Kept, KubeProxyState, Leftovers, Preview, SERVICES},
};

/// The attempts to remove chains if another program, such as the kubelet, changes them concurrently.
const ATTEMPTS: usize = 3;

#[derive(Debug, Default)]
pub(super) struct Cleared {
    chains: usize,
    tables: usize,
    sets: usize,
}

impl LinuxKernel {
    /// Adopts kube-proxy's objects at the first read of the kernel.
    ///
    /// kube-proxy's ipsets identify these objects, and go only when kube-ipvs has recorded all of them. So if kube-ipvs
    /// is killed before that, it finds the sets again.
    pub(super) fn inherit(&mut self, state: &mut State) -> Result<(), KernelUnavailable> {
        if !self.settings.takeover {
            return Ok(());
        }
        if self.adopted_state.is_none() {
            let adopted_state = self.find_inheritance(state)?;
            self.adopted = adopted_state.servers.len() + adopted_state.vips.len();
            self.adopted_state = Some(adopted_state);
        }
        if let Some(AdoptedState { servers, vips }) = &mut self.adopted_state {
            // A program that makes a removed object again owns it.
            servers.retain(|key| state.virtual_servers.contains_key(key));
            vips.retain(|address| state.bound_vips.contains(address));
            state.owned.extend(servers.iter().copied());
            state.owned_vips.extend(vips.iter().copied());
        }
        Ok(())
    }

    fn find_inheritance(&mut self, state: &mut State) -> Result<AdoptedState, KernelUnavailable> {
        let kube_proxy = kube_proxy(&mut self.ipsets).map_err(unavailable("ipset"))?;
        if !kube_proxy.is_there() {
            return Ok(AdoptedState::default());
        }
        let missing = kube_proxy.servers().filter(|key| !state.virtual_servers.contains_key(key));
        let missing: Vec<VirtualServerKey> = missing.collect();
        ipvs::ask(&mut self.ipvs, state, missing).map_err(unavailable("IPVS"))?;
        let host = self.addresses.of_other_devices().map_err(unavailable(self.device()))?;
        let host = host.into_values().map(|host| host.address).collect();
        Ok(kube_proxy.leaves(&state.virtual_servers, &state.bound_vips, &host, &self.config))
    }

    /// Removes kube-proxy's leftovers: its chains and tables in nftables, then its ipsets. Call it when the kernel has
    /// the whole desired state. Until then kube-proxy's rules still do their work, and do not conflict with those of
    /// kube-ipvs.
    ///
    /// The report lists the objects that stay, with the reasons. After an error or a crash, another call continues.
    ///
    /// `None` if some sets are still in use: call it again soon, because nf_tables releases a rule's references some
    /// time after the rule is removed. It does not wait, because Services come first. Unless `is_patient`, sets in use
    /// count as another program's.
    ///
    /// # Errors
    ///
    /// If an object could not be read or removed: with the kernel's reason.
    pub fn remove_kube_proxy_leftovers(
        &mut self,
        is_patient: bool,
    ) -> Result<Option<CleanupReport>, KernelUnavailable> {
        let sizes = self.ipsets.sizes().map_err(unavailable("ipset"))?;
        let sets: Vec<String> = sizes.into_keys().filter(|name| takeover::holds(name).is_some()).collect();
        let mut leftovers = self.leftovers(&sets)?;
        if self.cleared.is_none() {
            if sets.is_empty() && leftovers.is_empty() {
                self.has_taken_over = true;
                return Ok(Some(CleanupReport::default()));
            }
            // Adopted objects are in nftables since the first sync. This call also writes them to the record's file.
            self.read_state(&State::default())?;
        }
        for attempt in 1.. {
            match self.nft.remove_foreign(&leftovers) {
                Ok(()) => break,
                Err(Error::Rejected(error)) if error.is_not_found() && attempt < ATTEMPTS => {
                    leftovers = self.leftovers(&sets)?;
                }
                Err(error) => {
                    return Err(unavailable("cannot remove kube-proxy's chains")(error));
                }
            }
        }
        let doomed = takeover::sets_to_destroy(&sets, &leftovers.health_checks());
        let busy = self.ipsets.destroy(&doomed).map_err(unavailable("cannot remove kube-proxy's ipsets"))?;
        let cleared = self.cleared.get_or_insert_default();
        cleared.chains += leftovers.chains.len();
        cleared.tables += leftovers.tables.len();
        cleared.sets += doomed.len() - busy.len();
        if !busy.is_empty() && is_patient {
            return Ok(None);
        }
        let emptied = takeover::sets_to_empty(&busy);
        self.ipsets.flush(&emptied).map_err(unavailable("cannot empty kube-proxy's ipsets"))?;
        let in_use = leftovers.sets_in_use(busy);
        if leftovers.has_dnat() {
            let state = self.read_state(&State::default())?;
            let deleted = self.conntrack.delete_misled(&state, &mut self.meter.flow_deletions);
            deleted.map_err(unavailable("cannot delete flows to endpoints that do not serve"))?;
        }
        let Cleared { chains, tables, sets } = self.cleared.take().unwrap_or_default();
        let adopted = std::mem::take(&mut self.adopted);
        self.adopted_state = Some(AdoptedState::default());
        self.has_taken_over = true;
        let kept: Vec<Kept> = leftovers.kept.into_iter().chain(in_use).collect();
        let is_services =
            |kept: &Kept| matches!(kept, Kept::ChainInUse { table, chain, .. } if (&**table, &**chain) == SERVICES);
        self.keeps_services = kept.iter().any(is_services);
        Ok(Some(CleanupReport { adopted, chains, tables, sets, kept }))
    }

    /// The objects that a takeover would adopt, remove and keep now. It changes nothing.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be read.
    pub fn preview_takeover(&mut self) -> Result<Preview, KernelUnavailable> {
        let mut state = State::default();
        ipvs::list(&mut self.ipvs, &mut state).map_err(unavailable("IPVS"))?;
        state.bound_vips = self.addresses.read().map_err(unavailable(self.device()))?;
        let AdoptedState { servers, vips } = self.find_inheritance(&mut state)?;
        let sizes = self.ipsets.sizes().map_err(unavailable("ipset"))?;
        let sets: Vec<String> = sizes.into_keys().filter(|name| takeover::holds(name).is_some()).collect();
        let chains = self.nft.foreign_chains().map_err(unavailable("nftables"))?;
        let mut leftovers = Leftovers::among(&chains, !sets.is_empty());
        leftovers.tables = self.nft.tables_of_kube_proxy().map_err(unavailable("nftables"))?;
        Ok(Preview {
            modes: takeover::modes(!sets.is_empty(), &chains, &leftovers.tables),
            servers,
            vips,
            sets: takeover::sets_to_destroy(&sets, &leftovers.health_checks()),
            chains: leftovers.chains.into_iter().map(|id| (id.family, id.table, id.name)).collect(),
            tables: leftovers.tables,
            kept: leftovers.kept,
        })
    }

    /// Whether kube-proxy serves this node, according to its ipsets, its rules and its tables. After
    /// [`remove_kube_proxy_leftovers`](Self::remove_kube_proxy_leftovers): whether it is back.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be read.
    pub fn is_kube_proxy_active(&mut self) -> Result<bool, KernelUnavailable> {
        let sizes = self.ipsets.sizes().map_err(unavailable("ipset"))?;
        if sizes.iter().any(|(name, size)| *size > 0 && tells(name)) {
            return Ok(true);
        }
        let tables = self.nft.tables_of_kube_proxy().map_err(unavailable("nftables"))?;
        let reached = self.nft.reaching_kube_proxy().map_err(unavailable("nftables"))?;
        Ok(!tables.is_empty() || !self.keeps_services && !reached.is_empty())
    }

    fn leftovers(&mut self, sets: &[String]) -> Result<Leftovers, KernelUnavailable> {
        let chains = self.nft.foreign_chains().map_err(unavailable("nftables"))?;
        let tables = self.nft.tables_of_kube_proxy().map_err(unavailable("nftables"))?;
        Ok(Leftovers { tables, ..Leftovers::among(&chains, !sets.is_empty()) })
    }
}

fn kube_proxy(ipsets: &mut IpSets) -> Result<KubeProxyState, Error> {
    let mut kube_proxy = KubeProxyState::default();
    for (name, size) in ipsets.sizes()? {
        if size == 0 || !tells(&name) {
            continue;
        }
        let Some(holds) = takeover::holds(&name) else { continue };
        ipsets.entries(&name)?.into_iter().for_each(|entry| kube_proxy.add(holds, entry));
    }
    Ok(kube_proxy)
}

/// Whether a set identifies objects that kube-proxy serves.
fn tells(name: &str) -> bool {
    takeover::holds(name).is_some_and(|holds| holds != IpsetKind::Other)
}
