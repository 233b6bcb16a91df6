//! What is kept in the kernel because not all that exists could be read.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    time::Duration,
};

use super::decide::Scope;
use crate::{
    desired::SharedResource,
    model::{ServiceId, VirtualServerKey},
    state::State,
};

/// How long anything waits for objects that cannot be read. The state that the kernel has of these Services waits
/// without limit.
const UNREADABLE_GRACE: Duration = Duration::from_secs(24 * 3600);

/// Whether all Services and EndpointSlices that exist are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Completeness {
    /// All of them are.
    Complete,
    /// Some cannot be read, and these Services are all the Services among them.
    Except(BTreeSet<ServiceId>),
    /// Anything may exist.
    #[default]
    Unknown,
}

/// What may exist and is not known.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    completeness: Completeness,
    /// Whether all that can be read was known once.
    has_known: bool,
    /// Since when some objects cannot be read.
    since: Option<Duration>,
    /// Whether that has been so for long enough.
    is_over: bool,
}

impl Doubt {
    /// Takes in how things are. Returns whether all is known now and was not.
    pub(super) fn set(&mut self, completeness: Completeness) -> bool {
        let before = std::mem::replace(&mut self.completeness, completeness);
        self.has_known |= self.completeness != Completeness::Unknown;
        if !matches!(self.completeness, Completeness::Except(_)) {
            (self.since, self.is_over) = (None, false);
        }
        self.completeness == Completeness::Complete && before != Completeness::Complete
    }

    /// A sync begins.
    pub(super) fn sync(&mut self, now: Duration) {
        if let Completeness::Except(_) = self.completeness {
            let since = *self.since.get_or_insert(now);
            self.is_over = now >= since + UNREADABLE_GRACE;
        }
    }

    /// Whether there is nothing more to wait for.
    pub(super) fn is_over(&self) -> bool {
        self.is_over || self.completeness == Completeness::Complete
    }

    /// Whether all that can be read was known once, so that ranges of the kernel's can be compared with it.
    pub(super) fn has_known(&self) -> bool {
        self.has_known
    }

    /// Our state in the kernel that the engine may remove if no Service wants it. `before` is the state that the engine
    /// believed to be there.
    pub(super) fn leftovers(&self, state: &State, before: &State) -> Scope {
        let shared = state.shared().chain(before.shared());
        let unread = match &self.completeness {
            Completeness::Unknown => return Scope::default(),
            Completeness::Complete => {
                return Scope { keys: state.keys().collect(), shared: shared.collect() };
            }
            Completeness::Except(unread) => unread,
        };
        let may_go = |key: &VirtualServerKey| match owner(state, key) {
            Some(owner) => !unread.contains(&owner),
            // Our record names no Service for it, as for what kube-proxy made.
            None => self.is_over,
        };
        let (keys, kept): (HashSet<_>, HashSet<_>) = state.keys().partition(may_go);
        let kept: HashSet<IpAddr> = kept.iter().map(|key| key.address).collect();
        let shared = shared.filter(|shared| match shared {
            SharedResource::Vip(address) => !kept.contains(address),
            SharedResource::HealthCheck(key) => !kept.contains(&key.address),
            SharedResource::Hairpin(..) => kept.is_empty(),
        });
        Scope { keys: keys.into_iter().collect(), shared: shared.collect() }
    }
}

/// The Service that our record names for a virtual server.
fn owner(state: &State, key: &VirtualServerKey) -> Option<ServiceId> {
    let comment = state.elements.get(key)?.comment.as_deref()?;
    let (service, _) = comment.split_once(':').unwrap_or((comment, ""));
    let (namespace, name) = service.split_once('/')?;
    Some(ServiceId::new(namespace, name))
}
