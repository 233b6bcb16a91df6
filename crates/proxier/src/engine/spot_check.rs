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
    state::{State, VirtualServerState},
};

/// The interval between spot checks. After so long the engine notices that all virtual servers are gone.
const INTERVAL: Duration = Duration::from_secs(2);
/// A spot check reads at most so many virtual servers, however many there are.
const SERVERS: usize = 4;
/// A spot check reads no further virtual server after so many real servers.
const REAL_SERVERS: usize = 16;

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
        let read = kernel.virtual_servers(&servers)?;
        Ok(servers.iter().any(|key| read.get(key) != known.virtual_servers.get(key)))
    }

    /// The next virtual servers in the order of their keys. After the last key, it continues with the first one.
    fn next_servers(&mut self, known: &State) -> Vec<VirtualServerKey> {
        let all = &known.virtual_servers;
        let start = self.last.map_or(Unbounded, Excluded);
        let in_order = all.range((start, Unbounded)).chain(all).take(SERVERS.min(all.len()));
        let mut real_servers = 0;
        let has_room = |(_, server): &(_, &VirtualServerState)| {
            let has_room = real_servers < REAL_SERVERS;
            real_servers += server.real_servers.len();
            has_room
        };
        let servers: Vec<_> = in_order.take_while(has_room).map(|(key, _)| *key).collect();
        self.last = servers.last().copied();
        servers
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ipvs_netlink::{Destination, Scheduler, VirtualServer};

    use super::*;
    use crate::{cluster::EndpointAddress, fake::FakeKernel, testing::key};

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
    fn spot_check_reads_fewer_virtual_servers_with_many_real_servers() {
        let (_, mut state) = kernel(10);
        for server in state.virtual_servers.values_mut() {
            let at = |port: u16| EndpointAddress { address: [10, 244, 0, 1].into(), port: port.try_into().unwrap() };
            server.real_servers = (1..=10).map(|port| (at(port), Destination::default())).collect();
        }
        let mut spot_check = SpotCheck::default();
        assert_eq!(spot_check.next_servers(&state).len(), 2);
        state.virtual_servers.values_mut().for_each(|server| server.real_servers.clear());
        assert_eq!(spot_check.next_servers(&state).len(), 4);
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
