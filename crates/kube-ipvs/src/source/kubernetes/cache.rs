//! The objects that the API server has reported, and the changes that follow from each report. Pure: no I/O and no
//! clock.

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

#[derive(Debug)]
pub(crate) enum Update {
    Listed(Vec<Object>),
    Applied(Box<Object>),
    Deleted(Key),
    /// A list failed. This matters only before the first list.
    Unanswered,
    /// kube-ipvs lost contact with the API server for longer than the limit. The text becomes the note of an Event.
    OutOfContact(String),
}

/// The keys that kube-ipvs needs to detect objects that vanished between two lists, and objects that it cannot parse.
/// The engine keeps the objects themselves.
///
/// If kube-ipvs cannot parse an object, the last good version stays in force. No other object is affected.
#[derive(Debug)]
pub(crate) struct Cache {
    server: Arc<str>,
    collections: BTreeMap<Resource, Collection>,
}

#[derive(Debug, Default)]
struct Collection {
    listed: bool,
    answered: bool,
    followed: HashSet<Key>,
    /// Objects that exist and that kube-ipvs cannot parse in their present version.
    unreadable: BTreeMap<Key, Invalid>,
    /// Fields that kube-ipvs ignores in objects that it follows.
    ignored: BTreeMap<Key, Vec<Invalid>>,
}

impl Cache {
    pub(crate) fn new(server: &str) -> Self {
        let collections = Resource::ALL.map(|resource| (resource, Collection::default()));
        Self { server: server.into(), collections: collections.into() }
    }

    /// Whether the engine can start: all Services and EndpointSlices are listed, and each optional resource was
    /// requested. An optional resource can change the rules of every Service, so kube-ipvs waits for the outcome of the
    /// first request.
    pub(crate) fn is_synced(&self) -> bool {
        let is_synced = |(resource, collection): (&Resource, &Collection)| {
            if resource.is_vital() { collection.listed } else { collection.answered }
        };
        self.collections.iter().all(is_synced)
    }

    pub(crate) fn take(&mut self, resource: Resource, update: Update, changes: &mut Changes) {
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
                // A new object can use the address of a vanished one, so removals come first.
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

    pub(crate) fn conclude(&self, changes: &mut Changes) {
        changes.unread = self.unread();
        changes.complete = self.completeness();
    }

    /// Whether each Service and EndpointSlice could be parsed at least once. If kube-ipvs could never parse a Service,
    /// the kernel's entries for it belong to no other Service. A slice has entries only through its Service.
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

    fn unread(&self) -> Vec<Box<str>> {
        let all = self.vital().flat_map(|(_, collection)| collection.unread());
        all.take(MAX_UNREAD).map(|key| key.to_string().into()).collect()
    }

    fn vital(&self) -> impl Iterator<Item = (&Resource, &Collection)> {
        self.collections.iter().filter(|(resource, _)| resource.is_vital())
    }
}

/// How many unparsed objects are listed by name. The log has named all of them.
const MAX_UNREAD: usize = 10;

fn service(key: &Key) -> ServiceId {
    ServiceId { namespace: key.namespace.clone(), name: key.name.clone() }
}

/// `kubectl describe service` finds an Event only by the UID of the Service.
fn uid(resource: Resource, key: &Key, uid: Option<Box<str>>) -> Option<(ServiceId, Option<Box<str>>)> {
    (resource == Resource::Services).then(|| (service(key), uid))
}

impl Collection {
    fn unread(&self) -> impl Iterator<Item = &Key> {
        self.unreadable.keys().filter(|key| !self.followed.contains(*key))
    }

    fn apply(&mut self, object: Object, report: &mut impl FnMut(&Key, &Invalid, &'static str)) -> Option<Event> {
        let Object { key, content, ignored, .. } = object;
        // A known problem is not reported again.
        match content {
            Ok(event) => {
                self.unreadable.remove(&key);
                let before = self.ignored.remove(&key).unwrap_or_default();
                ignored
                    .iter()
                    .filter(|reason| !before.contains(reason))
                    .for_each(|reason| report(&key, reason, "PartIgnored"));
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
                    report(&key, &reason, "InvalidObject");
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
