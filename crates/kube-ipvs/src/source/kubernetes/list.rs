//! Lists a collection of objects, and opens watches of it.

use std::{pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt};
use kube::{
    Client,
    api::{ListParams, VersionMatch, WatchEvent, WatchParams},
    core::Request,
};
use proxier_kubernetes::AnnotationPolicy;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};

use super::{
    failure::Failure,
    limits::Limits,
    page::get_page,
    resource::{Object, Resource},
};

/// The annotation of the bookmark that ends a streaming list.
const END_OF_LIST: &str = "k8s.io/initial-events-end";
/// The page size if the API server cannot list from its watch cache.
const PAGE_SIZE: u32 = 500;
/// The duration of a watch that starts with a streaming list. It must not cut off a slow list that makes progress.
const WATCH_TIMEOUT: Duration = Duration::from_secs(3600);

pub(super) type Events = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<Box<RawValue>>>> + Send>>;

/// How old a list can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Age {
    /// Any version in the watch cache.
    Any,
    /// At least the last version that kube-ipvs has seen.
    NotOlderThan(String),
    /// The present state in etcd. The last seen version is void.
    Now,
}

/// All objects, the version to resume from, and the open watch if the list was a streaming list.
pub(super) struct Listed {
    pub(super) objects: Vec<Object>,
    pub(super) version: String,
    pub(super) watch: Option<Opened>,
}

pub(super) struct Opened {
    pub(super) events: Events,
    pub(super) end: Instant,
    /// How late the API server can end the watch. `None` if it does not know `end`, so that kube-ipvs ends the watch.
    pub(super) overtime: Option<Duration>,
}

pub(super) struct Collection {
    client: Client,
    pub(super) resource: Resource,
    pub(super) name: Option<String>,
    pub(super) limits: Limits,
    policy: AnnotationPolicy,
    page: Option<u32>,
}

impl Collection {
    pub(super) fn new(client: Client, resource: Resource, name: Option<String>, limits: Limits) -> Self {
        let policy = AnnotationPolicy::default();
        Self { client, resource, name, limits, policy, page: Some(PAGE_SIZE) }
    }

    pub(super) fn with_annotations(self, policy: AnnotationPolicy) -> Self {
        Self { policy, ..self }
    }

    pub(super) fn read(&self, json: &RawValue) -> Object {
        self.resource.read(json, &self.policy)
    }

    pub(super) async fn list(&mut self, age: &Age) -> Result<Listed, Failure> {
        match self.list_by_stream().await {
            // API servers before 1.27, and later ones with streaming lists disabled, reject the request. Others ignore
            // the parameter, or stall. With an etcd before 3.4.31 or 3.5.13 they end the list with an error. Each list
            // tries streaming first, since the API server may support it by then.
            Err(failure) if failure.is_invalid() => {}
            Err(Failure::Endless | Failure::Ended(_)) => {}
            outcome => return outcome,
        }
        let version = match age {
            Age::Any => Some("0"),
            Age::NotOlderThan(version) => Some(&**version),
            Age::Now => None,
        };
        if version.is_some() {
            match self.list_by_pages(version).await {
                // This API server has not reached the version, and perhaps never will.
                Err(failure) if failure.is_unknown_version() => {}
                outcome => return outcome,
            }
        }
        let outcome = self.list_by_pages(None).await;
        if outcome.as_ref().is_err_and(Failure::needs_list) {
            // The continue token expired. A list in one page needs none.
            self.page = None;
        }
        outcome
    }

    /// A streaming list: neither the API server nor kube-ipvs holds the encoded list in memory.
    async fn list_by_stream(&mut self) -> Result<Listed, Failure> {
        let mut watch = self.open(true, "").await?;
        let mut objects: Vec<Object> = Vec::new();
        loop {
            let next = timeout(self.limits.silence, watch.events.next()).await;
            match next.map_err(|_| Failure::Endless)?.ok_or(Failure::Closed)?? {
                WatchEvent::Added(json) | WatchEvent::Modified(json) => objects.push(self.read(&json)),
                WatchEvent::Deleted(json) => {
                    let key = self.resource.head(&json).key;
                    objects.retain(|object| object.key != key);
                }
                WatchEvent::Bookmark(mark) if mark.metadata.annotations.contains_key(END_OF_LIST) => {
                    let version = mark.metadata.resource_version;
                    watch.end = Instant::now() + self.time_of_watch();
                    watch.overtime = None;
                    return Ok(Listed { objects, version, watch: Some(watch) });
                }
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(status) => return Err(Failure::Ended(status)),
            }
        }
    }

    /// With a version, the API server lists from its watch cache in one page. Without one, it reads etcd in pages.
    async fn list_by_pages(&self, version: Option<&str>) -> Result<Listed, Failure> {
        let mut params = ListParams {
            label_selector: self.resource.label_selector(),
            field_selector: self.field_selector(),
            resource_version: version.map(str::to_owned),
            version_match: version.map(|_| VersionMatch::NotOlderThan),
            limit: self.page.filter(|_| version.is_none()),
            ..ListParams::default()
        };
        let mut objects = Vec::new();
        loop {
            let request = Request::new(self.resource.path()).list(&params);
            let page = get_page(&self.client, request, &self.limits).await?;
            objects.extend(page.items.iter().flatten().map(|json| self.read(json)));
            match page.next() {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(Listed { objects, version: page.version()?, watch: None }),
            }
        }
    }

    /// The present version in etcd, from the cheapest possible list.
    pub(super) async fn current_version(&self) -> Result<String, Failure> {
        let field_selector = self.field_selector();
        let params = ListParams { limit: Some(1), field_selector, ..ListParams::default() };
        let request = Request::new(self.resource.path()).list_metadata(&params);
        get_page(&self.client, request, &self.limits).await?.version()
    }

    pub(super) async fn open(&self, with_list: bool, version: &str) -> Result<Opened, Failure> {
        let seconds = if with_list { WATCH_TIMEOUT } else { self.time_of_watch() }.as_secs().max(1);
        let params = WatchParams {
            label_selector: self.resource.label_selector(),
            field_selector: self.field_selector(),
            timeout: Some(u32::try_from(seconds).unwrap_or(u32::MAX)),
            bookmarks: true,
            send_initial_events: with_list,
        };
        let request = Request::new(self.resource.path()).watch(&params, version).map_err(kube::Error::BuildRequest)?;
        let end = Instant::now() + Duration::from_secs(seconds);
        let answer = timeout(self.limits.answer, self.client.request_events(request)).await;
        let events = answer.map_err(|_| Failure::Unanswered(self.limits.answer))??.boxed();
        Ok(Opened { events, end, overtime: Some(self.limits.overtime) })
    }

    /// With a random part, so that watches do not end together.
    fn time_of_watch(&self) -> Duration {
        self.limits.watch.mul_f64(1.0 + fastrand::f64() / 4.0)
    }

    fn field_selector(&self) -> Option<String> {
        self.name.as_ref().map(|name| format!("metadata.name={name}"))
    }
}
