//! When the engine reads the kernel, and how it learns from the result.

use std::time::Duration;

use super::{Engine, decide::Scope};
use crate::{
    cluster::Claim,
    kernel::{Kernel, KernelUnavailable},
    model::VirtualServerKey,
    state::State,
};

/// The shortest interval between reads of the kernel while nothing fails.
const SHORTEST_PERIOD: Duration = Duration::from_millis(100);

/// For each such number of objects, the engine waits one more sync period between periodic reads of the whole kernel.
/// So the reads take about the same share of a processor in a cluster of any size.
const AUDITED_OBJECTS: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct Reading {
    /// State in the kernel that can be left over from removed Services.
    pub(super) leftovers: Scope,
    /// The state that the engine expected, if it read the kernel.
    pub(super) believed: Option<State>,
    pub(super) is_full: bool,
}

impl Engine {
    pub(super) fn read_where_due(
        &mut self,
        kernel: &mut impl Kernel,
        now: Duration,
    ) -> Result<Reading, KernelUnavailable> {
        let mut reading = Reading::default();
        let due = match self.retry.due() {
            // After a failure the engine reads the kernel when the retry is due, and not before.
            Some(retry) => retry <= now,
            None => self.is_read_due(kernel, now)?,
        };
        if due || self.verify.is_some_and(|verify| verify <= now) {
            self.verify = None;
            kernel.prepare()?;
            let nothing = State::default();
            let state = kernel.read_state(self.known.as_ref().unwrap_or(&nothing))?;
            reading = self.learn(state);
            self.next_settings = now.saturating_add(self.period());
            self.spot_check.restart(now);
            self.retry.started();
        }
        let mut over = self.drains.ended(now);
        let draining = self.drains.due(now);
        if !draining.is_empty() {
            over.extend(self.drains.counted(&kernel.connections(&draining)?, now));
        }
        for key in over {
            self.cluster.mark_owner_dirty(&Claim::VirtualServer(key));
        }
        Ok(reading)
    }

    fn period(&self) -> Duration {
        self.cluster.config.sync_period.max(SHORTEST_PERIOD)
    }

    /// The interval from a read of the whole kernel to the next periodic one.
    pub(super) fn audit_interval(&self) -> Duration {
        let objects = self.known.as_ref().map_or(0, State::objects);
        self.period().saturating_mul(u32::try_from(objects / AUDITED_OBJECTS).unwrap_or(u32::MAX).saturating_add(1))
    }

    /// Whether to read the whole kernel: a period is over, or a spot check finds a difference. Also corrects the
    /// kernel's settings, if that is due.
    ///
    /// Checks delay no change: if changes wait, the next sync checks. If they come without a pause, a check waits for
    /// at most a period.
    fn is_read_due(&mut self, kernel: &mut impl Kernel, now: Duration) -> Result<bool, KernelUnavailable> {
        let Some(known) = &self.known else { return Ok(true) };
        let due = self.next_audit.min(self.next_settings).min(self.spot_check.due());
        if self.cluster.is_dirty() && now < due.saturating_add(self.period()) {
            return Ok(false);
        }
        if self.next_audit <= now {
            return Ok(true);
        }
        if self.next_settings <= now {
            self.next_settings = now.saturating_add(self.period());
            kernel.correct_settings()?;
        }
        self.spot_check.finds_difference(kernel, known, now)
    }

    /// Takes in the kernel's state, and marks every Service for comparison with it.
    pub(super) fn learn(&mut self, mut state: State) -> Reading {
        let believed = self.known.take();
        let nothing = State::default();
        let before = believed.as_ref().unwrap_or(&nothing);
        self.disowned.retain(|key| state.virtual_servers.contains_key(key));
        let had = |key: &VirtualServerKey| before.virtual_servers.contains_key(key) || before.owned.contains(key);
        let ours = |key: &VirtualServerKey| (state.is_recorded(key) || had(key)) && !self.disowned.contains(key);
        self.foreign = state.virtual_servers.keys().copied().filter(|key| !ours(key)).collect();
        state.virtual_servers.retain(|key, _| !self.foreign.contains(key));
        let mut leftovers = self.doubt.leftovers(&state, before);
        leftovers.keys.extend(&self.foreign);
        self.drains.retain(|key, address| {
            state.virtual_servers.get(key).is_some_and(|server| server.real_servers.contains_key(address))
        });
        self.cluster.mark_all();
        self.known = Some(state);
        Reading { leftovers, believed, is_full: true }
    }
}
