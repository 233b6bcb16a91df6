//! One connection, and when it may end.

use std::time::Duration;

use proxier::{
    cluster::EndpointAddress,
    model::{Protocol, VirtualServerKey},
    plan::Change,
};

use super::{
    super::{cluster::PodId, known::Place},
    Facts,
};

/// How long a UDP endpoint can still answer after it left.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Since when an endpoint is missing from a virtual server, by the objects that the daemon has received.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Absence {
    pub(super) since: Option<Duration>,
    /// Whether it was terminating before.
    pub(super) terminating: bool,
}

impl Absence {
    pub(super) fn note(&mut self, place: Place, now: Duration) {
        match place {
            Place::Serving { terminating } | Place::Draining { terminating } => self.terminating |= terminating,
            Place::Unlisted => drop(self.since.get_or_insert(now)),
        }
    }

    /// A sync has taken in the objects.
    pub(super) fn synced(&mut self, place: Place) {
        if let Place::Serving { terminating } | Place::Draining { terminating } = place {
            *self = Self { since: None, terminating };
        }
    }

    pub(super) fn is_over(&self, protocol: Protocol, facts: &Facts<'_>) -> bool {
        let limit = if protocol == Protocol::Udp { LAST_ANSWERS.min(facts.drain) } else { facts.drain };
        let is_dead = self.terminating && protocol != Protocol::Udp;
        is_dead || self.since.is_some_and(|since| facts.now >= since + limit)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) client: (u8, bool),
    /// The virtual server to which the client sends.
    pub(super) front: VirtualServerKey,
    /// The virtual server whose endpoint IPVS chose. `None` if a short circuit leads directly to the endpoint.
    pub(super) at: Option<VirtualServerKey>,
    /// Whether the client goes by a short circuit, so that conntrack alone forwards its packets.
    pub(super) is_short: bool,
    pub(super) endpoint: EndpointAddress,
    pub(super) pod: PodId,
    /// Whether the daemon has removed the real server behind the short circuit, so that it must also delete the flow.
    pub(super) is_released: bool,
}

impl Connection {
    pub(super) fn server(&self) -> VirtualServerKey {
        self.at.unwrap_or(self.front)
    }

    /// Whether the daemon may end the connection, by the objects that it has received.
    pub(super) fn may_end(&self, absence: Absence, facts: &Facts<'_>) -> bool {
        let Facts { cluster, known, .. } = facts;
        if !cluster.lives(self.pod) {
            return true;
        }
        // If a short circuit changes, kube-ipvs deletes its flows (docs/dataplane.md). The short circuit of 127.0.0.1
        // leads to an endpoint, which a list of real servers can lack.
        let is_moved = known.short_circuit(&self.front) != self.at || facts.is_misled && self.at.is_none();
        if self.is_short && is_moved && known.claims().contains_key(&self.front) {
            return true;
        }
        if [self.front, self.server()].iter().any(|key| !known.claims().contains_key(key)) {
            return !facts.is_unread(&self.front) && !facts.is_unread(&self.server());
        }
        let place = known.place(&self.server(), self.endpoint);
        place == Place::Unlisted && absence.is_over(self.front.protocol, facts)
    }

    pub(super) fn loses_endpoint_by(&self, change: &Change) -> bool {
        let removes = match change {
            Change::RemoveVirtualServer(key) => *key == self.server(),
            Change::RemoveRealServer { key, address } => (*key, *address) == (self.server(), self.endpoint),
            _ => false,
        };
        self.is_short && removes
    }

    pub(super) fn ends_by(&self, change: &Change) -> bool {
        match change {
            Change::RemoveVirtualServer(key) => !self.is_short && *key == self.front,
            Change::RemoveRealServer { key, address } => {
                !self.is_short && (*key, *address) == (self.front, self.endpoint)
            }
            Change::Unbind(address) => !self.is_short && *address == self.front.address,
            Change::DeleteFlows { to, endpoint, by_short_circuit } => {
                *to == self.front
                    && (self.is_short || !by_short_circuit)
                    && endpoint.is_none_or(|endpoint| endpoint == self.endpoint)
            }
            _ => false,
        }
    }
}
