use std::fmt;

use foldhash::HashMap;

use super::Kind;
use crate::model::{PortNumber, Protocol, ServicePortId, Timestamp, VirtualServerKey};

/// Something that only one port of one Service can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim {
    /// An address, a protocol and a port to listen on.
    VirtualServer(VirtualServerKey),
    /// A node port, on all addresses of the node at once.
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

/// Who asks for a claim. The order decides who gets it: by the kind of address, then the oldest Service, then the first
/// by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claimant {
    /// The kind of address for which it asks.
    pub kind: Kind,
    /// When its Service was created.
    pub created: Timestamp,
    /// The Service port that asks.
    pub port: ServicePortId,
}

/// All claims and who asks for them: the one place where Services meet.
#[derive(Debug, Default)]
pub(super) struct Claims {
    // Invariant: no list is empty, each is sorted; nearly all have one entry.
    claimants: HashMap<Claim, Vec<Claimant>>,
}

impl Claims {
    /// Who has the claim.
    pub(super) fn holder(&self, claim: &Claim) -> Option<&Claimant> {
        self.claimants.get(claim)?.first()
    }

    /// Adds a claimant and returns those for whom it makes a difference: all others, where it is the first now.
    pub(super) fn add(&mut self, claim: Claim, claimant: Claimant) -> &[Claimant] {
        let list = self.claimants.entry(claim).or_insert_with(|| Vec::with_capacity(1));
        let Err(place) = list.binary_search(&claimant) else { return &[] };
        list.insert(place, claimant);
        if place == 0 { list } else { &[] }
    }

    /// Takes a claimant away and returns those for whom it makes a difference: all others, where it was the first.
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
