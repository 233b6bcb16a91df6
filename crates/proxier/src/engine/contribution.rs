use std::collections::BTreeSet;

use foldhash::HashMap;

use super::NoLocalEndpoints;
use crate::{
    cluster::EndpointAddress,
    desired::{Desired, HealthCheck, SharedResource, Skipped},
    model::{Family, ServiceId, VirtualServerKey},
    set::KeySet,
};

/// The resources that each Service has asked for, so that the engine can remove them later.
#[derive(Debug, Default)]
pub(super) struct Contributions {
    of: HashMap<ServiceId, Contribution>,
    /// The number of Services that need a resource. Invariant: no count is 0.
    users: HashMap<SharedResource, usize>,
    no_local: NoLocalEndpoints,
}

#[derive(Debug, Default)]
pub(super) struct Contribution {
    pub(super) keys: Vec<VirtualServerKey>,
    pub(super) shared: Vec<SharedResource>,
    pub(super) skipped: BTreeSet<Skipped>,
    pub(super) health_check: Option<HealthCheck>,
    /// The short circuits that the kernel lacks only because no endpoint serves.
    pub(super) paused: Vec<(VirtualServerKey, EndpointAddress)>,
    /// Whether the Service counts: 0 or 1.
    no_local: NoLocalEndpoints,
}

impl Contribution {
    fn of(id: &ServiceId, desired: &Desired) -> Self {
        let mut no_local = NoLocalEndpoints::default();
        for (key, server) in &desired.virtual_servers {
            let family = key.family() as usize;
            let is_in = |set| usize::from(server.sets.contains(set));
            no_local.internal[family] |= is_in(KeySet::NoLocalEndpoints);
            no_local.external[family] |= is_in(KeySet::NoLocalEndpointsExternal);
        }
        Self {
            keys: desired.virtual_servers.keys().copied().collect(),
            shared: desired.shared.iter().copied().collect(),
            skipped: desired.skipped.clone(),
            health_check: desired.health_checks.get(id).copied(),
            paused: desired
                .virtual_servers
                .iter()
                .filter_map(|(key, server)| Some((*key, server.paused_short_circuit?)))
                .collect(),
            no_local,
        }
    }

    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.skipped.is_empty() && self.health_check.is_none()
    }
}

impl Contributions {
    /// Stores the requests of a Service, and returns its previous ones.
    pub(super) fn replace(&mut self, id: &ServiceId, desired: &Desired) -> Contribution {
        let new = Contribution::of(id, desired);
        for shared in &new.shared {
            *self.users.entry(*shared).or_default() += 1;
        }
        let no_local = new.no_local;
        let old = if new.is_empty() { self.of.remove(id) } else { self.of.insert(id.clone(), new) };
        let old = old.unwrap_or_default();
        for family in Family::ALL.map(|family| family as usize) {
            let NoLocalEndpoints { internal, external } = &mut self.no_local;
            internal[family] = internal[family] + no_local.internal[family] - old.no_local.internal[family];
            external[family] = external[family] + no_local.external[family] - old.no_local.external[family];
        }
        old.shared.iter().for_each(|shared| self.release(*shared));
        old
    }

    pub(super) fn keys_of(&self, id: &ServiceId) -> &[VirtualServerKey] {
        self.of.get(id).map_or(&[], |contribution| &contribution.keys)
    }

    pub(super) fn need(&self, shared: SharedResource) -> bool {
        self.users.contains_key(&shared)
    }

    pub(super) fn no_local(&self) -> NoLocalEndpoints {
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
