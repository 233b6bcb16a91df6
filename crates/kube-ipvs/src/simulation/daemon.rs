//! kube-ipvs without sockets and threads: its own parts, connected as in `KubernetesSource::follow` and the sync loop.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::take,
    sync::Arc,
    time::Duration,
};

use proxier::{
    Config, PodSources, SyncReport,
    fake::FakeKernel,
    model::{Event, Family, NodeAddress},
};
use proxier_kubernetes::AnnotationPolicy;
use serde_json::value::RawValue;

use super::{
    api::{Api, Id, Logged},
    known::Known,
    objects::{OWN_NODE, Stored, Which, host_ip},
    step::World,
};
use crate::{
    command::inbox::{Delivery, Inbox},
    recording::{Recorded, Recording},
    serve::{
        Status,
        health::{Health, Moment, Report},
        outcome,
    },
    source::{
        Changes,
        kubernetes::{
            cache::{Cache, Update},
            resource::Object,
        },
    },
};

/// Health uses the default sync period, also if the run has another one for the engine.
pub(super) const HEALTH_PERIOD: Duration = Duration::from_secs(30);

/// The position of a watch in the API server's log. `None`: the watch must list.
type Position = Option<usize>;

pub(super) struct Daemon {
    cache: Cache,
    /// Changes that wait until all collections are listed.
    changes: Changes,
    is_first: bool,
    inbox: Inbox,
    /// When the oldest change in the inbox arrived.
    pub(super) queued: Option<Duration>,
    pub(super) looper: Recorded<FakeKernel>,
    health: Health,
    watches: BTreeMap<Which, Position>,
    /// The watches that lost an event or repeated an old one, so that the daemon can be wrong about their objects.
    misleading: BTreeSet<Which>,
    /// The objects that the daemon has received.
    pub(super) known: Known,
}

impl Daemon {
    pub(super) fn start(world: &World, kernel: FakeKernel, status: &Arc<Status>, recording: Option<Recording>) -> Self {
        let config = Config {
            sync_period: Duration::from_secs(world.period.max(1)),
            min_sync_period: Duration::from_millis(world.min_sync),
            drain_cap: Duration::from_secs(world.drain),
            scoped_arp: world.scoped_arp,
            localhost_node_ports: world.localhost,
            pod_sources: PodSources::OwnNode,
            ..Config::new(OWN_NODE)
        };
        let host = Family::ALL.map(|family| NodeAddress { address: host_ip(family), global: true });
        Self {
            cache: Cache::new("https://api"),
            changes: Changes::default(),
            is_first: true,
            inbox: Inbox::new(Arc::clone(status)),
            queued: None,
            looper: Recorded::new(config, host.into(), kernel, recording),
            health: Health::new(HEALTH_PERIOD),
            watches: Which::ALL.map(|which| (which, None)).into(),
            misleading: BTreeSet::new(),
            known: Known::new(world.localhost),
        }
    }

    /// Whether the source has delivered its first lists, so that the daemon syncs.
    pub(super) fn has_source(&self) -> bool {
        !self.is_first
    }

    pub(super) fn must_list(&mut self, which: Which) {
        self.watches.insert(which, None);
    }

    /// Makes the watches list that lost an event or repeated an old one.
    pub(super) fn distrust(&mut self) {
        take(&mut self.misleading).into_iter().for_each(|which| self.must_list(which));
    }

    /// Delivers up to `count` events of a watch, or its list. Returns whether the daemon received anything.
    pub(super) fn hear(&mut self, api: &Api, which: Which, count: usize, now: Duration) -> bool {
        match self.watches.get(&which).copied().flatten() {
            None if api.is_down => self.update(which, Update::Unanswered, now),
            None => {
                let objects: Vec<(Id, Stored)> =
                    api.list(which).map(|(id, stored)| (id.clone(), stored.clone())).collect();
                self.known.list(which, &objects);
                self.misleading.remove(&which);
                self.watches.insert(which, Some(api.log.len()));
                let objects = objects.iter().map(|(_, stored)| read(which, stored)).collect();
                self.update(which, Update::Listed(objects), now)
            }
            Some(_) if api.is_down => false,
            Some(_) => (0..count).fold(false, |has_news, _| {
                let next = self.next(api, which);
                next.is_some_and(|entry| self.hear_one(&api.log[entry], now)) || has_news
            }),
        }
    }

    /// Moves a watch past its next entry of the log, and returns the index of that entry.
    fn next(&mut self, api: &Api, which: Which) -> Option<usize> {
        let at = self.watches.get(&which).copied().flatten()?;
        let mut rest = api.log.iter().enumerate().skip(at);
        let (entry, _) = rest.find(|(_, ((of, _), _))| *of == which)?;
        self.watches.insert(which, Some(entry + 1));
        Some(entry)
    }

    pub(super) fn miss(&mut self, api: &Api, which: Which) {
        if self.next(api, which).is_some() {
            self.misleading.insert(which);
        }
    }

    /// Delivers an earlier event of a watch again. If `back` is 0, it is the last one.
    pub(super) fn hear_again(&mut self, api: &Api, which: Which, back: usize, now: Duration) -> bool {
        let Some(at) = self.watches.get(&which).copied().flatten().filter(|_| !api.is_down) else { return false };
        self.misleading.insert(which);
        let heard = api.log[..at].iter().rev().filter(|((of, _), _)| *of == which);
        heard.skip(back).take(1).fold(false, |_, entry| self.hear_one(entry, now))
    }

    fn hear_one(&mut self, (id, logged): &(Id, Logged), now: Duration) -> bool {
        self.known.take(id, logged);
        let update = match logged {
            Logged::Applied(stored) => Update::Applied(Box::new(read(id.0, stored))),
            Logged::Deleted(last) => Update::Deleted(id.0.resource().head(&raw(last)).key),
        };
        self.update(id.0, update, now)
    }

    /// Delivers nothing before all collections are listed, like `KubernetesSource::follow`.
    fn update(&mut self, which: Which, update: Update, now: Duration) -> bool {
        self.cache.take(which.resource(), update, &mut self.changes);
        if self.is_first {
            if !self.cache.is_synced() {
                return false;
            }
            self.changes.events.insert(0, Event::ApiServerAddresses([].into()));
        }
        self.is_first = false;
        self.cache.conclude(&mut self.changes);
        let changes = take(&mut self.changes);
        if !changes.events.is_empty() {
            self.health.queued(now);
            self.queued.get_or_insert(now);
        }
        self.inbox.put(changes);
        true
    }

    /// One turn of the sync loop.
    pub(super) fn turn(&mut self, now: Duration) -> Option<SyncReport> {
        if let Some(Delivery { changes, .. }) = self.inbox.take() {
            self.health.taken();
            self.queued = None;
            changes.events.into_iter().for_each(|event| self.looper.apply(event));
            self.looper.set_complete(changes.complete);
        }
        self.looper.sync_if_due(|| now)
    }

    pub(super) fn record_health(&mut self, report: &SyncReport, now: Moment) {
        let engine = self.looper.engine();
        self.health.node(engine.cluster().own_node().map(|node| !node.leaving));
        for family in Family::ALL {
            self.health.record_sync(family, outcome(engine, report, family), now);
        }
    }

    pub(super) fn report(&self, now: Moment) -> Report {
        self.health.report(now)
    }
}

fn raw(stored: &Stored) -> Box<RawValue> {
    RawValue::from_string(stored.text.to_string()).unwrap()
}

fn read(which: Which, stored: &Stored) -> Object {
    which.resource().read(&raw(stored), &AnnotationPolicy::default())
}
