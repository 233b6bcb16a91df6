use std::collections::BTreeSet;

use foldhash::HashMap;

use crate::{
    desired::{Desired, HealthCheck, SharedResource, Skipped},
    model::{ServiceId, VirtualServerKey},
    set::KeySet,
};

/// What each Service has asked for so far, so that it can be taken back.
#[derive(Debug, Default)]
pub(super) struct Contributions {
    of: HashMap<ServiceId, Contribution>,
    /// How many Services need what can be shared. Invariant: no count is 0.
    users: HashMap<SharedResource, usize>,
    /// How many Services have each of these.
    no_local: NoLocal<usize>,
}

/// Of which policies, `[internal, external]`, and families a Service's traffic is to stay on this node, where none of
/// its endpoints takes any.
pub(super) type NoLocal<T> = [[T; 2]; 2];

#[derive(Debug, Default)]
pub(super) struct Contribution {
    pub(super) keys: Vec<VirtualServerKey>,
    pub(super) shared: Vec<SharedResource>,
    pub(super) skipped: BTreeSet<Skipped>,
    pub(super) health_check: Option<HealthCheck>,
    no_local: NoLocal<bool>,
}

impl Contribution {
    fn of(id: &ServiceId, desired: &Desired) -> Self {
        let mut no_local = NoLocal::default();
        for (key, server) in &desired.virtual_servers {
            for (policy, set) in
                [KeySet::NoLocalEndpoints, KeySet::NoLocalEndpointsExternal].into_iter().enumerate()
            {
                no_local[policy][key.family() as usize] |= server.sets.contains(set);
            }
        }
        Self {
            keys: desired.virtual_servers.keys().copied().collect(),
            shared: desired.shared.iter().copied().collect(),
            skipped: desired.skipped.clone(),
            health_check: desired.health_checks.get(id).copied(),
            no_local,
        }
    }

    /// Whether nothing of it has ever to be taken back.
    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.skipped.is_empty() && self.health_check.is_none()
    }
}

impl Contributions {
    /// Remembers what a Service asks for now, and returns what it asked for before.
    pub(super) fn replace(&mut self, id: &ServiceId, desired: &Desired) -> Contribution {
        let new = Contribution::of(id, desired);
        for shared in &new.shared {
            *self.users.entry(*shared).or_default() += 1;
        }
        let no_local = new.no_local;
        let old = if new.is_empty() { self.of.remove(id) } else { self.of.insert(id.clone(), new) };
        let old = old.unwrap_or_default();
        for (policy, family) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let count = &mut self.no_local[policy][family];
            *count =
                *count + usize::from(no_local[policy][family]) - usize::from(old.no_local[policy][family]);
        }
        old.shared.iter().for_each(|shared| self.release(*shared));
        old
    }

    /// Whether any Service needs it.
    pub(super) fn need(&self, shared: SharedResource) -> bool {
        self.users.contains_key(&shared)
    }

    /// How many Services have traffic that is to stay on this node, where none of their endpoints takes it.
    pub(super) fn no_local(&self) -> NoLocal<usize> {
        self.no_local
    }

    fn release(&mut self, shared: SharedResource) {
        let Some(users) = self.users.get_mut(&shared) else { return };
        *users -= 1;
        if *users == 0 {
            self.users.remove(&shared);
        }
    }
}
