//! When the engine reads the kernel, and what it learns from that.

use std::time::Duration;

use super::{Engine, decide::Scope};
use crate::{
    cluster::Claim,
    kernel::{Kernel, KernelUnavailable},
    model::VirtualServerKey,
    state::State,
};

/// The kernel is not read more often than this while nothing fails.
const SHORTEST_PERIOD: Duration = Duration::from_millis(100);

/// What reading the kernel has shown.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// What may be left in it of Services that are gone.
    pub(super) leftovers: Scope,
    /// What it was believed to have, if it was read.
    pub(super) believed: Option<State>,
    /// Whether it was read.
    pub(super) whole: bool,
}

impl Engine {
    /// Reads the kernel, if it is time to.
    pub(super) fn read_where_due(
        &mut self,
        kernel: &mut impl Kernel,
        now: Duration,
    ) -> Result<Reading, KernelUnavailable> {
        let mut reading = Reading::default();
        // After a failure the kernel is read when the retry is due, and not before.
        let due = self.retry.due().unwrap_or(self.next_audit) <= now;
        if due || self.verify.is_some_and(|verify| verify <= now) {
            self.verify = None;
            kernel.prepare()?;
            let nothing = State::default();
            let state = kernel.observe(self.known.as_ref().unwrap_or(&nothing))?;
            reading = self.observed(state);
            self.next_audit = now.saturating_add(self.config.sync_period.max(SHORTEST_PERIOD));
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

    /// Takes in what the kernel has. Every Service is to be compared with it.
    pub(super) fn observed(&mut self, mut state: State) -> Reading {
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
        Reading { leftovers, believed, whole: true }
    }
}
