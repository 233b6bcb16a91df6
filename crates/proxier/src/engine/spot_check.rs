//! Spot checks: between two reads of the whole kernel, the engine reads a few virtual servers and compares them.
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
/// A spot check reads so many virtual servers, however many there are.
const SERVERS: usize = 4;

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
        let servers = self.next_servers(known);
        let read = kernel.servers(&servers)?;
        Ok(servers.iter().any(|key| read.get(key) != known.virtual_servers.get(key)))
    }

    /// The next virtual servers in the order of their keys. After the last key, it continues with the first one.
    fn next_servers(&mut self, known: &State) -> Vec<VirtualServerKey> {
        let all = &known.virtual_servers;
        let start = self.last.map_or(Unbounded, Excluded);
        let later = all.range((start, Unbounded)).map(|(key, _)| key);
        let servers: Vec<_> = later.chain(all.keys()).take(SERVERS.min(all.len())).copied().collect();
        self.last = servers.last().copied();
        servers
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ipvs_netlink::{Scheduler, VirtualServer};

    use super::*;
    use crate::{fake::FakeKernel, state::ServerState, testing::key};

    /// A kernel with so many virtual servers, and the state that the engine knows.
    fn kernel(count: usize) -> (FakeKernel, State) {
        let mut kernel = FakeKernel::default();
        for number in 0..count {
            let server = ServerState { config: VirtualServer::new(Scheduler::RR), real_servers: [].into() };
            kernel.virtual_servers.insert(key(&format!("TCP 10.96.0.{number}:80")), server);
        }
        let state = kernel.state();
        (kernel, state)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn spot_checks_reach_every_virtual_server() {
        let (_, state) = kernel(10);
        let mut spot_check = SpotCheck::default();
        let read: Vec<_> = (0..5).map(|_| spot_check.next_servers(&state)).collect();
        assert!(read.iter().all(|servers| servers.len() == 4));
        assert_eq!(read[..3].concat().into_iter().collect::<BTreeSet<_>>().len(), 10);
        assert_eq!(read.concat()[10..], read.concat()[..10]);
    }

    #[test]
    fn spot_check_reads_each_of_a_few_virtual_servers_once() {
        let (_, state) = kernel(3);
        let mut spot_check = SpotCheck::default();
        for _ in 0..3 {
            assert_eq!(spot_check.next_servers(&state).len(), 3);
        }
        assert!(spot_check.next_servers(&State::default()).is_empty());
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
}
