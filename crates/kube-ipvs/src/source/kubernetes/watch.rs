//! Lists and watches one collection of objects forever.

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

/// A watch that ends sooner, without an event, counts as a failure. Otherwise kube-ipvs would reopen it without a
/// pause, as fast as the network allows.
const MIN_WATCH_TIME: Duration = Duration::from_secs(1);

pub(super) struct ReceiverGone;

pub(super) struct Watch {
    collection: Collection,
    updates: mpsc::Sender<(Resource, Update)>,
    retry: Retry,
    age: Age,
    /// Whether the single watched object does not exist. Logged once.
    is_missed: bool,
}

impl Watch {
    pub(super) fn new(collection: Collection, retry: Retry, updates: mpsc::Sender<(Resource, Update)>) -> Self {
        Self { collection, updates, retry, age: Age::Any, is_missed: false }
    }

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

    /// Lists, then watches until everything must be listed again. Returns the reason.
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
                "the API server has no Node {name}: kube-ipvs treats no endpoint as local, and does not know this \
                 node's zone and pod ranges. Set --hostname-override (hostnameOverride in a file) to the name of this \
                 Node"
            );
        }
        self.is_missed = is_empty;
    }

    /// Runs one watch after the other until everything must be listed again. Returns the reason.
    async fn follow(&mut self, version: &mut String, mut watch: Option<Opened>) -> Result<Failure, ReceiverGone> {
        // Whether the API server may have lost state that kube-ipvs knows, for example by a restore of etcd. It would
        // accept the known version and stay silent until it reaches it. A healthy API server ends no watch early and
        // sends bookmarks.
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

    /// If in doubt, checks that the API server still has the state of that version.
    async fn check(&mut self, is_suspect: &mut bool, version: &str) -> Result<(), Failure> {
        if *is_suspect {
            let current = self.collection.current_version().await?;
            self.retry.heard();
            goes_on(version, &current)?;
            *is_suspect = false;
        }
        Ok(())
    }

    /// Runs one watch, and moves `version` on to the last one seen.
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
            // The deadline is fixed at the start: an event can arrive just before the connection dies.
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

    /// Parses an event, and moves `version` on to it.
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

/// The end of a watch that did not fail.
struct Ended {
    heard: bool,
    early: bool,
}

/// Fails if the API server went back in time. Only versions that are numbers, as with etcd, can be compared.
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
    fn resource_versions_are_compared_as_numbers() {
        let is_proof = |known, now| goes_on(known, now).is_err();
        assert!(is_proof("1200", "1001"));
        assert!(is_proof("10", "9"));
        assert!(!is_proof("9", "10"));
        assert!(!is_proof("9", "9"));
        // An API server that does not store objects in etcd.
        assert!(!is_proof("b", "a"));
        assert!(!is_proof("", "5"));
    }
}
