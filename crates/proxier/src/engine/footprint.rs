use foldhash::HashMap;

use crate::{
    desired::{Desired, Shared, Skipped},
    model::{ServiceId, VirtualServerKey},
};

/// What each Service has asked for so far, so that it can be taken back.
#[derive(Debug, Default)]
pub(super) struct Footprints {
    of: HashMap<ServiceId, Footprint>,
    /// How many Services need what can be shared. Invariant: no count is 0.
    users: HashMap<Shared, usize>,
}

#[derive(Debug, Default)]
pub(super) struct Footprint {
    pub(super) keys: Vec<VirtualServerKey>,
    pub(super) shared: Vec<Shared>,
    pub(super) skipped: Vec<Skipped>,
}

impl Footprints {
    /// Remembers what a Service asks for now, and returns what it asked for before.
    pub(super) fn replace(&mut self, id: &ServiceId, desired: &Desired) -> Footprint {
        let new = Footprint {
            keys: desired.virtual_servers.keys().copied().collect(),
            shared: desired.shared.iter().copied().collect(),
            skipped: desired.skipped.clone(),
        };
        for shared in &new.shared {
            *self.users.entry(*shared).or_default() += 1;
        }
        let empty = new.keys.is_empty() && new.skipped.is_empty();
        let old =
            if empty { self.of.remove(id) } else { self.of.insert(id.clone(), new) }.unwrap_or_default();
        old.shared.iter().for_each(|shared| self.release(*shared));
        old
    }

    /// Whether any Service needs it.
    pub(super) fn need(&self, shared: Shared) -> bool {
        self.users.contains_key(&shared)
    }

    fn release(&mut self, shared: Shared) {
        let Some(users) = self.users.get_mut(&shared) else { return };
        *users -= 1;
        if *users == 0 {
            self.users.remove(&shared);
        }
    }
}
