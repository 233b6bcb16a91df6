//! An engine, its kernel and its schedule. Pure: the caller supplies the time.

use std::time::Duration;

use crate::{
    engine::{Completeness, Engine, SyncReport},
    kernel::Kernel,
    model::Event,
    schedule::{Drift, Schedule},
};

/// An [`Engine`] and the [`Kernel`] that it keeps in the desired state. It knows when a sync is due.
///
/// It has no clock. The caller passes each time as the time since one moment of its choice. [`Runner`](crate::Runner)
/// is the loop with Linux's kernel and a clock.
#[derive(Debug)]
pub struct Loop<K> {
    engine: Engine,
    kernel: K,
    schedule: Schedule,
}

impl<K: Kernel> Loop<K> {
    /// The loop of an engine and a kernel that was opened with the engine's [`Config`](crate::Config).
    pub fn new(engine: Engine, kernel: K) -> Self {
        let schedule = Schedule::new(engine.config().min_sync_period);
        Self { engine, kernel, schedule }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The kernel.
    pub fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// The engine and the kernel, for a program that needs both at once.
    pub fn parts(&mut self) -> (&Engine, &mut K) {
        (&self.engine, &mut self.kernel)
    }

    /// Takes in an event. The next sync is due at once, or after
    /// [`Config::min_sync_period`](crate::Config::min_sync_period).
    pub fn apply(&mut self, event: Event) {
        self.schedule.input();
        self.engine.apply(event);
    }

    /// Sets whether all objects that exist are known: see [`Engine::set_complete`]. Nothing is synced before the first
    /// call, so that no sync sees a Service without its EndpointSlices. Call it after the events of the first lists.
    pub fn set_complete(&mut self, completeness: Completeness) {
        self.schedule.set_source();
        self.schedule.input();
        self.engine.set_complete(completeness);
    }

    /// Takes in notices that another program may have changed the kernel. A sync reads the kernel soon. While such
    /// notices go on, syncs read it less and less often.
    pub fn notify(&mut self, drifts: &[Drift], now: Duration) {
        let is_ours = |drift: &Drift| match drift {
            Drift::Any => true,
            Drift::Gateways => false,
            // If a sync unbound the address, the engine does not count it as bound when the notice arrives.
            Drift::Unbound(address) => self.engine.has_bound(*address),
        };
        if drifts.iter().any(is_ours) {
            self.engine.verify_at(self.schedule.drift(now));
        }
        if drifts.contains(&Drift::Gateways) {
            self.engine.verify_at(self.schedule.gateways(now));
        }
    }

    /// When the next sync is due if no input comes. None until the first [`set_complete`](Self::set_complete).
    pub fn due(&self) -> Option<Duration> {
        self.schedule.due(self.engine.next_sync())
    }

    /// Syncs the objects that are known so far, although not all are: for a Service that must not wait for the others.
    /// Before the first [`set_complete`](Self::set_complete), this removes no state of other Services. The next sync
    /// reads the whole kernel.
    pub fn sync_early(&mut self, now: Duration) -> SyncReport {
        let report = self.engine.sync(&mut self.kernel, now);
        // The next sync compares everything, because this one cannot know which state is stale.
        self.engine.verify_at(Duration::ZERO);
        report
    }

    /// Syncs if a sync is due. Reads `clock` at the beginning and at the end of the sync.
    pub fn sync_if_due(&mut self, clock: impl Fn() -> Duration) -> Option<SyncReport> {
        let now = clock();
        if self.due()? > now {
            return None;
        }
        self.schedule.begin();
        let report = self.engine.sync(&mut self.kernel, now);
        if !report.plan.is_empty() {
            self.schedule.changed(clock());
        }
        Some(report)
    }
}
