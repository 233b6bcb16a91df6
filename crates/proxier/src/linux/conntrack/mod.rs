//! Deletion of conntrack entries.
//!
//! A known flow keeps its first packet's destination, even if rules and virtual servers have changed since. After
//! conntrack forgets it, its next packet starts a new flow.

mod entry;

use std::{
    collections::{BTreeSet, HashSet},
    time::Instant,
};

use netlink_batch::{Batch, Error, Failure, Protocol, Socket};
use rustix::io::Errno;

use self::entry::Entry;
use super::meter::FlowDeletion;
use crate::{
    cluster::EndpointAddress,
    model::{Family, VirtualServerKey},
    plan::Change,
};

pub(super) struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    pub(super) fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(Protocol::Netfilter)? })
    }

    /// Deletes flows. A flow that does not exist counts as deleted.
    pub(super) fn apply(
        &mut self,
        changes: &[(usize, &Change)],
        flow_deletions: &mut Vec<FlowDeletion>,
    ) -> Result<(), Error> {
        let wanted = Wanted::new(changes);
        let mut outcome = Ok(());
        for family in wanted.families() {
            let start = Instant::now();
            match self.cleanse(family, &wanted) {
                Ok(forgotten) => flow_deletions.push(FlowDeletion { family, took: start.elapsed(), forgotten }),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    fn cleanse(&mut self, family: Family, wanted: &Wanted) -> Result<usize, Error> {
        let mut batch = Batch::new();
        let mut count = 0;
        for entry in self.list(family)?.iter().filter(|entry| wanted.includes(entry)) {
            entry.delete(&mut batch);
            count += 1;
        }
        let failures = self.socket.execute(batch)?;
        let forgotten = count - failures.len();
        refusal(failures)?;
        Ok(forgotten)
    }

    fn list(&mut self, family: Family) -> Result<Vec<Entry>, Error> {
        match self.socket.dump_with(entry::GET, &entry::header(family), Entry::read) {
            Err(error) if is_without_conntrack(&error) => Ok(Vec::new()),
            outcome => outcome,
        }
    }
}

/// The flows to delete, by destination, and by real server if only flows to that one are meant. Last: whether only flows
/// by a short circuit are meant.
struct Wanted(HashSet<(VirtualServerKey, Option<EndpointAddress>, bool)>);

impl Wanted {
    fn new(changes: &[(usize, &Change)]) -> Self {
        let flows = changes.iter().filter_map(|(_, change)| match change {
            Change::DeleteFlows { to, endpoint, by_short_circuit } => Some((*to, *endpoint, *by_short_circuit)),
            _ => None,
        });
        Self(flows.collect())
    }

    fn families(&self) -> BTreeSet<Family> {
        self.0.iter().map(|(to, ..)| to.family()).collect()
    }

    /// A few lookups for each entry, because the table can hold a million entries.
    fn includes(&self, entry: &Entry) -> bool {
        let goes_to = |endpoint| {
            let is_wanted = |by_short_circuit| self.0.contains(&(entry.to, endpoint, by_short_circuit));
            is_wanted(false) || entry.is_translated && is_wanted(true)
        };
        goes_to(None) || entry.endpoint.is_some() && goes_to(entry.endpoint)
    }
}

/// Whether the kernel rejected the dump because it has no conntrack, and therefore no flows.
fn is_without_conntrack(error: &Error) -> bool {
    // EINVAL: nfnetlink does not know the subsystem, and found no module for it.
    let refusals = [Errno::INVAL, Errno::NOENT, Errno::OPNOTSUPP, Errno::PROTONOSUPPORT];
    let errno = error.kernel().map(|refusal| refusal.errno());
    refusals.iter().any(|refusal| Some(refusal.raw_os_error()) == errno)
}

/// The first rejected deletion. A flow that ended by itself in the meantime is no failure.
fn refusal(failures: Vec<Failure>) -> Result<(), Error> {
    match failures.into_iter().find(|failure| !failure.error.is_not_found()) {
        Some(failure) => Err(failure.error.into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use netlink_batch::KernelError;

    use super::*;
    use crate::model::Protocol;

    fn key(protocol: Protocol, to: &str) -> VirtualServerKey {
        let to: SocketAddr = to.parse().unwrap();
        VirtualServerKey { address: to.ip(), protocol, port: to.port().try_into().unwrap() }
    }

    fn endpoint(at: &str) -> EndpointAddress {
        let at: SocketAddr = at.parse().unwrap();
        EndpointAddress { address: at.ip(), port: at.port().try_into().unwrap() }
    }

    fn entry(to: VirtualServerKey, endpoint: Option<EndpointAddress>) -> Entry {
        let source = IpAddr::from([10, 9, 9, 9]);
        Entry {
            to,
            source,
            source_port: 4000,
            endpoint,
            is_translated: false,
            id: None,
            zone: None,
            original_zone: None,
        }
    }

    fn wanted(flows: &[(VirtualServerKey, Option<&str>)]) -> Wanted {
        let change = |(to, at): &(_, Option<_>)| Change::DeleteFlows {
            to: *to,
            endpoint: at.map(endpoint),
            by_short_circuit: false,
        };
        let changes: Vec<_> = flows.iter().map(change).collect();
        Wanted::new(&changes.iter().enumerate().collect::<Vec<_>>())
    }

    #[test]
    fn flow_deletion_without_endpoint_matches_all_flows_to_the_server() {
        for (to, other) in [("10.96.0.10:53", "10.96.0.11:53"), ("[fd00::10]:53", "[fd00::10]:54")] {
            let wanted = wanted(&[(key(Protocol::Udp, to), None)]);
            assert!(wanted.includes(&entry(key(Protocol::Udp, to), None)));
            assert!(wanted.includes(&entry(key(Protocol::Udp, to), Some(endpoint(to)))));
            assert!(!wanted.includes(&entry(key(Protocol::Tcp, to), None)));
            assert!(!wanted.includes(&entry(key(Protocol::Udp, other), None)));
        }
    }

    #[test]
    fn flow_deletion_with_endpoint_matches_only_flows_to_it() {
        let cases = [
            ("10.96.0.10:53", ["10.1.0.1:5353", "10.1.0.2:5353", "10.1.0.1:53"]),
            ("[fd00::10]:53", ["[fd01::1]:5353", "[fd01::2]:5353", "[fd01::1]:53"]),
        ];
        for (to, [there, elsewhere, other_port]) in cases {
            let to = key(Protocol::Sctp, to);
            let wanted = wanted(&[(to, Some(there))]);
            assert!(wanted.includes(&entry(to, Some(endpoint(there)))));
            assert!(!wanted.includes(&entry(to, Some(endpoint(elsewhere)))));
            assert!(!wanted.includes(&entry(to, Some(endpoint(other_port)))));
            assert!(!wanted.includes(&entry(to, None)), "where it goes is unknown");
        }
    }

    /// The flows of clients outside, which IPVS handles, go on.
    #[test]
    fn flow_deletion_of_a_short_circuit_matches_only_translated_flows() {
        let to = key(Protocol::Tcp, "203.0.113.1:80");
        let at = Some(endpoint("10.1.0.1:8080"));
        for of in [None, at] {
            let change = Change::DeleteFlows { to, endpoint: of, by_short_circuit: true };
            let wanted = Wanted::new(&[(0, &change)]);
            assert!(!wanted.includes(&entry(to, at)));
            assert!(wanted.includes(&Entry { is_translated: true, ..entry(to, at) }));
        }
    }

    #[test]
    fn conntrack_is_listed_only_for_families_of_deleted_flows() {
        let (v4, v6) = (key(Protocol::Udp, "10.96.0.10:53"), key(Protocol::Udp, "[fd00::10]:53"));
        assert_eq!(wanted(&[]).families(), [].into());
        assert_eq!(wanted(&[(v6, None), (v6, Some("[fd01::1]:53"))]).families(), [Family::V6].into());
        assert_eq!(wanted(&[(v6, None), (v4, None)]).families(), Family::ALL.into());
        let other = Change::RemoveServer(v4);
        assert_eq!(Wanted::new(&[(0, &other)]).families(), [].into());
    }

    #[test]
    fn missing_flow_and_missing_conntrack_are_no_errors() {
        let failure = |errno: Errno| Failure { request: 0, error: KernelError::from_errno(errno.raw_os_error()) };
        assert!(refusal(vec![]).is_ok());
        assert!(refusal(vec![failure(Errno::NOENT)]).is_ok());
        assert!(refusal(vec![failure(Errno::NOENT), failure(Errno::BUSY)]).is_err());
        assert!(is_without_conntrack(&failure(Errno::INVAL).error.into()));
        assert!(!is_without_conntrack(&failure(Errno::PERM).error.into()));
        assert!(!is_without_conntrack(&Error::Interrupted));
    }
}
