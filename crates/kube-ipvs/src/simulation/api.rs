//! The model API server: stored objects, and the log of their changes.

use std::collections::{BTreeMap, VecDeque};

use super::objects::{Stored, Which};

/// The collection and the name of an object.
pub(super) type Id = (Which, String);

#[derive(Debug, Clone)]
pub(super) enum Logged {
    Applied(Stored),
    /// The last content of the object.
    Deleted(Stored),
}

#[derive(Debug, Default)]
pub(super) struct Api {
    objects: BTreeMap<Id, Stored>,
    pub(super) log: Vec<(Id, Logged)>,
    /// The objects before each of the last writes.
    past: VecDeque<BTreeMap<Id, Stored>>,
    pub(super) is_down: bool,
}

/// The maximum number of writes that a restore can undo.
const MAX_PAST: usize = 12;

impl Api {
    pub(super) fn get(&self, which: Which, name: &str) -> Option<&Stored> {
        self.objects.get(&(which, name.to_owned()))
    }

    pub(super) fn list(&self, which: Which) -> impl Iterator<Item = (&Id, &Stored)> {
        self.objects.iter().filter(move |((of, _), _)| *of == which)
    }

    pub(super) fn put(&mut self, which: Which, name: String, stored: Stored) {
        let id = (which, name);
        if self.objects.get(&id) == Some(&stored) {
            return;
        }
        self.remember();
        self.log.push((id.clone(), Logged::Applied(stored.clone())));
        self.objects.insert(id, stored);
    }

    pub(super) fn delete(&mut self, which: Which, name: &str) {
        let id = (which, name.to_owned());
        let Some(last) = self.objects.get(&id).cloned() else { return };
        self.remember();
        self.objects.remove(&id);
        self.log.push((id, Logged::Deleted(last)));
    }

    /// Undoes the last writes, as a restore of etcd does. Watches do not report it.
    pub(super) fn restore(&mut self, writes: usize) {
        let Some(index) = self.past.len().checked_sub(writes.max(1)) else { return };
        self.past.truncate(index + 1);
        self.objects = self.past.pop_back().unwrap_or_default();
    }

    fn remember(&mut self) {
        if self.past.len() == MAX_PAST {
            self.past.pop_front();
        }
        self.past.push_back(self.objects.clone());
    }
}
