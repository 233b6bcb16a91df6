//! When the next sync is due. Time is given from outside, as the time since any fixed moment.

mod pace;

use std::{net::IpAddr, time::Duration};

use pace::Pace;

/// State that another program may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Drift {
    /// A table or the device of kube-ipvs. After lost notices, any state may have changed.
    Any,
    /// A default route, and with it possibly a gateway in the rules.
    Gateways,
    /// This address was removed from a device. It is drift if the address belongs on the kube-ipvs device.
    Unbound(IpAddr),
}

/// When the owner of an engine syncs.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// How long a sync that changed something delays the next one.
    min_sync_period: Duration,
    /// No sync starts before.
    earliest: Duration,
    /// Until the source has delivered its objects, a sync would take the others for deleted.
    has_source: bool,
    /// Whether input came after the last sync.
    has_input: bool,
    drift: Pace,
    /// Default routes have a pace of their own: one that flaps does not delay the repair of a table.
    gateways: Pace,
}

impl Schedule {
    pub(crate) fn new(min_sync_period: Duration) -> Self {
        Self { min_sync_period, ..Self::default() }
    }

    /// The source has delivered its objects.
    pub(crate) fn set_source(&mut self) {
        self.has_source = true;
    }

    /// Something changed that the next sync must take in.
    pub(crate) fn input(&mut self) {
        self.has_input = true;
    }

    /// Another program changed something. Returns when to read the kernel.
    pub(crate) fn drift(&mut self, now: Duration) -> Duration {
        self.drift.notice(now)
    }

    /// A default route changed. Returns when to read the kernel.
    pub(crate) fn gateways(&mut self, now: Duration) -> Duration {
        self.gateways.notice(now)
    }

    /// When to sync. The engine is to sync at `of_engine` if no input comes. None: the source has not delivered yet.
    pub(crate) fn due(&self, of_engine: Duration) -> Option<Duration> {
        let due = if self.has_input { Duration::ZERO } else { of_engine };
        self.has_source.then(|| due.max(self.earliest))
    }

    /// A sync begins, which takes in all input so far.
    pub(crate) fn begin(&mut self) {
        self.has_input = false;
    }

    /// A sync that changed something has ended.
    pub(crate) fn changed(&mut self, now: Duration) {
        self.earliest = now.saturating_add(self.min_sync_period);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGINE: Duration = Duration::from_secs(30);
    const NOW: Duration = Duration::from_secs(3);

    #[test]
    fn no_sync_is_due_before_the_source_has_delivered() {
        let mut schedule = Schedule::default();
        schedule.input();
        assert_eq!(schedule.due(ENGINE), None);
        schedule.set_source();
        assert_eq!(schedule.due(ENGINE), Some(Duration::ZERO));
    }

    #[test]
    fn without_input_the_engine_sets_the_time() {
        let mut schedule = Schedule::default();
        schedule.set_source();
        schedule.input();
        schedule.begin();
        assert_eq!(schedule.due(ENGINE), Some(ENGINE));
    }

    #[test]
    fn a_change_delays_the_next_sync_by_the_minimum_period() {
        let mut schedule = Schedule::new(Duration::from_secs(2));
        schedule.set_source();
        schedule.input();
        schedule.changed(NOW);
        schedule.input();
        assert_eq!(schedule.due(ENGINE), Some(Duration::from_secs(5)));
        assert_eq!(schedule.due(Duration::ZERO), Some(Duration::from_secs(5)));
        assert_eq!(Schedule { has_input: false, ..schedule }.due(ENGINE), Some(ENGINE));
    }

    #[test]
    fn the_longest_minimum_period_puts_off_the_next_sync_for_ever() {
        let mut schedule = Schedule::new(Duration::MAX);
        schedule.set_source();
        schedule.changed(NOW);
        schedule.input();
        assert_eq!(schedule.due(Duration::ZERO), Some(Duration::MAX));
    }

    #[test]
    fn a_flapping_default_route_does_not_delay_the_repair_of_drift() {
        let mut schedule = Schedule::default();
        let first = schedule.drift(NOW);
        let mut flapping = Schedule::default();
        (0..5).fold(Duration::ZERO, |now, _| flapping.gateways(now));
        assert_eq!(flapping.drift(NOW), first);
    }
}
