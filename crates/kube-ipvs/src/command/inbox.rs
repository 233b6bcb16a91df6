use std::sync::Arc;

use parking_lot::Mutex;

use crate::{
    serve::{Status, Taken},
    source::Changes,
};

/// Changes that wait for the sync loop. While it is busy, they are merged, so the queue does not outgrow the cluster:
/// only the last state of each object counts.
#[derive(Clone)]
pub(crate) struct Inbox {
    status: Arc<Status>,
    waiting: Arc<Mutex<Option<Delivery>>>,
}

#[derive(Default)]
pub(crate) struct Delivery {
    pub(crate) changes: Changes,
    /// The counts of the delivered changes, before they were merged.
    pub(crate) taken: Taken,
    /// The number of changes up to which the delivery is not compacted.
    room: usize,
}

impl Inbox {
    pub(crate) fn new(status: Arc<Status>) -> Self {
        Self { status, waiting: Arc::default() }
    }

    /// Puts changes in. Returns whether the inbox was empty, so that the caller must notify the sync loop.
    pub(crate) fn put(&self, changes: Changes) -> bool {
        let mut waiting = self.waiting.lock();
        self.status.queued(&changes);
        let was_empty = waiting.is_none();
        waiting.get_or_insert_default().join(changes);
        was_empty
    }

    pub(crate) fn take(&self) -> Option<Delivery> {
        let mut waiting = self.waiting.lock();
        // Under the lock: a later `put` belongs to the next delivery.
        if waiting.is_some() {
            self.status.taken();
        }
        waiting.take()
    }
}

impl Delivery {
    fn join(&mut self, changes: Changes) {
        /// Compaction costs work for each change, so it starts only above this number.
        const MAX_MERGED: usize = 1_000;
        self.taken.add(&changes);
        self.changes.join(changes);
        if self.changes.events.len() > self.room.max(MAX_MERGED) {
            self.changes.compact();
            self.room = 2 * self.changes.events.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use proxier::Completeness;
    use proxier::model::{Event, Service, ServiceId};

    use super::*;
    use crate::{config::Configuration, source::Problem};

    fn service(number: u32, created: i64) -> Event {
        let service = Service::new(ServiceId::new("default", &format!("s{number}")));
        Event::ServiceApplied(Service { created, ..service })
    }

    /// A tenant whose objects come first in the alphabet does not displace objects that come after them.
    #[test]
    fn first_delivery_keeps_all_problems() {
        let inbox = Inbox::new(Arc::new(Status::new(&Configuration::default())));
        let problem = |number: u32| Problem {
            path: "https://10.0.0.1".into(),
            place: None,
            object: Some(format!("Service aaa/s{number}").into()),
            field: None,
            message: "is wrong".into(),
        };
        let problems: Vec<Problem> = (0..5_000).map(problem).collect();
        inbox.put(Changes { problems: problems.clone(), ..Changes::default() });
        inbox.put(Changes { problems: problems.clone(), ..Changes::default() });
        assert!(inbox.take().unwrap().changes.problems == problems);
    }

    /// While the sync loop hangs, the same 3,000 Services change 100 times.
    #[test]
    fn inbox_of_a_busy_sync_loop_stays_as_small_as_the_cluster() {
        let inbox = Inbox::new(Arc::new(Status::new(&Configuration::default())));
        for round in 0..100 {
            for part in 0..30 {
                let events = (part * 100..(part + 1) * 100).map(|number| service(number, round)).collect();
                let complete = Completeness::Complete;
                let was_empty = inbox.put(Changes { events, complete, ..Changes::default() });
                assert_eq!(was_empty, (round, part) == (0, 0));
            }
        }
        let mut changes = inbox.take().unwrap().changes;
        assert!(changes.events.len() <= 2 * 3_000, "{}", changes.events.len());
        changes.compact();
        assert!(changes.events == (0..3_000).map(|number| service(number, 99)).collect::<Vec<_>>());
        assert!(changes.complete == Completeness::Complete && inbox.take().is_none());
    }
}
