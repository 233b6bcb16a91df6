//! After each sync: the invariants hold.

use std::{mem::take, time::Duration};

use proxier::{State, SyncReport, fake::MadeChange, linux::Drift, model::Family, plan::Change};

use super::{
    super::{
        Violation,
        clients::Facts,
        daemon::{Daemon, HEALTH_PERIOD},
        rules::{self, Access},
        settle::difference,
    },
    Simulation,
};

impl Simulation<'_> {
    pub(super) fn after_sync(&mut self, report: &SyncReport) -> Result<(), Violation> {
        self.statistics.syncs += 1;
        self.statistics.changes += report.plan.changes().len();
        if self.is_idle && !report.plan.is_empty() {
            return Err(Violation::new("idle", format!("a sync that has nothing to do plans\n{}", report.plan)));
        }
        if report.is_full {
            self.is_misled = take(&mut self.has_gaps);
            self.is_gappy = self.is_misled;
            self.is_outdated = false;
        }
        let made = self.kernel().made.replace(Vec::new()).unwrap_or_default();
        let failed = |change: &Change| report.failures.iter().any(|failure| failure.change == *change);
        self.is_misled |= made.iter().any(|made| made.by_other_program || failed(&made.change));
        // If the answer is lost, the engine counts an element as removed, and an address as bound.
        let is_assumed = |change: &Change| matches!(change, Change::RemoveElement { .. } | Change::Bind(_));
        self.is_misled |= report.failures.iter().any(|failure| is_assumed(&failure.change));
        self.check_made(report, &made)?;
        report.failures.iter().for_each(|failure| self.clients.failed(&failure.change));
        if take(&mut self.kernel().is_killed) {
            self.statistics.kills += 1;
            self.restart();
            return Ok(());
        }
        let has_changed = !report.plan.is_empty() || report.is_full;
        if has_changed || take(&mut self.has_news) {
            self.has_news = report.unavailable.is_some();
            if !self.has_news {
                let Self { clients, daemon, .. } = self;
                clients.synced(daemon.looper.kernel(), &daemon.known);
            }
        }
        if has_changed {
            self.check_state(report)?;
        }
        let moment = self.moment();
        self.daemon.record_health(report, moment);
        // The kernel does not report which program unbound an IPv6 address, so kube-ipvs also receives its own changes.
        let unbound = made.iter().filter_map(|made| match made.change {
            Change::Unbind(address) if Family::of(address) == Family::V6 => Some(Drift::Unbound(address)),
            _ => None,
        });
        self.notice(&unbound.collect::<Vec<_>>());
        if made.iter().any(|made| made.by_other_program) {
            self.notice(&[Drift::Any]);
        }
        Ok(())
    }

    /// Checks each change that the kernel made during a sync.
    pub(super) fn check_made(&mut self, report: &SyncReport, all: &[MadeChange]) -> Result<(), Violation> {
        // If the answer to a new virtual server is lost, the engine assumes that kube-ipvs owns it.
        let taken = self.daemon.looper.engine().known().map(|known| known.owned.clone()).unwrap_or_default();
        let mut copy = self.kernel().record_copy.clone().unwrap_or_default();
        copy.servers.extend(&taken);
        // Before its changes, the engine makes missing tables and a missing device.
        let (tables, device) = (self.kernel().elements.is_some(), self.kernel().addresses.is_some());
        self.shadow.elements = self.shadow.elements.take().or_else(|| tables.then(Default::default));
        self.shadow.addresses = self.shadow.addresses.take().or_else(|| device.then(Default::default));
        self.is_outdated |= all.iter().any(|made| made.by_other_program);
        for MadeChange { change, by_other_program } in all {
            if *by_other_program {
                self.clients.changed_by_others(change);
                self.shadow.make_as_other_program(change);
                self.foreign.made(change);
                let mut unmade = report.failures.iter().map(|failure| &failure.change);
                let is_unmade = unmade.any(|failed| failed.key() == change.key());
                self.foreign.servers.retain(|key, _| !is_unmade || !taken.contains(key));
                continue;
            }
            let Self {
                clients, cluster, daemon, now, world, foreign, shadow, is_misled, is_outdated, is_gappy, ..
            } = self;
            // If another program has changed the kernel since the last complete read, the engine cannot know the state.
            let is_informed = !*is_outdated;
            if is_informed {
                rules::check_order(change, report, shadow, foreign, &copy)?;
            }
            if let Change::Bind(address) = change
                && is_informed
                && !*is_misled
                && rules::opens_listener(*address, shadow, &daemon.known)
            {
                let text = format!("{change}: a port of it would lead to this node's own listener");
                return Err(Violation::new("listener", text));
            }
            let facts = Facts {
                cluster,
                known: &daemon.known,
                now: *now,
                drain: Duration::from_secs(world.drain),
                kernel: shadow,
                is_misled: *is_misled,
            };
            clients.changed(change, &facts)?;
            let before = change.key().map(|key| (key, Access::to(key, shadow)));
            shadow.make_as_other_program(change);
            // A list with gaps can lack a source range that an earlier process left behind.
            if let Some((key, before)) = before.filter(|_| is_informed && !*is_gappy) {
                rules::check_access(change, &before, &Access::to(key, shadow), key, &daemon.known)?;
            }
        }
        let Self { daemon, foreign, .. } = self;
        foreign.check(daemon.looper.kernel())
    }

    fn check_state(&mut self, report: &SyncReport) -> Result<(), Violation> {
        if self.is_misled {
            return Ok(());
        }
        let Self { daemon, foreign, cannot_reject, .. } = self;
        let Daemon { looper, known, .. } = daemon;
        let (engine, kernel) = looper.parts();
        let rejects = |text: &String| "+ element no-endpoints {".contains(&**text);
        // If the kernel takes no `no-endpoints` elements either, kube-ipvs cannot reject the connections.
        *cannot_reject =
            kernel.reject.iter().chain(&kernel.unanswered).any(rejects) || *cannot_reject && !report.is_full;
        let mut bound = kernel.addresses.iter().flatten().copied().filter(|_| !*cannot_reject);
        if let Some(address) = bound.find(|address| rules::opens_listener(*address, kernel, known)) {
            let text = format!("{address} has a port that leads to this node's own listener, after\n{}", report.plan);
            return Err(Violation::new("listener", text));
        }
        let mut state = kernel.state();
        state.virtual_servers.retain(|key, _| !foreign.servers.contains_key(key));
        let Some(known) = engine.known() else { return Ok(()) };
        // The kernel's state does not contain the copy of the record.
        let known = State { owned: [].into(), owned_vips: [].into(), ..known.clone() };
        if known == state {
            return Ok(());
        }
        let difference = difference(&known, &state);
        let text = format!("the engine is wrong about the kernel:\n{difference}after\n{}", report.plan);
        Err(Violation::new("known", text))
    }

    pub(super) fn check_health(&mut self) -> Result<(), Violation> {
        /// The pause of a minute between retries, twice the sync period of health, and some room.
        const LIMIT: Duration = Duration::from_secs(180);
        let is_healthy = self.daemon.report(self.moment()).healthy;
        let passed = |since: Duration| self.now.saturating_sub(since);
        let says = |text| Err(Violation::new("health", text));
        if !is_healthy && passed(self.calm) >= LIMIT {
            return says(format!("unhealthy, although nothing has been wrong for {:?}", passed(self.calm)));
        }
        let is_late = self.daemon.queued.is_some_and(|since| passed(since) >= 2 * HEALTH_PERIOD);
        if is_healthy && is_late {
            return says("healthy, although an update waits".into());
        }
        // Without virtual servers there are no spot checks, only the periodic reads of the whole kernel.
        let has_spot_checks = self.daemon.looper.engine().counts().virtual_servers > 0;
        let next_read = if has_spot_checks { Duration::ZERO } else { Duration::from_secs(self.world.period) };
        if is_healthy && self.unreadable.is_some_and(|since| passed(since) >= LIMIT + next_read) {
            return says("healthy, although the kernel cannot be read".into());
        }
        Ok(())
    }
}
