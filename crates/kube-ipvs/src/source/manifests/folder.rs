use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use proxier::{
    Completeness,
    model::{EndpointSlice, Event},
};
use proxier_kubernetes::{AnnotationPolicy, Key, Kind, Object};

use super::{
    Changes, Problem,
    parse::{Parsed, parse},
};

/// The present content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content<'a> {
    /// The bytes of the file.
    Bytes(&'a [u8]),
    /// The file exists and cannot be read, with the reason.
    Unreadable(&'a str),
    /// The file does not exist.
    Gone,
}

/// The manifests of a folder and the state they describe. Pure: no I/O and no clock.
///
/// - If a file cannot be followed, its last good content stays in force. No other file is affected.
/// - If several files hold an object, the first file by name decides. If that file goes away, the next one takes over.
/// - The order in which files come and go does not matter. The objects in force depend only on the content of the
///   files, and on the last good content of a broken file.
#[derive(Debug, Default)]
pub struct Folder {
    annotations: AnnotationPolicy,
    /// Hashes with a random key, so that the author of a file cannot construct a collision.
    digests: RandomState,
    files: BTreeMap<Arc<str>, File>,
    /// The files that hold an object. The first one decides.
    claims: BTreeMap<Key, BTreeSet<Arc<str>>>,
    in_force: BTreeMap<Key, Arc<Object>>,
    mirrored: BTreeMap<Key, Vec<EndpointSlice>>,
    doubles: BTreeMap<(Key, Arc<str>), Problem>,
}

#[derive(Debug, Default)]
struct File {
    /// The digest of the last content. kube-ipvs does not parse and report the same content twice.
    seen: Option<u64>,
    followed: bool,
    objects: BTreeMap<Key, Arc<Object>>,
}

impl Folder {
    /// Sets which annotations Services can use.
    #[must_use]
    pub fn with_annotations(self, annotations: AnnotationPolicy) -> Self {
        Self { annotations, ..self }
    }

    /// Loads the present content of the files with these names.
    pub fn load<'a>(&mut self, files: impl IntoIterator<Item = (&'a str, Content<'a>)>) -> Changes {
        let mut changes = Changes::default();
        let mut touched = BTreeSet::new();
        for (name, content) in files {
            self.load_file(name.into(), content, &mut touched, &mut changes);
        }
        let mut services = BTreeSet::new();
        for key in touched {
            self.settle(&key, &mut changes);
            if let Kind::Service | Kind::Endpoints = key.kind {
                services.insert(Key { kind: Kind::Service, ..key });
            }
        }
        for service in services {
            self.mirror(service, &mut changes.events);
        }
        // The objects of a file that kube-ipvs could never read are unknown.
        let is_whole = self.files.values().all(|file| file.followed);
        changes.complete = if is_whole { Completeness::Complete } else { Completeness::Unknown };
        changes
    }

    /// The names of the known files.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(|name| &**name)
    }

    fn load_file(&mut self, name: Arc<str>, content: Content<'_>, touched: &mut BTreeSet<Key>, changes: &mut Changes) {
        let objects = match content {
            Content::Gone => match self.files.remove(&name) {
                Some(file) => {
                    self.claim(&name, &file.objects, BTreeMap::new(), touched);
                    return;
                }
                None => return,
            },
            Content::Bytes(_) | Content::Unreadable(_) => {
                let file = self.files.entry(name.clone()).or_default();
                let digest = Some(self.digests.hash_one(content));
                if file.seen == digest {
                    return;
                }
                file.seen = digest;
                let parsed = match content {
                    Content::Bytes(bytes) => parse(&name, bytes, &self.annotations),
                    Content::Unreadable(reason) => {
                        Parsed { errors: vec![Problem::of_file(&name, reason)], ..Parsed::default() }
                    }
                    Content::Gone => Parsed::default(),
                };
                changes.problems.extend(parsed.errors.iter().chain(&parsed.warnings).cloned());
                if !parsed.errors.is_empty() {
                    return;
                }
                changes.notes.extend(parsed.notes);
                parsed.objects
            }
        };
        let old = match self.files.get_mut(&name) {
            Some(file) => {
                file.followed = true;
                std::mem::replace(&mut file.objects, objects.clone())
            }
            None => BTreeMap::new(),
        };
        self.claim(&name, &old, objects, touched);
    }

    fn claim(
        &mut self,
        name: &Arc<str>,
        old: &BTreeMap<Key, Arc<Object>>,
        new: BTreeMap<Key, Arc<Object>>,
        touched: &mut BTreeSet<Key>,
    ) {
        for key in old.keys().filter(|key| !new.contains_key(key)) {
            if let Some(claims) = self.claims.get_mut(key) {
                claims.remove(name);
            }
            touched.insert(key.clone());
        }
        for (key, object) in new {
            if old.get(&key) != Some(&object) {
                self.claims.entry(key.clone()).or_default().insert(name.clone());
                touched.insert(key);
            }
        }
    }

    fn settle(&mut self, key: &Key, changes: &mut Changes) {
        self.report_doubles(key, &mut changes.problems);
        let winner = self.claims.get(key).and_then(BTreeSet::first);
        let new = winner.and_then(|name| self.files.get(name)?.objects.get(key)).cloned();
        if new.is_none() {
            self.claims.remove(key);
        }
        let old = match &new {
            Some(object) => self.in_force.insert(key.clone(), object.clone()),
            None => self.in_force.remove(key),
        };
        let event = |object: &Option<Arc<Object>>| object.as_ref()?.event.clone();
        let (before, after) = (event(&old), event(&new));
        if before != after {
            changes.events.extend(after.or_else(|| key.removed()));
        }
    }

    fn report_doubles(&mut self, key: &Key, problems: &mut Vec<Problem>) {
        let names: Vec<_> = self.claims.get(key).into_iter().flatten().cloned().collect();
        let stale =
            |((of, name), _): &(&(Key, Arc<str>), &Problem)| of == key && !names.iter().skip(1).any(|n| n == name);
        let first_of_key = (key.clone(), Arc::from(""));
        let gone: Vec<_> = self
            .doubles
            .range(first_of_key..)
            .take_while(|((of, _), _)| of == key)
            .filter(stale)
            .map(|(double, _)| double.clone())
            .collect();
        for double in gone {
            self.doubles.remove(&double);
        }
        for name in names.iter().skip(1) {
            let problem = Problem {
                object: Some(key.to_string().into()),
                ..Problem::of_file(name, format!("is also in {}, which comes first and takes precedence", names[0]))
            };
            if self.doubles.insert((key.clone(), name.clone()), problem.clone()).as_ref() != Some(&problem) {
                problems.push(problem);
            }
        }
    }

    /// Updates the slices that mirror a Service's hand-made Endpoints.
    fn mirror(&mut self, service: Key, events: &mut Vec<Event>) {
        let endpoints = self.in_force.get(&Key { kind: Kind::Endpoints, ..service.clone() });
        // Mirrors only for an existing Service without a pod selector.
        let wants = |service: &Arc<Object>| service.event.is_some() && !service.selects_pods;
        let endpoints = endpoints.filter(|_| self.in_force.get(&service).is_some_and(wants));
        let new = endpoints.map(|endpoints| endpoints.mirrored.clone()).unwrap_or_default();
        let old = match new.is_empty() {
            true => self.mirrored.remove(&service),
            false => self.mirrored.insert(service, new.clone()),
        };
        let old = old.unwrap_or_default();
        let gone = old.iter().filter(|old| !new.iter().any(|new| new.id == old.id));
        events.extend(gone.map(|slice| Event::SliceRemoved(slice.id.clone())));
        events.extend(new.into_iter().filter(|slice| !old.contains(slice)).map(Event::SliceApplied));
    }
}
