//! Deletions that are executed in batches of bounded size.

use std::mem;

use netlink_batch::{Batch, Error, Failure};

use super::entry::Entry;

/// Maximum number of deletions of a batch, which then has half a megabyte.
const MAX_BATCH: usize = 4096;

pub(super) struct Deletions<E> {
    execute: E,
    batch: Batch,
    deleted: usize,
    /// The first error. It does not stop the other deletions.
    outcome: Result<(), Error>,
}

impl<E: FnMut(Batch) -> Result<Vec<Failure>, Error>> Deletions<E> {
    pub(super) fn new(execute: E) -> Self {
        Self { execute, batch: Batch::new(), deleted: 0, outcome: Ok(()) }
    }

    pub(super) fn push(&mut self, entry: &Entry) {
        entry.delete(&mut self.batch);
        if self.batch.len() == MAX_BATCH {
            self.flush();
        }
    }

    /// Returns the number of deleted flows.
    pub(super) fn finish(mut self) -> Result<usize, Error> {
        self.flush();
        self.outcome.map(|()| self.deleted)
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = mem::take(&mut self.batch);
        let count = batch.len();
        let executed = (self.execute)(batch).and_then(|failures| {
            self.deleted += count - failures.len();
            rejection(failures)
        });
        let outcome = mem::replace(&mut self.outcome, Ok(()));
        self.outcome = outcome.and(executed);
    }
}

/// The first rejected deletion. A flow that has ended by itself is no failure.
fn rejection(failures: Vec<Failure>) -> Result<(), Error> {
    match failures.into_iter().find(|failure| !failure.error.is_not_found()) {
        Some(failure) => Err(failure.error.into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use netlink_batch::KernelError;
    use rustix::io::Errno;

    use super::*;
    use crate::{
        linux::conntrack::tests::{entry, key},
        model::Protocol,
    };

    fn failure(errno: Errno) -> Failure {
        Failure { request: 0, error: KernelError::from_errno(errno.raw_os_error()) }
    }

    fn flow(number: usize) -> Entry {
        let id = Some(u32::try_from(number).unwrap().to_be_bytes());
        Entry { id, ..entry(key(Protocol::Udp, "10.96.0.10:53"), None) }
    }

    #[test]
    fn deletion_of_a_missing_flow_is_no_failure() {
        assert!(rejection(vec![]).is_ok());
        assert!(rejection(vec![failure(Errno::NOENT)]).is_ok());
        assert!(rejection(vec![failure(Errno::NOENT), failure(Errno::BUSY)]).is_err());
    }

    #[test]
    fn deletions_are_executed_once_each_in_bounded_batches() {
        for count in [0, 1, MAX_BATCH - 1, MAX_BATCH, MAX_BATCH + 1, 10 * MAX_BATCH + 7] {
            let mut executed = Vec::new();
            let mut deletions = Deletions::new(|batch: Batch| {
                assert!(batch.len() <= MAX_BATCH && batch.as_bytes().len() <= 512 << 10);
                executed.extend((0..batch.len()).map(|number| batch.request(number).to_vec()));
                Ok(vec![])
            });
            (0..count).for_each(|number| deletions.push(&flow(number)));
            assert_eq!(deletions.finish().unwrap(), count);
            let mut expected = Batch::new();
            (0..count).for_each(|number| flow(number).delete(&mut expected));
            assert_eq!(executed.concat(), expected.as_bytes());
        }
    }

    #[test]
    fn failed_deletion_stops_no_other_and_the_first_error_is_returned() {
        let answers =
            [Ok(vec![failure(Errno::NOENT)]), Ok(vec![failure(Errno::BUSY)]), Err(Error::Overrun), Ok(vec![])];
        let mut answers = answers.into_iter();
        let mut deletions = Deletions::new(|_| answers.next().unwrap());
        (0..3 * MAX_BATCH + 1).for_each(|number| deletions.push(&flow(number)));
        let error = deletions.finish().unwrap_err();
        assert_eq!(error.errno(), Some(Errno::BUSY.raw_os_error()), "{error}");
        assert!(answers.next().is_none(), "all batches were executed");

        let mut deletions = Deletions::new(|_| Ok(vec![failure(Errno::NOENT)]));
        (0..MAX_BATCH + 1).for_each(|number| deletions.push(&flow(number)));
        assert_eq!(deletions.finish().unwrap(), MAX_BATCH - 1, "two flows had ended by themselves");
    }
}
