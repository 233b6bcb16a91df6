//! One collection of objects, listed and then watched, for ever.

use std::{pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt};
use kube::{
    Client,
    api::{ListParams, VersionMatch, WatchEvent, WatchParams},
    core::Request,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use super::{
    failure::Failure,
    limits::Limits,
    resource::{Head, Object, Resource},
    retry::Retry,
    world::News,
};

/// The annotation of the bookmark at the end of a streaming list.
const END_OF_LIST: &str = "k8s.io/initial-events-end";
/// How many objects are asked for at a time where the API server cannot list from its cache.
const PAGE: u32 = 500;
/// A watch that ends sooner, without having told anything, counts as a failure: without a pause it would be made again
/// and again, as fast as the network goes.
const SHORT: Duration = Duration::from_secs(1);

type Events = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<Box<RawValue>>>> + Send>>;

/// Objects are kept as JSON text until each is read by itself: one that cannot be read must not cost the whole list.
#[derive(Deserialize)]
pub(super) struct Page {
    metadata: PageMeta,
    pub(super) items: Option<Vec<Box<RawValue>>>,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct PageMeta {
    resource_version: Option<String>,
    r#continue: Option<String>,
}

/// Nobody listens any more.
pub(super) struct Unheard;

pub(super) struct Watch {
    client: Client,
    resource: Resource,
    /// Only the object of this name.
    name: Option<String>,
    limits: Limits,
    news: mpsc::Sender<(Resource, News)>,
    retry: Retry,
    /// Whether the API server is to be asked for streaming lists: until it has shown that it does not know them.
    may_stream: bool,
    /// Whether there was a list before.
    was_listed: bool,
    /// How many objects are asked for at a time.
    page: Option<u32>,
}

impl Watch {
    pub(super) fn new(
        client: Client,
        resource: Resource,
        name: Option<String>,
        limits: Limits,
        news: mpsc::Sender<(Resource, News)>,
    ) -> Self {
        let retry = Retry::new(resource, limits);
        let page = Some(PAGE);
        Self { client, resource, name, limits, news, retry, may_stream: true, was_listed: false, page }
    }

    /// Tells what there is and what changes, as long as somebody listens.
    pub(super) async fn run(mut self) -> Unheard {
        loop {
            let ended = match self.list().await {
                Ok((objects, version, events)) => {
                    self.was_listed = true;
                    self.retry.answered();
                    match self.tell(News::Listed(objects)).await {
                        Ok(()) => self.follow(version, events).await,
                        Err(unheard) => Err(unheard),
                    }
                }
                Err(failure) => match self.tell(News::Unanswered).await {
                    Ok(()) => Ok(failure),
                    Err(unheard) => Err(unheard),
                },
            };
            match ended {
                Ok(failure) => self.retry.failed(&failure).await,
                Err(unheard) => return unheard,
            }
        }
    }

    async fn tell(&self, news: News) -> Result<(), Unheard> {
        self.news.send((self.resource, news)).await.map_err(|_| Unheard)
    }

    /// All objects, the version to go on from, and the events after it where they come by the same connection.
    async fn list(&mut self) -> Result<(Vec<Object>, String, Option<Events>), Failure> {
        if self.may_stream {
            match self.list_by_stream().await {
                // As servers before 1.27 answer, and later ones that have it switched off. It may be switched on.
                Err(failure) if failure.is_invalid() => {}
                // As servers do that do not know the word.
                Err(Failure::Endless) => self.may_stream = false,
                outcome => return outcome,
            }
        }
        let outcome = self.list_by_pages().await;
        if outcome.as_ref().is_err_and(Failure::needs_list) {
            // The next page was too late. One that holds all cannot be.
            self.page = None;
        }
        outcome
    }

    /// By a watch that begins with all there is. The server needs no memory for the list as a whole, nor do we.
    async fn list_by_stream(&mut self) -> Result<(Vec<Object>, String, Option<Events>), Failure> {
        let mut events = self.open(true, "").await?;
        let mut objects: Vec<Object> = Vec::new();
        loop {
            let next = timeout(self.limits.silence, events.next()).await.map_err(|_| Failure::Endless)?;
            match next.ok_or(Failure::Closed)?? {
                WatchEvent::Added(json) | WatchEvent::Modified(json) => {
                    objects.push(self.resource.read(&json))
                }
                WatchEvent::Deleted(json) => {
                    let key = self.resource.head(&json).key;
                    objects.retain(|object| object.key != key);
                }
                WatchEvent::Bookmark(mark) if mark.metadata.annotations.contains_key(END_OF_LIST) => {
                    return Ok((objects, mark.metadata.resource_version, Some(events)));
                }
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(status) => return Err(Failure::Ended(status)),
            }
        }
    }

    /// By requests. The first list may come from the server's cache, whatever its age, and then it comes whole; later
    /// ones must not be older than what we have seen.
    async fn list_by_pages(&mut self) -> Result<(Vec<Object>, String, Option<Events>), Failure> {
        let mut params = ListParams {
            label_selector: self.resource.label_selector(),
            field_selector: self.field_selector(),
            ..ListParams::default()
        };
        if self.was_listed {
            params.limit = self.page;
        } else {
            params.resource_version = Some("0".into());
            params.version_match = Some(VersionMatch::NotOlderThan);
        }
        let mut objects = Vec::new();
        loop {
            let page = get_page(&self.client, self.resource.path(), &params, &self.limits).await?;
            objects.extend(page.items.iter().flatten().map(|json| self.resource.read(json)));
            match page.metadata.r#continue.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    let version = page.metadata.resource_version.filter(|version| !version.is_empty());
                    return Ok((objects, version.ok_or(Failure::NoVersion)?, None));
                }
            }
        }
    }

    /// Tells what changes, by one watch after the other, until everything has to be listed again; says why.
    async fn follow(&mut self, mut version: String, mut events: Option<Events>) -> Result<Failure, Unheard> {
        loop {
            let start = Instant::now();
            let failure = match self.watch(&mut version, events.take()).await {
                Ok(Ended::Unheard) => return Err(Unheard),
                Ok(Ended::Fruitful) => continue,
                Ok(Ended::Fruitless) if start.elapsed() >= SHORT => {
                    self.retry.works();
                    continue;
                }
                Ok(Ended::Fruitless) => Failure::Closed,
                Err(failure) => failure,
            };
            if failure.needs_list() || self.retry.is_stale() {
                return Ok(failure);
            }
            self.retry.failed(&failure).await;
        }
    }

    /// One watch. Brings `version` up to the last that was seen.
    async fn watch(&mut self, version: &mut String, events: Option<Events>) -> Result<Ended, Failure> {
        let mut events = match events {
            Some(events) => events,
            None => self.open(false, version).await?,
        };
        self.retry.answered();
        // The server ends it well before. It may have told something a moment before it died, so it counts from the
        // start.
        let allowed = self.limits.watch * 5 / 4 + self.limits.overtime;
        let deadline = Instant::now() + allowed;
        let mut ended = Ended::Fruitless;
        loop {
            let next = timeout_at(deadline, events.next()).await.map_err(|_| Failure::Silent(allowed))?;
            let Some(event) = next else { return Ok(ended) };
            let news = match event? {
                WatchEvent::Added(json) | WatchEvent::Modified(json) => {
                    let object = self.resource.read(&json);
                    *version = object.version.clone().ok_or(Failure::NoVersion)?;
                    Some(News::Applied(Box::new(object)))
                }
                WatchEvent::Deleted(json) => {
                    let Head { key, version: last, .. } = self.resource.head(&json);
                    *version = last.ok_or(Failure::NoVersion)?;
                    Some(News::Deleted(key))
                }
                WatchEvent::Bookmark(mark) => {
                    *version = mark.metadata.resource_version;
                    None
                }
                WatchEvent::Error(status) => return Err(Failure::Ended(status)),
            };
            if let Some(news) = news
                && self.tell(news).await.is_err()
            {
                return Ok(Ended::Unheard);
            }
            ended = Ended::Fruitful;
            self.retry.works();
        }
    }

    /// Begins a watch.
    async fn open(&self, with_list: bool, version: &str) -> Result<Events, Failure> {
        let seconds = self.limits.watch.mul_f64(1.0 + fastrand::f64() / 4.0).as_secs();
        let params = WatchParams {
            label_selector: self.resource.label_selector(),
            field_selector: self.field_selector(),
            timeout: Some(u32::try_from(seconds).unwrap_or(u32::MAX).max(1)),
            bookmarks: true,
            send_initial_events: with_list,
        };
        let request =
            Request::new(self.resource.path()).watch(&params, version).map_err(kube::Error::BuildRequest)?;
        let answer = self.client.request_events(request);
        let events =
            timeout(self.limits.answer, answer).await.map_err(|_| Failure::Silent(self.limits.answer))??;
        Ok(events.boxed())
    }

    fn field_selector(&self) -> Option<String> {
        self.name.as_ref().map(|name| format!("metadata.name={name}"))
    }
}

/// How a watch has ended that did not fail.
enum Ended {
    /// It has told something.
    Fruitful,
    /// It has told nothing.
    Fruitless,
    /// Nobody wants to be told.
    Unheard,
}

/// One page of a list.
pub(super) async fn get_page(
    client: &Client,
    path: &str,
    params: &ListParams,
    limits: &Limits,
) -> Result<Page, Failure> {
    let request = Request::new(path).list(params).map_err(kube::Error::BuildRequest)?;
    let answer = timeout(limits.list, client.request::<Page>(request)).await;
    Ok(answer.map_err(|_| Failure::Silent(limits.list))??)
}

impl Page {
    /// How to ask for the next one; none if there is none.
    pub(super) fn next(&self) -> Option<String> {
        self.metadata.r#continue.clone().filter(|token| !token.is_empty())
    }
}
