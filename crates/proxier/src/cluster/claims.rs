use std::fmt;

use foldhash::HashMap;

use super::Kind;
use crate::model::{PortNumber, Protocol, ServicePortId, Timestamp, VirtualServerKey};

/// A resource that only one port of one Service can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim {
    /// An address, a protocol and a port to listen on.
    VirtualServer(VirtualServerKey),
    /// A node port, on all addresses of the node.
    NodePort(Protocol, PortNumber),
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VirtualServer(key) => write!(f, "{key}"),
            Self::NodePort(protocol, port) => write!(f, "node port {protocol} {port}"),
        }
    }
}

/// A Service port that asks for a claim. The order decides who gets it: by the kind of address, then the oldest
/// Service, then the first by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claimant {
    /// The kind of address that the claim is for.
    pub kind: Kind,
    /// When its Service was created.
    pub created: Timestamp,
    /// The Service port.
    pub port: ServicePortId,
}

/// All claims and their claimants: the only place where Services affect each other.
#[derive(Debug, Default)]
pub(super) struct Claims {
    // Invariant: no list is empty, and each is sorted. Nearly all have one entry.
    claimants: HashMap<Claim, Vec<Claimant>>,
}

impl Claims {
    pub(super) fn holder(&self, claim: &Claim) -> Option<&Claimant> {
        self.claimants.get(claim)?.first()
    }

    /// Adds a claimant. Returns all claimants if it is the first now, because the holder has changed.
    pub(super) fn add(&mut self, claim: Claim, claimant: Claimant) -> &[Claimant] {
        let list = self.claimants.entry(claim).or_insert_with(|| Vec::with_capacity(1));
        let Err(place) = list.binary_search(&claimant) else { return &[] };
        list.insert(place, claimant);
        if place == 0 { list } else { &[] }
    }

    /// Removes a claimant. Returns the remaining ones if it was the first, because the holder has changed.
    pub(super) fn remove(&mut self, claim: &Claim, claimant: &Claimant) -> &[Claimant] {
        let Some(list) = self.claimants.get_mut(claim) else { return &[] };
        let Ok(place) = list.binary_search(claimant) else { return &[] };
        list.remove(place);
        if list.is_empty() {
            self.claimants.remove(claim);
        }
        let rest = self.claimants.get(claim).filter(|_| place == 0);
        rest.map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use crate::{cluster::Cluster, config::Config, model::*, testing::service};

    /// A tenant can change a Service again and again while thousands of others ask for the same address.
    #[test]
    fn service_change_that_keeps_its_claims_marks_no_rival() {
        let mut cluster = Cluster::new(Config::new("node-1"));
        let asking = |name, ip| Service {
            external_ips: vec!["203.0.113.7".parse().unwrap()],
            ..service(name, &[ip], &[(80, None)])
        };
        let (first, rival) = (asking("first", "10.96.0.1"), asking("rival", "10.96.0.2"));
        cluster.apply(Event::ServiceApplied(first.clone()));
        cluster.apply(Event::ServiceApplied(rival.clone()));
        cluster.drain_dirty();
        let affine = Service { affinity: Affinity::ClientIp(NonZeroU32::MIN), ..first.clone() };
        cluster.apply(Event::ServiceApplied(affine));
        assert_eq!(cluster.drain_dirty(), std::slice::from_ref(&first.id));
        let without = Service { external_ips: Vec::new(), ..first.clone() };
        cluster.apply(Event::ServiceApplied(without));
        assert_eq!(cluster.drain_dirty(), [first.id.clone(), rival.id.clone()]);
        cluster.apply(Event::ServiceApplied(first.clone()));
        assert_eq!(cluster.drain_dirty(), [first.id, rival.id]);
    }
}
