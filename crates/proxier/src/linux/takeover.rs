//! Taking the node over from kube-proxy's ipvs mode: see [`crate::takeover`] for what is decided.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use netlink_batch::Error;

use super::{LinuxKernel, addresses::DEVICE, ipset::IpSets, record::Owned, unusable};
use crate::{
    kernel::{Kernel, Unusable},
    plan::Change,
    set::KeySet,
    state::State,
    takeover::{self, ClearedOut, Holds, Inheritance, Kept, Leftovers, Predecessor, TakeOver},
};

/// How often chains are read again that somebody changes while we remove them: the kubelet writes rules too.
const ATTEMPTS: usize = 3;
/// How long nf_tables may hold on to the sets of rules that we removed, and of those that whoever was here before us removed.
const LETS_GO_AFTER_US: Duration = Duration::from_secs(5);
const LETS_GO: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(20);

impl LinuxKernel {
    /// Takes in what kube-proxy made, the first time that the kernel is read. It is ours from then on; its sets, which say so, go when
    /// everything is in our own record, so that whoever is killed in between finds them again.
    pub(super) fn inherit(&mut self, state: &mut State) -> Result<(), Unusable> {
        let Some(take_over) = self.settings.take_over.clone() else { return Ok(()) };
        if self.inheritance.is_none() {
            let inheritance = self.find_inheritance(state, &take_over)?;
            self.adopted = inheritance.servers.len() + inheritance.vips.len();
            self.inheritance = Some(inheritance);
        }
        if let Some(Inheritance { servers, vips }) = &mut self.inheritance {
            // What is gone is nobody's: whoever makes it anew has it.
            servers.retain(|key| state.virtual_servers.contains_key(key));
            vips.retain(|address| state.bound_vips.contains(address));
            state.owned.extend(servers.iter().copied());
            state.owned_vips.extend(vips.iter().copied());
        }
        Ok(())
    }

    fn find_inheritance(&mut self, state: &State, take_over: &TakeOver) -> Result<Inheritance, Unusable> {
        let predecessor = predecessor(&mut self.ipsets).map_err(unusable("ipset"))?;
        if !predecessor.is_there() {
            return Ok(Inheritance::default());
        }
        let host = self.addresses.of_other_devices().map_err(unusable(DEVICE))?;
        Ok(predecessor.leaves(&state.virtual_servers, &state.bound_vips, &host, take_over))
    }

    /// Removes what kube-proxy left: its chains in nftables, then its ipsets. To be called when the kernel has all that is wanted: until
    /// then its rules go on doing their part, and they do no harm beside ours.
    ///
    /// What stays is in the result, with the reasons. Calling it again, also after having been killed, goes on from there.
    ///
    /// # Errors
    ///
    /// When something could not be read or removed, in the kernel's words.
    pub fn clear_out(&mut self) -> Result<ClearedOut, Unusable> {
        let sizes = self.ipsets.sizes().map_err(unusable("ipset"))?;
        let sets: Vec<String> = sizes.into_keys().filter(|name| takeover::holds(name).is_some()).collect();
        let mut leftovers = self.leftovers(&sets)?;
        if sets.is_empty() && leftovers.chains.is_empty() && leftovers.kept.is_empty() {
            return Ok(ClearedOut::default());
        }
        self.copy_record()?;
        for attempt in 1.. {
            match self.nft.remove_foreign(&leftovers) {
                Ok(()) => break,
                Err(Error::Rejected(error)) if error.is_absent() && attempt < ATTEMPTS => {
                    leftovers = self.leftovers(&sets)?;
                }
                Err(error) => return Err(Unusable(format!("cannot remove kube-proxy's chains: {error}"))),
            }
        }
        let doomed = takeover::sets_to_destroy(&sets, &leftovers.health_checks());
        let has_removed = !(leftovers.rules.is_empty() && leftovers.chains.is_empty());
        let patience = if has_removed { LETS_GO_AFTER_US } else { LETS_GO };
        let busy =
            self.destroy_sets(&doomed, patience).map_err(unusable("cannot remove kube-proxy's ipsets"))?;
        let mut kept = leftovers.kept;
        if !busy.is_empty() {
            let emptied = takeover::sets_to_empty(&busy);
            self.ipsets.flush(&emptied).map_err(unusable("cannot empty kube-proxy's ipsets"))?;
        }
        let removed = doomed.len() - busy.len();
        if !busy.is_empty() {
            kept.push(Kept::Legacy { sets: busy });
        }
        let adopted = std::mem::take(&mut self.adopted);
        self.inheritance = Some(Inheritance::default());
        Ok(ClearedOut { adopted, chains: leftovers.chains.len(), sets: removed, kept })
    }

    /// Whether kube-proxy serves this node, by its sets: after [`clear_out`](Self::clear_out) that it is back.
    ///
    /// # Errors
    ///
    /// When the sets cannot be read.
    pub fn is_kube_proxy_at_work(&mut self) -> Result<bool, Unusable> {
        let sizes = self.ipsets.sizes().map_err(unusable("ipset"))?;
        Ok(sizes.iter().any(|(name, size)| *size > 0 && tells(name)))
    }

    /// Leaves virtual servers and addresses to kube-proxy, which serves them again: removes our tables and our record, and nothing else.
    ///
    /// # Errors
    ///
    /// The first thing that could not be removed. Calling it again goes on from there.
    pub fn hand_over(&mut self) -> Result<(), Unusable> {
        self.nft.remove().map_err(unusable("nftables"))?;
        let Some(record) = &mut self.record else { return Ok(()) };
        record.remove().map_err(unusable("the record of what is ours"))
    }

    /// Removes sets. Returns those that are in use: not only for now, as nf_tables lets go of what a rule held some time after the rule is gone.
    fn destroy_sets(&mut self, sets: &[String], patience: Duration) -> Result<Vec<String>, Error> {
        let start = Instant::now();
        let mut busy = self.ipsets.destroy(sets)?;
        while !busy.is_empty() && start.elapsed() < patience {
            thread::sleep(PAUSE);
            busy = self.ipsets.destroy(&busy)?;
        }
        Ok(busy)
    }

    fn leftovers(&mut self, sets: &[String]) -> Result<Leftovers, Unusable> {
        let chains = self.nft.foreign_chains().map_err(unusable("nftables"))?;
        Ok(Leftovers::among(&chains, !sets.is_empty()))
    }

    /// Copies our record in nftables to its file: what was inherited is in the one since the first sync, and not yet in the other.
    fn copy_record(&mut self) -> Result<(), Unusable> {
        let state = self.observe()?;
        let Some(record) = &mut self.record else { return Ok(()) };
        let Owned { servers, vips } = record.read().map_err(unusable("the record of what is ours"))?;
        let served = state.elements.iter().filter(|(_, entry)| entry.sets.contains(KeySet::Served));
        let missing: BTreeSet<_> = served.map(|(key, _)| *key).filter(|key| !servers.contains(key)).collect();
        let there = missing.iter().filter_map(|key| Some((*key, state.virtual_servers.get(key)?.config)));
        let servers = there.map(|(key, config)| Change::AddServer { key, config });
        let vips =
            state.recorded_vips.intersection(&state.bound_vips).filter(|address| !vips.contains(*address));
        let changes: Vec<Change> = servers.chain(vips.copied().map(Change::Bind)).collect();
        record.intend(changes.iter()).map_err(unusable("the record of what is ours"))
    }
}

/// What kube-proxy's sets say.
fn predecessor(ipsets: &mut IpSets) -> Result<Predecessor, Error> {
    let mut predecessor = Predecessor::default();
    for (name, size) in ipsets.sizes()? {
        if size == 0 || !tells(&name) {
            continue;
        }
        let Some(holds) = takeover::holds(&name) else { continue };
        ipsets.entries(&name)?.into_iter().for_each(|entry| predecessor.add(holds, entry));
    }
    Ok(predecessor)
}

/// Whether a set is one of kube-proxy's that say what it serves.
fn tells(name: &str) -> bool {
    takeover::holds(name).is_some_and(|holds| holds != Holds::Other)
}
