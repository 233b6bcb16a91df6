//! The objects of the API server and their history, as in etcd.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::http::Request;

/// A kind that proxies watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `v1`
    Service,
    /// `discovery.k8s.io/v1`
    EndpointSlice,
    /// `v1`
    Node,
    /// `networking.k8s.io/v1`
    ServiceCidr,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Service, Self::EndpointSlice, Self::Node, Self::ServiceCidr];

    pub(super) fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.words().2 == path)
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.words().0 == name)
    }

    /// The kind, its API version and its path.
    pub(super) fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Service => ("Service", "v1", "/api/v1/services"),
            Self::EndpointSlice => ("EndpointSlice", "discovery.k8s.io/v1", "/apis/discovery.k8s.io/v1/endpointslices"),
            Self::Node => ("Node", "v1", "/api/v1/nodes"),
            Self::ServiceCidr => ("ServiceCIDR", "networking.k8s.io/v1", "/apis/networking.k8s.io/v1/servicecidrs"),
        }
    }
}

/// Kind, namespace and name.
pub(super) type Key = (Kind, String, String);

/// `ADDED`, `MODIFIED` or `DELETED`, and the object.
pub(super) type Event = (&'static str, Value);

#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) key: Key,
    before: Option<Arc<Value>>,
    after: Option<Arc<Value>>,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    /// Every change. Its revision is one more than its index.
    pub(super) history: Vec<Change>,
    objects: BTreeMap<Key, Arc<Value>>,
    /// Revisions before this one are compacted.
    pub(super) compacted: u64,
    /// The history up to this revision has no objects.
    pub(super) forgotten: u64,
    /// The objects at that revision.
    base: BTreeMap<Key, Arc<Value>>,
}

impl Store {
    pub(super) fn revision(&self) -> u64 {
        self.history.len() as u64
    }

    pub(super) fn restore(&mut self, revision: u64) {
        self.history.truncate(index(revision));
        self.objects = Kind::ALL.into_iter().flat_map(|kind| self.all_at(kind, revision)).collect();
        self.compacted = self.compacted.min(revision);
    }

    pub(super) fn apply(&mut self, mut object: Value) -> Result<()> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let kind = text(&object["kind"]).and_then(|kind| Kind::of_name(&kind)).context("a kind of ours")?;
        let name = text(&object["metadata"]["name"]).context("metadata.name")?;
        let is_namespaced = matches!(kind, Kind::Service | Kind::EndpointSlice);
        let namespace = text(&object["metadata"]["namespace"]);
        let namespace = if is_namespaced { namespace.unwrap_or_else(|| "default".into()) } else { String::new() };
        if is_namespaced {
            object["metadata"]["namespace"] = json!(namespace);
        }
        self.change((kind, namespace, name), Some(object));
        Ok(())
    }

    /// Deletes an object. Returns whether it existed.
    pub(super) fn delete(&mut self, key: Key) -> bool {
        let was_there = self.objects.contains_key(&key);
        if was_there {
            self.change(key, None);
        }
        was_there
    }

    fn change(&mut self, key: Key, mut after: Option<Value>) {
        let revision = self.revision() + 1;
        if let Some(object) = &mut after {
            object["metadata"]["resourceVersion"] = json!(revision.to_string());
        }
        let after = after.map(Arc::new);
        let before = match &after {
            Some(object) => self.objects.insert(key.clone(), Arc::clone(object)),
            None => self.objects.remove(&key),
        };
        self.history.push(Change { revision, key, before, after });
    }

    /// Compacts the history and frees its objects, except those of the newest `kept` changes.
    pub(super) fn forget(&mut self, kept: u64) {
        let until = self.revision().saturating_sub(kept).max(self.forgotten);
        for change in &mut self.history[index(self.forgotten)..index(until)] {
            change.before = None;
            match change.after.take() {
                Some(object) => self.base.insert(change.key.clone(), object),
                None => self.base.remove(&change.key),
            };
        }
        self.forgotten = until;
        self.compacted = self.compacted.max(until);
    }

    /// All objects of a kind, sorted by namespace and name.
    pub(super) fn all(&self, kind: Kind) -> Vec<(Key, Arc<Value>)> {
        let of_kind = self.objects.iter().filter(|((of, ..), _)| *of == kind);
        of_kind.map(|(key, object)| (key.clone(), Arc::clone(object))).collect()
    }

    pub(super) fn all_at(&self, kind: Kind, revision: u64) -> Vec<(Key, Arc<Value>)> {
        let mut objects: BTreeMap<Key, Arc<Value>> = self.base.clone();
        objects.retain(|key, _| key.0 == kind);
        let known = self.history.iter().skip(index(self.forgotten));
        for change in known.filter(|change| change.key.0 == kind && change.revision <= revision) {
            match &change.after {
                Some(object) => objects.insert(change.key.clone(), Arc::clone(object)),
                None => objects.remove(&change.key),
            };
        }
        objects.into_iter().collect()
    }
}

/// The index of the first change after a revision.
pub(super) fn index(revision: u64) -> usize {
    usize::try_from(revision).unwrap_or(usize::MAX)
}

impl Change {
    /// The event that a watch with this selection sees. An object that leaves the selection is `DELETED` for that
    /// watch.
    pub(super) fn event(&self, selection: &Selection) -> Option<Event> {
        let selected = |object: &Option<Arc<Value>>| object.clone().filter(|object| selection.has(object));
        let (kind, object) = match (selected(&self.before), selected(&self.after)) {
            (None, None) => return None,
            (None, Some(object)) => ("ADDED", object),
            (Some(_), Some(object)) => ("MODIFIED", object),
            (Some(object), None) => ("DELETED", object),
        };
        let mut object = Value::clone(&object);
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        Some((kind, object))
    }
}

/// The label and field selectors of a request.
#[derive(Debug, Default)]
pub(super) struct Selection {
    labels: Vec<String>,
    name: Option<String>,
}

impl Selection {
    pub(super) fn of(request: &Request) -> Self {
        let labels = request.parameter("labelSelector").unwrap_or_default();
        let labels = labels.split(',').filter(|term| !term.is_empty()).map(str::to_owned).collect();
        let name = request.parameter("fieldSelector").and_then(|term| term.strip_prefix("metadata.name="));
        Self { labels, name: name.map(str::to_owned) }
    }

    pub(super) fn has(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let holds = |term: &String| match (term.strip_prefix('!'), term.split_once('=')) {
            (Some(absent), _) => metadata["labels"].get(absent).is_none(),
            (None, Some((label, value))) => metadata["labels"][label] == value,
            (None, None) => metadata["labels"].get(term).is_some(),
        };
        self.labels.iter().all(holds) && self.name.as_ref().is_none_or(|name| metadata["name"] == **name)
    }
}
