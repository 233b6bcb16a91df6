//! Graceful removal: how long a real server keeps its connections after its Service no longer wants it.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use crate::{
    cluster::EndpointAddress,
    kernel::ConnectionCounts,
    model::{PortNumber, Protocol, VirtualServerKey},
};

/// How often the connections of draining real servers are counted.
pub(crate) const POLL: Duration = Duration::from_secs(5);

/// How long a real server of UDP may answer what it was asked before it left. Longer than nearly all answers take, and
/// shorter than clients wait before they ask again (five seconds, `resolv.conf(5)`): by then they get to another one.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// What is to become of a real server that the kernel has and that takes no new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It keeps its connections, at weight 0.
    Quiesce,
    /// It goes now.
    Remove,
}

/// The real servers that drain.
#[derive(Debug, Default)]
pub(crate) struct Drains {
    entries: BTreeMap<(VirtualServerKey, EndpointAddress), Drain>,
    next_poll: Option<Duration>,
    next_end: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    /// It is still listed. Whether it was terminating decides what happens when it leaves the list.
    Listed { terminating: bool },
    /// It has left the list, and how long it may stay.
    Unlisted { since: Duration, cap: Duration },
    /// UDP: it serves no longer, and until when it may answer.
    LastAnswers { until: Duration },
    /// It has left the list and no connection goes through it, or its time is over.
    Idle,
}

impl Drains {
    /// It takes connections (again), or is gone.
    pub(crate) fn forget(&mut self, key: VirtualServerKey, address: EndpointAddress) {
        self.entries.remove(&(key, address));
    }

    /// Its virtual server is gone, and with it all that drained there.
    pub(crate) fn forget_server(&mut self, key: VirtualServerKey) {
        let first = EndpointAddress { address: Ipv4Addr::UNSPECIFIED.into(), port: PortNumber::MIN };
        let from_first = self.entries.range((key, first)..).map(|(at, _)| *at);
        let gone: Vec<_> = from_first.take_while(|(server, _)| *server == key).collect();
        for at in gone {
            self.entries.remove(&at);
        }
    }

    /// Keeps the real servers that the kernel has. Another program may have removed some.
    pub(crate) fn retain(&mut self, has: impl Fn(&VirtualServerKey, &EndpointAddress) -> bool) {
        self.entries.retain(|(key, address), _| has(key, address));
    }

    /// It is listed and takes no new connections.
    pub(crate) fn listed(&mut self, key: VirtualServerKey, address: EndpointAddress, terminating: bool) {
        self.entries.insert((key, address), Drain::Listed { terminating });
    }

    /// It is not listed (any more), or is of UDP and does not serve: what is to become of it?
    ///
    /// One that was terminating when it left is gone: nothing answers there. Any other keeps its connections until
    /// idle, for `cap` at most. A cap that has changed counts at once.
    pub(crate) fn unlisted(
        &mut self,
        key: VirtualServerKey,
        address: EndpointAddress,
        cap: Duration,
        now: Duration,
    ) -> Fate {
        if key.protocol == Protocol::Udp {
            return self.last_answers(key, address, cap.min(LAST_ANSWERS), now);
        }
        let since = match self.entries.get(&(key, address)) {
            // It stays noted until it is gone: the removal may fail.
            Some(Drain::Listed { terminating: true } | Drain::Idle) => return Fate::Remove,
            Some(Drain::Unlisted { since, .. }) => *since,
            Some(Drain::Listed { terminating: false } | Drain::LastAnswers { .. }) | None => now,
        };
        let until = since.saturating_add(cap);
        if until <= now {
            self.entries.insert((key, address), Drain::Idle);
            return Fate::Remove;
        }
        self.entries.insert((key, address), Drain::Unlisted { since, cap });
        let poll = until.min(now + POLL);
        self.next_poll = Some(self.next_poll.map_or(poll, |next| next.min(poll)));
        Fate::Quiesce
    }

    /// A flow of UDP would stay with its endpoint for ever; it has the time of some last answers, listed or not.
    fn last_answers(&mut self, key: VirtualServerKey, address: EndpointAddress, time: Duration, now: Duration) -> Fate {
        let until = match self.entries.get(&(key, address)) {
            Some(Drain::Idle) => return Fate::Remove,
            Some(Drain::LastAnswers { until }) => *until,
            Some(Drain::Listed { .. } | Drain::Unlisted { .. }) | None => now + time,
        };
        if until <= now {
            self.entries.insert((key, address), Drain::Idle);
            return Fate::Remove;
        }
        self.entries.insert((key, address), Drain::LastAnswers { until });
        self.next_end = Some(self.next_end.map_or(until, |next| next.min(until)));
        Fate::Quiesce
    }

    /// The virtual servers of UDP that have something to remove now.
    pub(crate) fn ended(&mut self, now: Duration) -> Vec<VirtualServerKey> {
        if self.next_end.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let (mut over, mut next) = (Vec::new(), None);
        for ((key, _), drain) in &mut self.entries {
            match *drain {
                Drain::LastAnswers { until } if until <= now => {
                    *drain = Drain::Idle;
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

    /// The virtual servers whose connections are to be counted now.
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

    /// Takes in counted connections, and returns the virtual servers that have something to remove now.
    pub(crate) fn counted(&mut self, counts: &ConnectionCounts, now: Duration) -> Vec<VirtualServerKey> {
        let mut over = Vec::new();
        for (at, drain) in &mut self.entries {
            let Drain::Unlisted { since, cap } = *drain else { continue };
            if since.saturating_add(cap) <= now || counts.get(at).copied().unwrap_or(0) == 0 {
                *drain = Drain::Idle;
                over.push(at.0);
            }
        }
        over.dedup();
        over
    }

    /// When [`ended`](Self::ended) or [`due`](Self::due) has something next.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.next_end.into_iter().chain(self.next_poll).min()
    }

    /// How many have left the list and still drain.
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
    fn one_that_leaves_keeps_its_connections_until_idle() {
        let (key, address) = at(Protocol::Tcp);
        let mut drains = Drains::default();
        assert_eq!(drains.unlisted(key, address, CAP, seconds(0)), Fate::Quiesce);
        assert_eq!(drains.due(seconds(4)), []);
        assert_eq!(drains.due(seconds(5)), [key]);
        assert_eq!(drains.counted(&[((key, address), 1)].into(), seconds(5)), []);
        assert_eq!(drains.due(seconds(10)), [key]);
        assert_eq!(drains.counted(&[((key, address), 0)].into(), seconds(10)), [key]);
        assert_eq!(drains.unlisted(key, address, CAP, seconds(10)), Fate::Remove);
        assert_eq!(drains.due(seconds(60)), []);
    }

    #[test]
    fn no_longer_than_the_cap_and_the_cap_does_not_start_anew() {
        let (key, address) = at(Protocol::Sctp);
        let mut drains = Drains::default();
        for now in [0, 300, 599] {
            assert_eq!(drains.unlisted(key, address, CAP, seconds(now)), Fate::Quiesce);
        }
        assert_eq!(drains.counted(&[((key, address), 7)].into(), seconds(600)), [key]);
        assert_eq!(drains.unlisted(key, address, CAP, seconds(600)), Fate::Remove);
    }

    #[test]
    fn one_that_was_terminating_goes_when_it_leaves() {
        let (key, address) = at(Protocol::Tcp);
        let mut drains = Drains::default();
        drains.listed(key, address, true);
        assert_eq!(drains.unlisted(key, address, CAP, seconds(0)), Fate::Remove);
        drains.listed(key, address, false);
        assert_eq!(drains.unlisted(key, address, CAP, seconds(0)), Fate::Quiesce);
    }

    #[test]
    fn udp_has_two_seconds_for_its_last_answers_listed_or_not() {
        let (key, address) = at(Protocol::Udp);
        let mut drains = Drains::default();
        drains.listed(key, address, true);
        for now in [seconds(10), seconds(11)] {
            assert_eq!(drains.unlisted(key, address, CAP, now), Fate::Quiesce);
        }
        assert_eq!(drains.next(), Some(seconds(12)));
        assert_eq!(drains.ended(Duration::from_millis(11_999)), []);
        assert_eq!(drains.due(seconds(12)), [], "nothing is counted for it");
        assert_eq!(drains.ended(seconds(12)), [key]);
        assert_eq!(drains.unlisted(key, address, CAP, seconds(12)), Fate::Remove);
        assert_eq!((drains.next(), drains.len()), (None, 0));
    }

    #[test]
    fn a_shorter_cap_counts_for_udp_too() {
        let (key, address) = at(Protocol::Udp);
        let mut drains = Drains::default();
        assert_eq!(drains.unlisted(key, address, seconds(1), seconds(0)), Fate::Quiesce);
        assert_eq!(drains.unlisted(key, address, seconds(1), seconds(1)), Fate::Remove);
        assert_eq!(Drains::default().unlisted(key, address, Duration::ZERO, seconds(0)), Fate::Remove);
    }

    #[test]
    fn one_that_serves_again_starts_anew_later() {
        let (key, address) = at(Protocol::Tcp);
        let mut drains = Drains::default();
        drains.unlisted(key, address, CAP, seconds(0));
        drains.forget(key, address);
        assert_eq!(drains.unlisted(key, address, CAP, seconds(599)), Fate::Quiesce);
        assert_eq!(drains.unlisted(key, address, CAP, seconds(1000)), Fate::Quiesce);
    }
}
