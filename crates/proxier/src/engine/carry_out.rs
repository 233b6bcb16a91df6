//! Applies a plan, and learns from its report.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Engine, FailedChange, SyncReport, decide::Decision};
use crate::{
    cluster::Claim,
    kernel::{Cause, Failure, Kernel, Report},
    plan::Change,
    state::State,
};

impl Engine {
    /// `believed`: the state that the engine expected before it read the kernel, if it did.
    pub(super) fn carry_out(
        &mut self,
        Decision { plan, skipped, health_checks, released, is_full }: Decision,
        believed: Option<&State>,
        kernel: &mut impl Kernel,
        now: Duration,
    ) -> SyncReport {
        let had = |change: &&Change| believed.is_some_and(|believed| believed.has(change));
        let drifted = plan.changes().iter().filter(had).count();
        let Report { failures, amended } = if plan.is_empty() { Report::default() } else { kernel.apply(&plan) };
        let mut rejections: BTreeMap<usize, Failure> =
            failures.into_iter().map(|failure| (failure.change, failure)).collect();
        let (mut done, mut failures) = (Vec::with_capacity(plan.changes().len()), Vec::new());
        let (mut taken, mut unlisted) = (false, BTreeSet::new());
        for (number, change) in plan.changes().iter().enumerate() {
            let Some(Failure { cause, reason, .. }) = rejections.remove(&number) else {
                done.push(change);
                continue;
            };
            self.pending_flow_deletes.note(change);
            match (cause, change) {
                // The virtual server was recorded or known before this plan, so it is ours. Linux has one IPVS table
                // for all network namespaces, and a list can omit entries while another namespace makes changes.
                (Cause::Exists, Change::AddVirtualServer { key, .. })
                    if self.known.as_ref().is_some_and(|known| known.is_recorded(key))
                        || believed.is_some_and(|before| before.virtual_servers.contains_key(key)) =>
                {
                    unlisted.insert(*key);
                }
                // Another program has this key. The engine removes its record of it at once.
                (Cause::Exists, Change::AddVirtualServer { key, .. }) => {
                    self.disowned.insert(*key);
                    taken = true;
                }
                (
                    Cause::NoScheduler,
                    Change::AddVirtualServer { config, .. } | Change::UpdateVirtualServer { config, .. },
                ) if config.scheduler != self.cluster.config.scheduler => {
                    self.cluster.record_missing(config.scheduler);
                    taken = true;
                }
                // If the next read finds the virtual server, it is ours. Until then its Service can go together with
                // its record, or another program can empty nftables.
                (Cause::Unknown, Change::AddVirtualServer { key, .. }) => {
                    self.known.iter_mut().for_each(|known| known.owned.extend([*key]));
                }
                // Until the next read, the engine assumes that the element is gone. If a Service needs it again, the
                // engine writes it again. Otherwise a virtual server could lack its source ranges.
                (Cause::Unknown, Change::RemoveElement { .. }) => {
                    self.known.iter_mut().for_each(|known| known.apply(change));
                }
                // Until the next read, the engine assumes that the address is bound. If no Service needs it any more,
                // the engine unbinds it. Otherwise this node could answer for it.
                (Cause::Unknown, Change::Bind(address)) => {
                    self.known.iter_mut().for_each(|known| {
                        known.apply(change);
                        known.owned_vips.insert(*address);
                    });
                }
                (_, Change::Unbind(address)) => {
                    self.known.iter_mut().for_each(|known| known.owned_vips.extend([*address]));
                }
                _ => {}
            }
            if change.key().is_some_and(|key| unlisted.contains(&key)) {
                continue;
            }
            let holder = change.key().and_then(|key| self.cluster.holder(&Claim::VirtualServer(key)));
            let service = holder.map(|holder| holder.port.clone());
            failures.push(FailedChange { service, change: change.clone(), reason });
        }
        self.done(&done);
        self.done(&amended.iter().collect::<Vec<_>>());
        self.known.iter_mut().for_each(|known| known.owned.extend(&unlisted));
        match (failures.is_empty() && unlisted.is_empty(), taken) {
            (true, _) => self.retry.done(),
            (false, true) => self.retry.at_once(now),
            (false, false) => self.retry.failed(now),
        }
        let skipped = skipped.into_iter().collect();
        SyncReport { plan, failures, skipped, unavailable: None, health_checks, is_full, drifted, released }
    }

    fn done(&mut self, changes: &[&Change]) {
        for change in changes {
            match change {
                Change::AddVirtualServer { key, .. } => {
                    self.disowned.remove(key);
                }
                Change::DeleteFlows { .. } => self.pending_flow_deletes.done(change),
                Change::RemoveVirtualServer(key) => self.drains.forget_server(*key),
                Change::RemoveRealServer { key, address } => self.drains.forget(*key, *address),
                _ => {}
            }
        }
        self.known.iter_mut().for_each(|known| known.apply_all(changes));
    }
}
