use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus::{Registry, proto::MetricFamily};
use proxier::{
    Engine, NodePortAddresses, SyncReport,
    linux::Meter,
    model::{Event, Family, ServiceId},
};
use tokio::sync::{Notify, watch};

use super::{
    checks::{EVERYWHERE, News},
    health::{Health, Moment, Outcome, Report},
    metrics::{ChangeCounts, Contact, KubeIpvs, KubeProxy, Kubernetes, Services, process},
};
use crate::{
    config::Configuration,
    source::{Changes, kubernetes::Version},
};

/// The state that the daemon publishes. The sources and the sync loop write it, and the HTTP servers read it. No lock
/// is held for longer than it takes to copy a few numbers.
#[derive(Debug)]
pub struct Status {
    start: Instant,
    pub(super) started: Timestamp,
    health: Mutex<Health>,
    registry: Registry,
    pub(super) kube_proxy: KubeProxy,
    pub(super) own: KubeIpvs,
    kubernetes: Kubernetes,
    pub(super) services: Services,
    contact: Contact,
    /// The maximum time without contact with the API server, if limited.
    out_of_contact_limit: Option<Duration>,
    check_news: Mutex<News>,
    has_check_news: Notify,
    /// The addresses of health check node ports, unless they are at every address.
    check_addresses: Mutex<Option<Vec<IpAddr>>>,
    /// The Services for which the kernel rejected something.
    lacking: Mutex<BTreeSet<ServiceId>>,
    /// Whether the HTTP servers admit no more clients.
    pub(super) end: watch::Sender<bool>,
}

/// The changes that the sync loop has taken for its next sync.
#[derive(Debug, Default)]
pub struct Taken {
    counts: ChangeCounts,
    triggers: Vec<(Family, Timestamp)>,
}

impl Taken {
    /// Adds changes that were taken later.
    pub fn join(&mut self, later: Self) {
        /// The maximum number of endpoint changes whose delay one sync measures.
        const MAX_WAITING: usize = 10_000;
        self.counts.services += later.counts.services;
        self.counts.endpoints += later.counts.endpoints;
        let room = MAX_WAITING.saturating_sub(self.triggers.len());
        self.triggers.extend(later.triggers.into_iter().take(room));
    }

    /// Adds the counts of taken changes.
    pub fn add(&mut self, changes: &Changes) {
        self.join(Self { counts: count(changes), triggers: changes.triggers.clone() });
    }
}

impl Status {
    /// Creates the state of a daemon that has just started.
    pub fn new(configuration: &Configuration) -> Self {
        let registry = Registry::new();
        let everywhere = configuration.node_port_addresses.addresses == NodePortAddresses::All;
        let addresses = everywhere.then(|| vec![EVERYWHERE]);
        Self {
            start: Instant::now(),
            started: Timestamp::now(),
            health: Mutex::new(Health::new(configuration.ipvs.sync_period.0)),
            kube_proxy: KubeProxy::register(&registry),
            own: KubeIpvs::register(&registry),
            kubernetes: Kubernetes::register(&registry),
            services: Services::new(),
            contact: Contact::register(&registry),
            registry,
            out_of_contact_limit: configuration.own.out_of_contact_limit.if_set(),
            check_news: Mutex::new(News { addresses, ..News::default() }),
            has_check_news: Notify::new(),
            check_addresses: Mutex::new((!everywhere).then(Vec::new)),
            lacking: Mutex::default(),
            end: watch::Sender::new(false),
        }
    }

    /// Sets the version of the cluster.
    pub fn serves(&self, version: &Version) {
        self.kubernetes.set(version);
    }

    /// Records that changes have arrived and wait for the sync loop.
    pub fn queued(&self, changes: &Changes) {
        if changes.events.is_empty() {
            return;
        }
        let now = self.now();
        self.health.lock().queued(now.elapsed);
        self.kube_proxy.queued(count(changes), now.wall);
    }

    /// Records that the sync loop takes all changes that have arrived.
    pub fn taken(&self) {
        self.health.lock().taken();
    }

    /// Records the end of a sync that began at `start`.
    pub fn record_sync(&self, engine: &Engine, report: &SyncReport, taken: Taken, start: Instant, meter: Meter) {
        let now = self.now();
        let mut health = self.health.lock();
        health.node(engine.cluster().own_node().map(|node| !node.leaving));
        let synced = Family::ALL.map(|family| health.record_sync(family, outcome(engine, report, family), now));
        drop(health);
        self.note_lacking(engine, report);
        let families = Family::ALL.into_iter().filter(|family| engine.concerns_family(report, *family));
        self.kube_proxy.record_sync(taken.counts, start.elapsed().as_secs_f64(), families);
        self.kube_proxy.no_local_endpoints(engine.without_local_endpoints());
        self.own.record_sync(report);
        self.tell_checks(engine, report);
        self.metered(meter);
        for family in Family::ALL.into_iter().filter(|family| synced[*family as usize]) {
            self.kube_proxy.synced(family, now.wall);
            // kube-ipvs did not program changes from before its start.
            let ours = taken.triggers.iter().filter(|(of, since)| *of == family && *since > self.started);
            ours.for_each(|(_, since)| self.kube_proxy.programmed(family, *since, now.wall));
        }
    }

    /// Records the time that the kernel took.
    fn metered(&self, meter: Meter) {
        meter.spent.iter().for_each(|((subsystem, operation), time)| self.own.spent(*subsystem, *operation, *time));
        meter.flow_deletions.into_iter().for_each(|cleansing| self.kube_proxy.flows_deleted(cleansing));
    }

    /// kube-ipvs retries rejected changes when it compares everything. Until then the Service lacks them.
    fn note_lacking(&self, engine: &Engine, report: &SyncReport) {
        let mut lacking = self.lacking.lock();
        if report.is_full {
            lacking.clear();
        }
        lacking.extend(report.failures.iter().flat_map(|failure| engine.affected_services(failure)).cloned());
    }

    pub(super) fn lacks_something(&self, service: &ServiceId) -> bool {
        self.lacking.lock().contains(service)
    }

    fn tell_checks(&self, engine: &Engine, report: &SyncReport) {
        let now = engine.cluster().node_port_addresses();
        let mut addresses = self.check_addresses.lock();
        let moved = addresses.as_mut().filter(|known| **known != now);
        if moved.is_none() && report.health_checks.is_empty() {
            return;
        }
        let mut news = self.check_news.lock();
        if let Some(known) = moved {
            *known = now.to_vec();
            news.addresses = Some(now.to_vec());
        }
        news.checks.extend(report.health_checks.iter().cloned());
        self.has_check_news.notify_one();
    }

    /// Makes the HTTP servers complete the answers in progress and admit no more clients.
    pub fn finish(&self) {
        self.end.send_replace(true);
    }

    pub(super) fn take_check_news(&self) -> News {
        std::mem::take(&mut self.check_news.lock())
    }

    pub(super) async fn check_news(&self) {
        self.has_check_news.notified().await;
    }

    pub(super) fn report(&self) -> Report {
        self.health.lock().report(self.now())
    }

    /// Whether a sync has succeeded since the start.
    pub fn has_synced(&self) -> bool {
        self.health.lock().has_synced()
    }

    /// Returns the recorder of contact with the API server, for the source.
    pub fn contact(&self) -> Contact {
        self.contact.clone()
    }

    /// How long contact with the API server has been lost, if that is too long.
    pub(super) fn out_of_contact(&self) -> Option<Duration> {
        let limit = self.out_of_contact_limit?;
        self.contact.lost_for().filter(|time| *time >= limit)
    }

    pub(super) fn metrics(&self) -> Vec<MetricFamily> {
        [self.registry.gather(), self.services.gather(), process()].concat()
    }

    fn now(&self) -> Moment {
        Moment { elapsed: self.start.elapsed(), wall: Timestamp::now() }
    }
}

/// The result of a sync for the health of a family.
pub(crate) fn outcome(engine: &Engine, report: &SyncReport, family: Family) -> Outcome {
    if engine.is_family_unhealthy(report, family) {
        Outcome::Failed
    } else if report.is_full || engine.is_healthy() {
        Outcome::Settled
    } else {
        Outcome::Done
    }
}

fn count(changes: &Changes) -> ChangeCounts {
    let mut counts = ChangeCounts::default();
    for event in &changes.events {
        match event {
            Event::ServiceApplied(_) | Event::ServiceRemoved(_) => counts.services += 1,
            Event::SliceApplied(_) | Event::SliceRemoved(_) => counts.endpoints += 1,
            _ => {}
        }
    }
    counts
}
