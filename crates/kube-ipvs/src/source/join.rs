use std::{collections::HashSet, hash::Hash};

use proxier::model::Event;

use super::Changes;

/// How many problems, notes and triggers can queue up. kube-ipvs drops the rest: they are diagnostics, not state.
const MAX_EVENTS: usize = 1_000;

impl Changes {
    /// Appends later changes to changes that the owner thread has not applied yet.
    pub fn join(&mut self, later: Self) {
        self.events.extend(later.events);
        self.uids.extend(later.uids);
        extend(&mut self.triggers, later.triggers);
        extend(&mut self.problems, later.problems);
        extend(&mut self.event_notes, later.event_notes);
        extend(&mut self.notes, later.notes);
        (self.unread, self.complete) = (later.unread, later.complete);
    }

    /// Keeps only the last event of each object.
    pub fn compact(&mut self) {
        keep_last(&mut self.events, Event::object);
        keep_last(&mut self.uids, |(service, _)| service.clone());
    }
}

fn extend<T>(list: &mut Vec<T>, more: Vec<T>) {
    // The first batch is kept in full: it takes no room from another.
    if list.is_empty() {
        *list = more;
        return;
    }
    let room = MAX_EVENTS.saturating_sub(list.len());
    list.extend(more.into_iter().take(room));
}

fn keep_last<T, K: Eq + Hash>(list: &mut Vec<T>, key: impl Fn(&T) -> K) {
    let mut seen = HashSet::with_capacity(list.len());
    let mut last: Vec<T> = std::mem::take(list).into_iter().rev().filter(|entry| seen.insert(key(entry))).collect();
    last.reverse();
    *list = last;
}
