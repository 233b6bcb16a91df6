//! Limits the number of connections, so that no peer can take them all.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

const MAX_CONNECTIONS: usize = 256;
/// The limit per IPv4 address or IPv6 network.
const MAX_PER_PEER: usize = 64;

/// The places of all callers at the same ports. If all are taken, a new caller evicts the oldest caller of a peer that
/// has the most. A peer at its limit evicts its oldest caller instead. So an idle caller keeps no other caller out.
#[derive(Debug)]
pub(super) struct Callers {
    places: Mutex<Places<Arc<Notify>>>,
    pub(super) patience: Duration,
    end: watch::Receiver<bool>,
}

impl Callers {
    /// A caller that is silent for longer than `patience` is disconnected. `end` stops the admission.
    pub(super) fn new(patience: Duration, end: watch::Receiver<bool>) -> Arc<Self> {
        Arc::new(Self { places: Mutex::default(), patience, end })
    }

    pub(super) async fn end(&self) {
        // If the sender is gone, `wait_for` returns an error, which also means the end.
        let _ = self.end.clone().wait_for(|is_end| *is_end).await;
    }

    pub(super) fn enter(self: &Arc<Self>, from: IpAddr) -> Place {
        let leave = Arc::new(Notify::new());
        let (number, evicted) = self.places.lock().enter(peer(from), Arc::clone(&leave));
        evicted.iter().for_each(|evicted| evicted.notify_one());
        Place { callers: Arc::clone(self), number, leave }
    }
}

#[derive(Debug)]
pub(super) struct Place {
    pub(super) callers: Arc<Callers>,
    number: u64,
    leave: Arc<Notify>,
}

impl Place {
    pub(super) async fn taken(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.callers.places.lock().leave(self.number);
    }
}

/// The places in order of admission, each with its peer and a handle that evicts the caller.
#[derive(Debug, Default)]
struct Places<T> {
    next: u64,
    taken: BTreeMap<u64, (IpAddr, T)>,
}

impl<T> Places<T> {
    fn enter(&mut self, peer: IpAddr, caller: T) -> (u64, Option<T>) {
        let evicted = self.too_many(peer).and_then(|number| self.taken.remove(&number));
        let number = self.next;
        self.next += 1;
        self.taken.insert(number, (peer, caller));
        (number, evicted.map(|(_, caller)| caller))
    }

    fn leave(&mut self, number: u64) {
        self.taken.remove(&number);
    }

    /// The place that one more caller of this peer takes, if none is free. A peer at its limit loses its oldest place.
    /// Otherwise a peer with the most places loses its oldest one.
    fn too_many(&self, peer: IpAddr) -> Option<u64> {
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        self.taken.values().for_each(|(of, _)| *counts.entry(*of).or_default() += 1);
        let oldest = |loses: &dyn Fn(&IpAddr) -> bool| {
            self.taken.iter().find(|(_, (of, _))| loses(of)).map(|(number, _)| *number)
        };
        if counts.get(&peer).is_some_and(|count| *count >= MAX_PER_PEER) {
            return oldest(&|of| *of == peer);
        }
        let most = counts.values().max().copied().filter(|_| self.taken.len() >= MAX_CONNECTIONS);
        most.and_then(|most| oldest(&|of| counts.get(of) == Some(&most)))
    }
}

/// The peer that a caller counts as. An IPv6 client has 2^64 addresses, so its /64 counts.
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(number: usize) -> IpAddr {
        IpAddr::from([10, 0, (number / 250) as u8, (number % 250) as u8])
    }

    #[test]
    fn ipv6_caller_counts_as_its_network() {
        let as_text = |address: &str| peer(address.parse().unwrap()).to_string();
        assert_eq!(as_text("2001:db8::1:2:3:4"), "2001:db8::");
        assert_eq!(as_text("::ffff:192.0.2.1"), "192.0.2.1");
    }

    #[test]
    fn peer_at_its_limit_loses_its_oldest_connection() {
        let mut places = Places::default();
        assert_eq!(places.enter(caller(1), 0).1, None);
        for number in 0..MAX_PER_PEER {
            assert_eq!(places.enter(caller(2), 1000 + number).1, None);
        }
        // The next caller of this peer takes the peer's oldest place, and no place of another peer.
        assert_eq!(places.enter(caller(2), 9).1, Some(1000));
        assert_eq!(places.enter(caller(2), 9).1, Some(1001));
        assert_eq!(places.enter(caller(1), 9).1, None);
    }

    #[test]
    fn full_server_evicts_the_oldest_connection_of_the_largest_peer() {
        let mut places = Places::default();
        let mut all = Vec::new();
        for number in 0..MAX_CONNECTIONS {
            let from = if number % 8 == 3 { caller(500) } else { caller(number) };
            let (place, evicted) = places.enter(from, number);
            assert_eq!(evicted, None, "{number}");
            all.push(place);
        }
        assert_eq!(places.enter(caller(501), 9).1, Some(3));
        assert_eq!(places.taken.len(), MAX_CONNECTIONS);
        // A caller that has left makes room.
        places.leave(all[0]);
        assert_eq!(places.enter(caller(502), 9).1, None);
        // An evicted caller has no place to give back.
        places.leave(all[3]);
        assert_eq!(places.taken.len(), MAX_CONNECTIONS);
    }
}
