//! What the API server has said so far, and what that changes. No input, no output, no clock.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use proxier::{
    Completeness,
    model::{Event, ServiceId},
};
use proxier_kubernetes::{Invalid, Key};

use super::resource::{Object, Resource};
use crate::{
    events::{About, EventNote},
    source::{Changes, Problem},
};

/// What a watch has to tell.
#[derive(Debug)]
pub(super) enum Update {
    /// These are all the objects that there are.
    Listed(Vec<Object>),
    /// An object is new or has changed.
    Applied(Box<Object>),
    /// An object is gone.
    Deleted(Key),
    /// The API server was asked and had no list to give. Only of interest before there was one.
    Unanswered,
    /// There is no contact with the API server for so long that an Event is to say so.
    OutOfContact(String),
}

/// The known objects, with no more of each than kube-ipvs needs to find two sets: the objects that have gone when it
/// lists all again, and those that it cannot follow. The objects themselves are the engine's.
///
/// An object that cannot be followed keeps its last good content in force, and touches no other one.
#[derive(Debug)]
pub(super) struct Cache {
    server: Arc<str>,
    collections: BTreeMap<Resource, Collection>,
}

#[derive(Debug, Default)]
struct Collection {
    listed: bool,
    answered: bool,
    /// The objects that the engine knows.
    followed: HashSet<Key>,
    /// The objects that exist and cannot be followed as they are now.
    unreadable: BTreeMap<Key, Invalid>,
    /// What is passed over of objects that are followed.
    ignored: BTreeMap<Key, Vec<Invalid>>,
}

impl Cache {
    /// Nothing is known of what is on this server.
    pub(super) fn new(server: &str) -> Self {
        let collections = Resource::ALL.map(|resource| (resource, Collection::default()));
        Self { server: server.into(), collections: collections.into() }
    }

    /// Whether enough is known to act: all Services and EndpointSlices. The rest is waited for until the API server has
    /// said anything about it, since what it says may change what is made of every Service.
    pub(super) fn is_synced(&self) -> bool {
        let is_synced = |(resource, collection): (&Resource, &Collection)| {
            if resource.is_vital() { collection.listed } else { collection.answered }
        };
        self.collections.iter().all(is_synced)
    }

    /// Takes in what a watch tells, and adds what it changes.
    pub(super) fn take(&mut self, resource: Resource, update: Update, changes: &mut Changes) {
        let Some(collection) = self.collections.get_mut(&resource) else { return };
        collection.answered = true;
        let mut report = |key: &Key, reason: &Invalid, word: &'static str| {
            changes.event_notes.extend(resource.about(key).map(|about| EventNote {
                about,
                reason: word,
                note: reason.to_string(),
            }));
            let object = Some(key.to_string().into());
            changes.problems.push(Problem::of_object(&self.server, object, reason.clone()));
        };
        match update {
            Update::Unanswered => {}
            Update::OutOfContact(note) => {
                let reason = "OutOfContact";
                changes.event_notes.push(EventNote { about: About::Node, reason, note });
            }
            Update::Deleted(key) => {
                changes.uids.extend(uid(resource, &key, None));
                changes.events.extend(collection.remove(&key));
            }
            Update::Applied(mut object) => {
                if let (Some(since), Ok(Some(Event::SliceApplied(slice)))) = (object.trigger, &object.content) {
                    changes.triggers.push((slice.family, since));
                }
                changes.uids.extend(uid(resource, &object.key, object.uid.take()));
                changes.events.extend(collection.apply(*object, &mut report));
            }
            Update::Listed(objects) => {
                collection.listed = true;
                let listed: BTreeSet<Key> = objects.iter().map(|object| object.key.clone()).collect();
                let known = collection.followed.iter().chain(collection.unreadable.keys());
                let known = known.chain(collection.ignored.keys());
                let gone: BTreeSet<Key> = known.filter(|key| !listed.contains(*key)).cloned().collect();
                // What was removed and made again under another name may use the same address: first it goes.
                changes.events.extend(gone.iter().filter_map(|key| collection.remove(key)));
                changes.uids.extend(gone.iter().filter_map(|key| uid(resource, key, None)));
                for mut object in objects {
                    changes.uids.extend(uid(resource, &object.key, object.uid.take()));
                    changes.events.extend(collection.apply(object, &mut report));
                }
            }
        }
        self.conclude(changes);
    }

    /// Says of changes how much is known.
    pub(super) fn conclude(&self, changes: &mut Changes) {
        changes.unread = self.unread();
        changes.complete = self.completeness();
    }

    /// Whether all that exists is known: each Service and EndpointSlice could be followed at some time. If kube-ipvs
    /// could never follow a Service, what the kernel has of it belongs to no other Service. A slice has nothing there
    /// but by its Service.
    fn completeness(&self) -> Completeness {
        let unread = |(_, collection): (&Resource, &Collection)| collection.unread().next().is_some();
        if !self.vital().all(|(_, collection)| collection.listed) {
            return Completeness::Unknown;
        }
        if !self.vital().any(unread) {
            return Completeness::Complete;
        }
        let services = self.collections.get(&Resource::Services).into_iter().flat_map(Collection::unread);
        Completeness::Except(services.map(service).collect())
    }

    /// The first of the objects that could never be followed.
    fn unread(&self) -> Vec<Box<str>> {
        let all = self.vital().flat_map(|(_, collection)| collection.unread());
        all.take(MAX_UNREAD).map(|key| key.to_string().into()).collect()
    }

    fn vital(&self) -> impl Iterator<Item = (&Resource, &Collection)> {
        self.collections.iter().filter(|(resource, _)| resource.is_vital())
    }
}

/// How many objects are named that could never be followed: the log has said all of them.
const MAX_UNREAD: usize = 10;

/// The Service that this is the key of.
fn service(key: &Key) -> ServiceId {
    ServiceId { namespace: key.namespace.clone(), name: key.name.clone() }
}

/// What an Event about a Service has to say, so that `kubectl describe` finds it.
fn uid(resource: Resource, key: &Key, uid: Option<Box<str>>) -> Option<(ServiceId, Option<Box<str>>)> {
    (resource == Resource::Services).then(|| (service(key), uid))
}

impl Collection {
    /// The objects that could never be followed.
    fn unread(&self) -> impl Iterator<Item = &Key> {
        self.unreadable.keys().filter(|key| !self.followed.contains(*key))
    }

    fn apply(&mut self, object: Object, report: &mut impl FnMut(&Key, &Invalid, &'static str)) -> Option<Event> {
        let Object { key, content, ignored, .. } = object;
        // What was wrong before is not said again.
        match content {
            Ok(event) => {
                self.unreadable.remove(&key);
                let before = self.ignored.remove(&key).unwrap_or_default();
                ignored
                    .iter()
                    .filter(|reason| !before.contains(reason))
                    .for_each(|reason| report(&key, reason, "PartLeftOut"));
                if !ignored.is_empty() {
                    self.ignored.insert(key.clone(), ignored);
                }
                if event.is_some() {
                    self.followed.insert(key);
                    return event;
                }
                self.followed.take(&key)?.removed()
            }
            Err(reason) => {
                if self.unreadable.get(&key) != Some(&reason) {
                    report(&key, &reason, "ObjectUnreadable");
                    self.unreadable.insert(key, reason);
                }
                None
            }
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Event> {
        self.unreadable.remove(key);
        self.ignored.remove(key);
        self.followed.take(key)?.removed()
    }
}
