//! Graceful removal: how long a real server keeps its connections after its Service stops listing it.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use crate::{
    cluster::EndpointAddress,
    kernel::ConnectionCounts,
    model::{PortNumber, Protocol, VirtualServerKey},
};

/// The interval at which the engine counts the connections of draining real servers.
pub(crate) const POLL: Duration = Duration::from_secs(5);

/// How long a UDP real server can answer earlier requests after it left. Nearly all answers take less. Clients retry
/// after five seconds (`resolv.conf(5)`), and the retry must reach another endpoint.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// The next step for a real server that is in the kernel and takes no new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Keep its connections, at weight 0.
    Drain,
    Remove,
}

#[derive(Debug, Default)]
pub(crate) struct Drains {
    entries: BTreeMap<(VirtualServerKey, EndpointAddress), Drain>,
    next_poll: Option<Duration>,
    next_end: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    /// Still listed. `terminating` decides between removal and draining when it leaves the list.
    Listed { terminating: bool },
    /// Left the list at `since`, and can stay for `cap`.
    Unlisted { since: Duration, cap: Duration },
    /// UDP: takes no new flows, and can answer until `until`.
    LastAnswers { until: Duration },
    /// Left the list at `since`, and has no connections or no time left. UDP does not use `since`.
    Idle { since: Duration },
}

impl Drains {
    /// The real server takes connections again, or the kernel does not have it any more.
    pub(crate) fn forget(&mut self, key: VirtualServerKey, address: EndpointAddress) {
        self.entries.remove(&(key, address));
    }

    /// The real servers of a virtual server that are known here, in order.
    pub(crate) fn of(&self, key: VirtualServerKey) -> Vec<EndpointAddress> {
        let first = EndpointAddress { address: Ipv4Addr::UNSPECIFIED.into(), port: PortNumber::MIN };
        let from_first = self.entries.range((key, first)..).map(|(at, _)| at);
        from_first.take_while(|(server, _)| *server == key).map(|(_, address)| *address).collect()
    }

    pub(crate) fn forget_server(&mut self, key: VirtualServerKey) {
        for address in self.of(key) {
            self.forget(key, address);
        }
    }

    /// Keeps only real servers that the kernel has, because another program can remove some.
    pub(crate) fn retain(&mut self, has: impl Fn(&VirtualServerKey, &EndpointAddress) -> bool) {
        self.entries.retain(|(key, address), _| has(key, address));
    }

    pub(crate) fn listed(&mut self, key: VirtualServerKey, address: EndpointAddress, terminating: bool) {
        self.entries.insert((key, address), Drain::Listed { terminating });
    }

    /// The real server is not listed, or is a UDP one that does not serve. Returns its fate.
    ///
    /// If it was terminating while listed, it does not answer any more, so it is removed. Otherwise it keeps its
    /// connections until it is idle, for at most `cap`. A changed cap takes effect at once. `is_quiet`: whether the
    /// kernel has set its weight to 0. If not, it can have new connections since the last count.
    pub(crate) fn unlisted(
        &mut self,
        key: VirtualServerKey,
        address: EndpointAddress,
        cap: Duration,
        is_quiet: bool,
        now: Duration,
    ) -> Fate {
        if key.protocol == Protocol::Udp {
            return self.last_answers(key, address, cap.min(LAST_ANSWERS), now);
        }
        let since = match self.entries.get(&(key, address)) {
            // The entry stays until the kernel has removed the real server, because the removal can fail.
            Some(Drain::Listed { terminating: true }) => return Fate::Remove,
            Some(Drain::Idle { .. }) if is_quiet => return Fate::Remove,
            Some(Drain::Unlisted { since, .. } | Drain::Idle { since }) => *since,
            Some(Drain::Listed { terminating: false } | Drain::LastAnswers { .. }) | None => now,
        };
        let until = since.saturating_add(cap);
        if until <= now {
            self.entries.insert((key, address), Drain::Idle { since });
            return Fate::Remove;
        }
        self.entries.insert((key, address), Drain::Unlisted { since, cap });
        let poll = until.min(now + POLL);
        self.next_poll = Some(self.next_poll.map_or(poll, |next| next.min(poll)));
        Fate::Drain
    }

    /// A UDP flow would stay with its endpoint for ever. So a UDP real server gets a fixed time for its last answers.
    fn last_answers(&mut self, key: VirtualServerKey, address: EndpointAddress, time: Duration, now: Duration) -> Fate {
        let until = match self.entries.get(&(key, address)) {
            Some(Drain::Idle { .. }) => return Fate::Remove,
            Some(Drain::LastAnswers { until }) => *until,
            Some(Drain::Listed { .. } | Drain::Unlisted { .. }) | None => now + time,
        };
        if until <= now {
            self.entries.insert((key, address), Drain::Idle { since: now });
            return Fate::Remove;
        }
        self.entries.insert((key, address), Drain::LastAnswers { until });
        self.next_end = Some(self.next_end.map_or(until, |next| next.min(until)));
        Fate::Drain
    }

    /// The UDP virtual servers with a real server to remove now.
    pub(crate) fn ended(&mut self, now: Duration) -> Vec<VirtualServerKey> {
        if self.next_end.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let (mut over, mut next) = (Vec::new(), None);
        for ((key, _), drain) in &mut self.entries {
            match *drain {
                Drain::LastAnswers { until } if until <= now => {
                    *drain = Drain::Idle { since: until };
                    over.push(*key);
                }
                Drain::LastAnswers { until } => next = Some(next.map_or(until, |next| until.min(next))),
                _ => {}
            }
        }
        self.next_end = next;
        over.dedup();
        over
    }

    /// The virtual servers whose connections the engine must count now.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<VirtualServerKey> {
        if self.next_poll.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let (mut servers, mut next) = (Vec::new(), now + POLL);
        for ((key, _), drain) in &self.entries {
            let Drain::Unlisted { since, cap } = drain else { continue };
            servers.push(*key);
            let until = since.saturating_add(*cap);
            if until > now {
                next = next.min(until);
            }
        }
        servers.dedup();
        self.next_poll = (!servers.is_empty()).then_some(next);
        servers
    }

    /// Takes in connection counts. Returns the virtual servers with a real server to remove now.
    pub(crate) fn counted(&mut self, counts: &ConnectionCounts, now: Duration) -> Vec<VirtualServerKey> {
        let mut over = Vec::new();
        for (at, drain) in &mut self.entries {
            let Drain::Unlisted { since, cap } = *drain else { continue };
            // IPVS counts no connection to 127.0.0.1, because a short circuit bypasses it.
            let is_idle = !at.0.address.is_loopback() && counts.get(at).copied().unwrap_or(0) == 0;
            if since.saturating_add(cap) <= now || is_idle {
                *drain = Drain::Idle { since };
                over.push(at.0);
            }
        }
        over.dedup();
        over
    }

    /// When [`ended`](Self::ended) or [`due`](Self::due) next has work.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.next_end.into_iter().chain(self.next_poll).min()
    }

    /// The number of real servers that left the list and keep their connections.
    pub(crate) fn len(&self) -> usize {
        self.entries.values().filter(|drain| matches!(drain, Drain::Unlisted { .. })).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: Duration = Duration::from_secs(600);

    fn at(protocol: Protocol) -> (VirtualServerKey, EndpointAddress) {
        let key = VirtualServerKey { address: "10.0.0.1".parse().unwrap(), protocol, port: 80.try_into().unwrap() };
        (key, EndpointAddress { address: "10.1.0.1".parse().unwrap(), port: 80.try_into().unwrap() })
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn unlisted_real_server_keeps_connections_until_idle() {
        let (key, address) = at(Protocol::Tcp);
        let mut drains = Drains::default();
        assert_eq!(drains.unlisted(key, address, CAP, true, seconds(0)), Fate::Drain);
        assert_eq!(drains.due(seconds(4)), []);
        assert_eq!(drains.due(seconds(5)), [key]);
        assert_eq!(drains.counted(&[((key, address), 1)].into(), seconds(5)), []);
        assert_eq!(drains.due(seconds(10)), [key]);
        assert_eq!(drains.counted(&[((key, address), 0)].into(), seconds(10)), [key]);
        assert_eq!(drains.unlisted(key, address, CAP, true, seconds(10)), Fate::Remove);
        assert_eq!(drains.due(seconds(60)), []);
    }

    /// Until the kernel has set its weight to 0, it can get new connections.
    #[test]
    fn idle_real_server_with_a_weight_is_counted_again() {
        let (key, address) = at(Protocol::Tcp);
        let mut drains = Drains::default();
        assert_eq!(drains.unlisted(key, address, CAP, false, seconds(0)), Fate::Drain);
        for now in [5, 10, 595] {
            assert_eq!(drains.due(seconds(now)), [key]);
            assert_eq!(drains.counted(&ConnectionCounts::new(), seconds(now)), [key]);
            assert_eq!(drains.unlisted(key, address, CAP, false, seconds(now)), Fate::Drain);
        }
        assert_eq!(drains.unlisted(key, address, CAP, false, seconds(600)), Fate::Remove);
    }

    #[test]
    fn drain_cap_counts_from_the_first_unlisting() {
        let (key, address) = at(Protocol::Sctp);
        let mut drains = Drains::default();
        for now in [0, 300, 599] {
            assert_eq!(drains.unlisted(key, address, CAP, true, seconds(now)), Fate::Drain);
        }
        assert_eq!(drains.counted(&[((key, address), 7)].into(), seconds(600)), [key]);
        assert_eq!(drains.unlisted(key, address, CAP, true, seconds(600)), Fate::Remove);
    }

    #[test]
    fn real_server_of_a_localhost_node_port_drains_by_time() {
        let (key, address) = at(Protocol::Tcp);
        let key = VirtualServerKey { address: Ipv4Addr::LOCALHOST.into(), ..key };
        let mut drains = Drains::default();
        assert_eq!(drains.unlisted(key, address, CAP, true, seconds(0)), Fate::Drain);
        assert_eq!(drains.counted(&ConnectionCounts::new(), seconds(599)), []);
        assert_eq!(drains.counted(&ConnectionCounts::new(), seconds(600)), [key]);
    }

    #[test]
    fn terminating_real_server_is_removed_when_it_leaves_the_list() {
        let (key, address) = at(Protocol::Tcp);
        let mut drains = Drains::default();
        drains.listed(key, address, true);
        assert_eq!(drains.unlisted(key, address, CAP, true, seconds(0)), Fate::Remove);
        drains.listed(key, address, false);
        assert_eq!(drains.unlisted(key, address, CAP, true, seconds(0)), Fate::Drain);
    }

    #[test]
    fn udp_real_server_has_two_seconds_for_last_answers_listed_or_not() {
        let (key, address) = at(Protocol::Udp);
        let mut drains = Drains::default();
        drains.listed(key, address, true);
        for now in [seconds(10), seconds(11)] {
            assert_eq!(drains.unlisted(key, address, CAP, true, now), Fate::Drain);
        }
        assert_eq!(drains.next(), Some(seconds(12)));
        assert_eq!(drains.ended(Duration::from_millis(11_999)), []);
        assert_eq!(drains.due(seconds(12)), [], "nothing is counted for it");
        assert_eq!(drains.ended(seconds(12)), [key]);
        assert_eq!(drains.unlisted(key, address, CAP, true, seconds(12)), Fate::Remove);
        assert_eq!((drains.next(), drains.len()), (None, 0));
    }

    #[test]
    fn udp_real_server_is_removed_at_a_cap_below_two_seconds() {
        let (key, address) = at(Protocol::Udp);
        let mut drains = Drains::default();
        assert_eq!(drains.unlisted(key, address, seconds(1), true, seconds(0)), Fate::Drain);
        assert_eq!(drains.unlisted(key, address, seconds(1), true, seconds(1)), Fate::Remove);
        assert_eq!(Drains::default().unlisted(key, address, Duration::ZERO, true, seconds(0)), Fate::Remove);
    }

    #[test]
    fn drain_time_restarts_after_a_real_server_served_again() {
        let (key, address) = at(Protocol::Tcp);
        let mut drains = Drains::default();
        drains.unlisted(key, address, CAP, true, seconds(0));
        drains.forget(key, address);
        assert_eq!(drains.unlisted(key, address, CAP, true, seconds(599)), Fate::Drain);
        assert_eq!(drains.unlisted(key, address, CAP, true, seconds(1000)), Fate::Drain);
    }
}
