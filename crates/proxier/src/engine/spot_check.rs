//! Spot checks: between two reads of the whole kernel, the engine reads one virtual server and compares it.
//!
//! IPVS reports no changes. If another program removes all virtual servers, the next spot check shows it.

use std::{
    ops::Bound::{Excluded, Unbounded},
    time::Duration,
};

use crate::{
    kernel::{Kernel, KernelUnavailable},
    model::VirtualServerKey,
    state::State,
};

/// The interval between spot checks. After so long the engine notices that all virtual servers are gone.
const INTERVAL: Duration = Duration::from_secs(2);

/// When the next spot check is due, and where in the state it continues.
#[derive(Debug, Default)]
pub(super) struct SpotCheck {
    due: Duration,
    /// The virtual server that was read last.
    last: Option<VirtualServerKey>,
}

impl SpotCheck {
    /// When the next spot check is due.
    pub(super) fn due(&self) -> Duration {
        self.due
    }

    /// The engine has read the kernel, so the next spot check has time.
    pub(super) fn restart(&mut self, now: Duration) {
        self.due = now.saturating_add(INTERVAL);
    }

    /// Makes a spot check, if one is due. Returns whether the kernel differs from `known`.
    pub(super) fn finds_difference(
        &mut self,
        kernel: &mut impl Kernel,
        known: &State,
        now: Duration,
    ) -> Result<bool, KernelUnavailable> {
        if now < self.due {
            return Ok(false);
        }
        self.restart(now);
        let Some(key) = self.next_server(known) else { return Ok(false) };
        let read = kernel.virtual_servers(&[key])?;
        Ok(read.get(&key) != known.virtual_servers.get(&key).map(|server| &server.config))
    }

    /// The next virtual server in the order of the keys. After the last key, it continues with the first one.
    fn next_server(&mut self, known: &State) -> Option<VirtualServerKey> {
        let all = &known.virtual_servers;
        let start = self.last.map_or(Unbounded, Excluded);
        self.last = all.range((start, Unbounded)).chain(all).next().map(|(key, _)| *key);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use ipvs_netlink::{Scheduler, VirtualServer};

    use super::*;
    use crate::{fake::FakeKernel, state::VirtualServerState, testing::key};

    /// A kernel with so many virtual servers, and the state that the engine knows.
    fn kernel(count: usize) -> (FakeKernel, State) {
        let mut kernel = FakeKernel::default();
        for number in 0..count {
            let server =
                VirtualServerState { config: VirtualServer::new(Scheduler::RR), real_servers: Default::default() };
            kernel.virtual_servers.insert(key(&format!("TCP 10.96.0.{number}:80")), server);
        }
        let state = kernel.state();
        (kernel, state)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn spot_checks_reach_every_virtual_server_in_turn() {
        let (_, state) = kernel(3);
        let mut spot_check = SpotCheck::default();
        let read: Vec<_> = (0..7).filter_map(|_| spot_check.next_server(&state)).collect();
        let all: Vec<_> = state.virtual_servers.keys().copied().collect();
        assert_eq!(read, [&all[..], &all, &all[..1]].concat());
        assert_eq!(spot_check.next_server(&State::default()), None);
    }

    #[test]
    fn spot_check_finds_removed_virtual_servers_when_due() {
        let (mut kernel, state) = kernel(100);
        let mut spot_check = SpotCheck::default();
        spot_check.restart(Duration::ZERO);
        assert!(!spot_check.finds_difference(&mut kernel, &state, seconds(2)).unwrap());
        kernel.virtual_servers.clear();
        assert!(!spot_check.finds_difference(&mut kernel, &state, seconds(3)).unwrap(), "it was not due");
        assert!(spot_check.finds_difference(&mut kernel, &state, seconds(4)).unwrap());
    }

    #[test]
    fn spot_check_finds_the_scheduler_of_another_program() {
        let (mut kernel, state) = kernel(1);
        kernel.virtual_servers.values_mut().for_each(|server| server.config.scheduler = Scheduler::WLC);
        assert!(SpotCheck::default().finds_difference(&mut kernel, &state, seconds(0)).unwrap());
    }
}
