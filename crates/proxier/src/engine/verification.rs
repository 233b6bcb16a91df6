//! Verification at rest: the engine compares its last known state with the kernel, in small steps.
//!
//! IPVS reports no changes, so the engine reads a few virtual servers at each step. One pass over all of them takes
//! the sync period. If anything differs, the engine reads the whole kernel.

use std::{
    collections::BTreeSet,
    ops::Bound::{Excluded, Unbounded},
    time::Duration,
};

use crate::{
    kernel::{Kernel, KernelUnavailable, Prepared},
    model::VirtualServerKey,
    state::State,
};

/// The interval between steps. After so long the engine notices that all virtual servers are gone.
const STEP_INTERVAL: Duration = Duration::from_secs(2);
/// The shortest interval, for a sync period below that of the steps.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// A step reads at least so many virtual servers.
const MIN_SERVERS: usize = 4;
/// The interval between checks of the prerequisites. They cost the same however many Services there are.
const PREPARE_INTERVAL: Duration = Duration::from_secs(30);

/// When the next steps are due, and where in the state they continue.
#[derive(Debug)]
pub(super) struct Verification {
    /// One pass over the state takes this long.
    period: Duration,
    next_step: Duration,
    next_prepare: Duration,
    /// When the next pass over tables and addresses is due.
    next_rest: Duration,
    /// The virtual server that the last step read last.
    last: Option<VirtualServerKey>,
}

impl Verification {
    pub(super) fn new(period: Duration) -> Self {
        let zero = Duration::ZERO;
        Self { period: period.max(MIN_INTERVAL), next_step: zero, next_prepare: zero, next_rest: zero, last: None }
    }

    /// The engine has just read the whole kernel.
    pub(super) fn restart(&mut self, now: Duration) {
        self.next_step = now.saturating_add(self.interval());
        self.next_prepare = now.saturating_add(self.period.min(PREPARE_INTERVAL));
        self.next_rest = now.saturating_add(self.period);
    }

    /// When the next step is due.
    pub(super) fn due(&self) -> Duration {
        self.next_step
    }

    fn interval(&self) -> Duration {
        self.period.min(STEP_INTERVAL)
    }

    /// Takes a step, if one is due. Returns whether the kernel differs from `known`.
    pub(super) fn step(
        &mut self,
        kernel: &mut impl Kernel,
        known: &State,
        foreign: &BTreeSet<VirtualServerKey>,
        now: Duration,
    ) -> Result<bool, KernelUnavailable> {
        if now < self.next_step {
            return Ok(false);
        }
        self.next_step = now.saturating_add(self.interval());
        let servers = self.next_servers(known);
        let read = kernel.servers(&servers)?;
        let mut differs = servers.iter().any(|key| read.get(key) != known.virtual_servers.get(key));
        if now >= self.next_prepare {
            self.next_prepare = now.saturating_add(self.period.min(PREPARE_INTERVAL));
            differs |= kernel.prepare()? == Prepared::Repaired;
        }
        if now >= self.next_rest {
            self.next_rest = now.saturating_add(self.period);
            differs |= kernel.differs(known)? || has_others(kernel, known, foreign)?;
        }
        Ok(differs)
    }

    /// The virtual servers of the next step, in the order of their keys, and again from the first one after the last.
    fn next_servers(&mut self, known: &State) -> Vec<VirtualServerKey> {
        let all = &known.virtual_servers;
        let count = self.step_size(all.len());
        let start = self.last.map_or(Unbounded, Excluded);
        let mut servers: Vec<_> = all.range((start, Unbounded)).map(|(key, _)| *key).take(count).collect();
        let missing = count.min(all.len()) - servers.len();
        servers.extend(all.keys().take(missing));
        self.last = servers.last().copied();
        servers
    }

    /// How many virtual servers a step reads, so that a pass takes the period.
    fn step_size(&self, all: usize) -> usize {
        let steps = (self.period.as_millis() / self.interval().as_millis()).max(1);
        usize::try_from((all as u128).div_ceil(steps)).unwrap_or(all).max(MIN_SERVERS)
    }
}

/// Whether the kernel has other virtual servers than those that are known. If one of another program is new, clients must
/// reach it on a VIP of kube-ipvs. If one is gone, a Service can have its key.
fn has_others(
    kernel: &mut impl Kernel,
    known: &State,
    foreign: &BTreeSet<VirtualServerKey>,
) -> Result<bool, KernelUnavailable> {
    let listed = kernel.server_keys()?;
    let is_known = |key: &VirtualServerKey| known.virtual_servers.contains_key(key) || foreign.contains(key);
    // The list can omit entries. A read of the whole kernel then finds them.
    Ok(listed.len() != known.virtual_servers.len() + foreign.len() || !listed.iter().all(is_known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fake::FakeKernel, state::ServerState, testing::key};

    const HOUR: Duration = Duration::from_secs(3600);

    /// A kernel with so many virtual servers, and the state that the engine knows.
    fn kernel(count: usize) -> (FakeKernel, State) {
        let mut kernel = FakeKernel::default();
        kernel.prepare().unwrap();
        for number in 0..count {
            let key = key(&format!("TCP 10.96.{}.{}:80", number / 250, number % 250));
            kernel.virtual_servers.insert(key, ServerState { config: RR, real_servers: [].into() });
        }
        let state = kernel.state();
        (kernel, state)
    }

    const RR: ipvs_netlink::VirtualServer = ipvs_netlink::VirtualServer::new(ipvs_netlink::Scheduler::RR);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn after_a_read(period: Duration) -> Verification {
        let mut verification = Verification::new(period);
        verification.restart(Duration::ZERO);
        verification
    }

    #[test]
    fn one_pass_over_all_virtual_servers_takes_the_period() {
        for (period, count) in [(30, 40), (30, 5_000), (3600, 10_000), (1, 7)] {
            let (_, state) = kernel(count);
            let mut verification = after_a_read(seconds(period));
            let mut left: BTreeSet<_> = state.virtual_servers.keys().copied().collect();
            let steps = (period / 2).max(1);
            for _ in 0..steps {
                verification.next_servers(&state).iter().for_each(|key| {
                    left.remove(key);
                });
            }
            assert!(left.is_empty(), "{count} in {period} s: {} not read", left.len());
        }
    }

    #[test]
    fn step_reads_few_virtual_servers_of_many() {
        let (_, state) = kernel(10_000);
        assert_eq!(after_a_read(HOUR).next_servers(&state).len(), 6);
        assert_eq!(after_a_read(seconds(30)).next_servers(&state).len(), 667);
    }

    #[test]
    fn step_reads_each_of_a_few_virtual_servers_once() {
        let (_, state) = kernel(3);
        let mut verification = after_a_read(HOUR);
        for _ in 0..3 {
            assert_eq!(verification.next_servers(&state).len(), 3);
        }
    }

    #[test]
    fn step_is_due_after_two_seconds_or_after_a_shorter_period() {
        assert_eq!(after_a_read(HOUR).due(), seconds(2));
        assert_eq!(after_a_read(seconds(1)).due(), seconds(1));
        assert_eq!(after_a_read(Duration::ZERO).due(), MIN_INTERVAL);
        assert_eq!(after_a_read(Duration::MAX).due(), seconds(2));
    }

    #[test]
    fn missing_virtual_servers_are_found_by_the_first_step() {
        let (mut kernel, state) = kernel(1_000);
        kernel.virtual_servers.clear();
        let mut verification = after_a_read(HOUR);
        let mut step = |now| verification.step(&mut kernel, &state, &BTreeSet::new(), now).unwrap();
        assert!(!step(seconds(1)), "a step was not due");
        assert!(step(seconds(2)));
    }

    #[test]
    fn missing_tables_are_found_by_the_prerequisites() {
        let (mut kernel, state) = kernel(1);
        kernel.elements = None;
        let mut verification = after_a_read(HOUR);
        let mut step = |now| verification.step(&mut kernel, &state, &BTreeSet::new(), seconds(now)).unwrap();
        assert!(!step(28));
        assert!(step(30));
    }

    #[test]
    fn other_drift_is_found_at_the_end_of_the_period() {
        let (mut kernel, state) = kernel(1);
        kernel.addresses.as_mut().unwrap().insert("10.96.0.9".parse().unwrap());
        let foreign = BTreeSet::from([key("TCP 192.0.2.1:80")]);
        let mut verification = after_a_read(seconds(60));
        let mut step = |state: &State, now| verification.step(&mut kernel, state, &BTreeSet::new(), now).unwrap();
        assert!(!step(&state, seconds(58)));
        assert!(step(&state, seconds(60)));
        let state = kernel.state();
        let mut step = |now| verification.step(&mut kernel, &state, &foreign, now).unwrap();
        assert!(!step(seconds(90)));
        assert!(step(seconds(120)), "a virtual server of another program is gone");
        let new = key("TCP 192.0.2.2:80");
        kernel.virtual_servers.insert(new, ServerState { config: RR, real_servers: [].into() });
        let mut step = |now| verification.step(&mut kernel, &state, &BTreeSet::new(), now).unwrap();
        assert!(!step(seconds(150)));
        assert!(step(seconds(180)), "a virtual server of another program is new");
    }
}
