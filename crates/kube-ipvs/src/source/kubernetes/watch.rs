//! One collection of objects, listed and then watched, for ever.

use std::time::Duration;

use futures_util::StreamExt;
use kube::api::WatchEvent;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{
    cache::Update,
    failure::Failure,
    list::{Age, Collection, Listed, Opened},
    resource::{Head, Resource},
    retry::Retry,
};

/// A watch that ends sooner, without having told anything, counts as a failure: without a pause it would be made again
/// and again, as fast as the network goes.
const MIN_WATCH_TIME: Duration = Duration::from_secs(1);

/// The receiver of updates is gone.
pub(super) struct ReceiverGone;

pub(super) struct Watch {
    collection: Collection,
    updates: mpsc::Sender<(Resource, Update)>,
    retry: Retry,
    /// How old the next list may be.
    age: Age,
    /// Whether the only object that is watched does not exist, which is logged once.
    is_missed: bool,
}

impl Watch {
    pub(super) fn new(collection: Collection, retry: Retry, updates: mpsc::Sender<(Resource, Update)>) -> Self {
        Self { collection, updates, retry, age: Age::Any, is_missed: false }
    }

    /// Tells what there is and what changes, as long as there is a receiver.
    pub(super) async fn run(mut self) -> ReceiverGone {
        loop {
            match self.list_and_follow().await {
                Ok(failure) => {
                    if self.pause(&failure).await.is_err() {
                        return ReceiverGone;
                    }
                }
                Err(gone) => return gone,
            }
        }
    }

    /// Lists, and follows from there on until everything has to be listed again; says why.
    async fn list_and_follow(&mut self) -> Result<Failure, ReceiverGone> {
        let Listed { objects, mut version, watch } = match self.collection.list(&self.age).await {
            Ok(listed) => listed,
            Err(failure) => return self.tell(Update::Unanswered).await.map(|()| failure),
        };
        self.retry.answered();
        self.record_missing(objects.is_empty());
        self.tell(Update::Listed(objects)).await?;
        let failure = self.follow(&mut version, watch).await?;
        let is_gone_back = matches!(failure, Failure::GoneBack { .. });
        self.age = if is_gone_back { Age::Now } else { Age::NotOlderThan(version) };
        Ok(failure)
    }

    async fn tell(&self, updates: Update) -> Result<(), ReceiverGone> {
        self.updates.send((self.collection.resource, updates)).await.map_err(|_| ReceiverGone)
    }

    /// Waits after a failure.
    async fn pause(&mut self, failure: &Failure) -> Result<(), ReceiverGone> {
        if let Some(note) = self.retry.failed(failure) {
            self.tell(Update::OutOfContact(note)).await?;
        }
        self.retry.pause(failure).await;
        Ok(())
    }

    fn record_missing(&mut self, is_empty: bool) {
        let Some(name) = &self.collection.name else { return };
        if is_empty && !self.is_missed {
            tracing::warn!(
                "there is no Node {name}: no endpoint counts as local to this node, and nothing is known of its zone and its \
                 pods' ranges. Set --hostname-override (hostnameOverride in a file) to the name of this node's Node"
            );
        }
        self.is_missed = is_empty;
    }

    /// Tells what changes, by one watch after the other, until everything has to be listed again; says why.
    async fn follow(&mut self, version: &mut String, mut watch: Option<Opened>) -> Result<Failure, ReceiverGone> {
        // Whether the API server may have lost what we know of, as by a restore of etcd. It would accept our version
        // and tell nothing until its own has come as far. One that works ends no watch early and sends bookmarks.
        let mut is_suspect = false;
        loop {
            let start = Instant::now();
            let ended = match self.check(&mut is_suspect, version).await {
                Ok(()) => self.watch(version, watch.take()).await?,
                Err(failure) => Err(failure),
            };
            let failure = match ended {
                Ok(Ended { heard, early }) => {
                    is_suspect = early || !heard;
                    if heard {
                        continue;
                    }
                    if start.elapsed() >= MIN_WATCH_TIME {
                        self.retry.works();
                        continue;
                    }
                    Failure::Closed
                }
                Err(failure) => failure,
            };
            is_suspect = true;
            if failure.needs_list() || self.retry.is_stale() {
                return Ok(failure);
            }
            self.pause(&failure).await?;
            if self.retry.is_stale() {
                return Ok(failure);
            }
        }
    }

    /// Looks whether the API server still has the state of that version, if there is doubt.
    async fn check(&mut self, is_suspect: &mut bool, version: &str) -> Result<(), Failure> {
        if *is_suspect {
            let current = self.collection.current_version().await?;
            self.retry.heard();
            goes_on(version, &current)?;
            *is_suspect = false;
        }
        Ok(())
    }

    /// One watch. Brings `version` up to the last that was seen.
    async fn watch(
        &mut self,
        version: &mut String,
        watch: Option<Opened>,
    ) -> Result<Result<Ended, Failure>, ReceiverGone> {
        let watch = match watch {
            Some(watch) => Ok(watch),
            None => self.collection.open(false, version).await,
        };
        let Opened { mut events, end, overtime } = match watch {
            Ok(watch) => watch,
            Err(failure) => return Ok(Err(failure)),
        };
        self.retry.answered();
        let mut heard = false;
        loop {
            // It may have told something a moment before it died, so this counts from the start.
            let next = match timeout_at(end + overtime.unwrap_or_default(), events.next()).await {
                Ok(next) => next,
                Err(_) if overtime.is_none() => None,
                Err(_) => return Ok(Err(Failure::Silent(self.collection.limits.watch))),
            };
            let Some(event) = next else { return Ok(Ok(Ended { heard, early: Instant::now() < end })) };
            match event.map_err(Failure::from).and_then(|event| self.read(version, event)) {
                Ok(updates) => {
                    if let Some(updates) = updates {
                        self.tell(updates).await?;
                    }
                }
                Err(failure) => return Ok(Err(failure)),
            }
            heard = true;
            self.retry.heard();
            self.retry.works();
        }
    }

    /// What an event says. Brings `version` up to it.
    fn read(
        &self,
        version: &mut String,
        event: WatchEvent<Box<serde_json::value::RawValue>>,
    ) -> Result<Option<Update>, Failure> {
        let (updates, now) = match event {
            WatchEvent::Added(json) | WatchEvent::Modified(json) => {
                let object = self.collection.read(&json);
                let now = object.version.clone();
                (Some(Update::Applied(Box::new(object))), now)
            }
            WatchEvent::Deleted(json) => {
                let Head { key, version, .. } = self.collection.resource.head(&json);
                (Some(Update::Deleted(key)), version)
            }
            WatchEvent::Bookmark(mark) => (None, Some(mark.metadata.resource_version)),
            WatchEvent::Error(status) => return Err(Failure::Ended(status)),
        };
        let now = now.ok_or(Failure::NoVersion)?;
        goes_on(version, &now)?;
        *version = now;
        Ok(updates)
    }
}

/// How a watch has ended that did not fail.
struct Ended {
    /// Whether it has told anything.
    heard: bool,
    /// Whether it was to last longer.
    early: bool,
}

/// Fails where the API server has gone back in time. Versions are numbers wherever etcd stores the objects; where they
/// are none, nothing is known.
fn goes_on(known: &str, now: &str) -> Result<(), Failure> {
    match (known.parse::<u64>(), now.parse::<u64>()) {
        (Ok(before), Ok(after)) if after < before => Err(Failure::GoneBack { known: known.into(), now: now.into() }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::goes_on;

    #[test]
    fn versions_are_compared_as_numbers() {
        let is_proof = |known, now| goes_on(known, now).is_err();
        assert!(is_proof("1200", "1001"));
        assert!(is_proof("10", "9"));
        assert!(!is_proof("9", "10"));
        assert!(!is_proof("9", "9"));
        // From an API server that does not keep objects in etcd.
        assert!(!is_proof("b", "a"));
        assert!(!is_proof("", "5"));
    }
}
