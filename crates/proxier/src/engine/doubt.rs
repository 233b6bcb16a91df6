//! Keeps state in the kernel while some objects are unknown.

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

/// How long the engine waits for unreadable objects. The state of the Services among them stays without limit.
const UNREADABLE_GRACE: Duration = Duration::from_secs(24 * 3600);

/// Whether the engine knows all Services and EndpointSlices that exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Completeness {
    /// It knows all of them.
    Complete,
    /// Some objects are unreadable, and these are all the Services among them.
    Except(BTreeSet<ServiceId>),
    /// Any object can exist.
    #[default]
    Unknown,
}

#[derive(Debug, Default)]
pub(super) struct Doubt {
    completeness: Completeness,
    /// Whether the engine once knew all readable objects.
    has_known: bool,
    /// When objects became unreadable.
    since: Option<Duration>,
    /// Whether `UNREADABLE_GRACE` is over.
    is_over: bool,
}

impl Doubt {
    /// Sets the completeness. Returns whether it has just become complete.
    pub(super) fn set(&mut self, completeness: Completeness) -> bool {
        let before = std::mem::replace(&mut self.completeness, completeness);
        self.has_known |= self.completeness != Completeness::Unknown;
        if !matches!(self.completeness, Completeness::Except(_)) {
            (self.since, self.is_over) = (None, false);
        }
        self.completeness == Completeness::Complete && before != Completeness::Complete
    }

    pub(super) fn sync(&mut self, now: Duration) {
        if let Completeness::Except(_) = self.completeness {
            let since = *self.since.get_or_insert(now);
            self.is_over = now >= since + UNREADABLE_GRACE;
        }
    }

    /// Whether the engine has stopped waiting for unknown objects.
    pub(super) fn is_over(&self) -> bool {
        self.is_over || self.completeness == Completeness::Complete
    }

    /// Whether the engine once knew all readable objects, so that it can compare the kernel's ranges with theirs.
    pub(super) fn has_known(&self) -> bool {
        self.has_known
    }

    /// State of kube-ipvs in the kernel that the engine can remove if no Service wants it. `before` is the state that
    /// the engine expected.
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
            // The record names no Service for this key, as for virtual servers that kube-proxy made.
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

/// The Service that the record names for a virtual server.
fn owner(state: &State, key: &VirtualServerKey) -> Option<ServiceId> {
    let comment = state.elements.get(key)?.comment.as_deref()?;
    let (service, _) = comment.split_once(':').unwrap_or((comment, ""));
    let (namespace, name) = service.split_once('/')?;
    Some(ServiceId::new(namespace, name))
}
