//! The metrics of kube-proxy (`pkg/proxy/metrics`), by its names, labels and buckets: its dashboards and alerts are
//! to go on working.

use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family as Of,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use proxier::{NoLocalEndpoints, linux::FlowDeletion, model::Family};

use crate::serve::health::name;

/// One label.
type One = [(&'static str, &'static str); 1];
type Histograms = Of<One, Histogram, fn() -> Histogram>;
/// Seconds since 1970.
type Time = Gauge<f64, AtomicU64>;

/// kube-proxy's metrics.
#[derive(Debug)]
pub(crate) struct KubeProxy {
    sync_duration: Histograms,
    programming_duration: Histograms,
    last_synced: Of<One, Time>,
    last_queued: Of<One, Time>,
    endpoint_changes: Counter,
    endpoint_changes_pending: Gauge,
    service_changes: Counter,
    service_changes_pending: Gauge,
    healthz: Of<One, Counter>,
    livez: Of<One, Counter>,
    no_local_endpoints: Of<[(&'static str, &'static str); 2], Gauge>,
    cleansing_duration: Histograms,
    forgotten: Of<One, Counter>,
}

/// How many changes of each kind there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ChangeCounts {
    pub(crate) services: u32,
    pub(crate) endpoints: u32,
}

impl KubeProxy {
    /// Registers them.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            sync_duration: Of::new_with_constructor(sync_histogram),
            programming_duration: Of::new_with_constructor(programming_histogram),
            last_synced: Of::default(),
            last_queued: Of::default(),
            endpoint_changes: Counter::default(),
            endpoint_changes_pending: Gauge::default(),
            service_changes: Counter::default(),
            service_changes_pending: Gauge::default(),
            healthz: Of::default(),
            livez: Of::default(),
            no_local_endpoints: Of::default(),
            cleansing_duration: Of::new_with_constructor(sync_histogram),
            forgotten: Of::default(),
        };
        metrics.no_local_endpoints(Default::default());
        let restore_failures = Of::<One, Counter>::default();
        for family in Family::ALL.map(of) {
            drop(metrics.sync_duration.get_or_create(&family));
            drop(metrics.programming_duration.get_or_create(&family));
            drop(metrics.last_synced.get_or_create(&family));
            drop(metrics.last_queued.get_or_create(&family));
            drop(restore_failures.get_or_create(&family));
            drop(metrics.cleansing_duration.get_or_create(&family));
            drop(metrics.forgotten.get_or_create(&family));
        }
        let mut registry = registry.sub_registry_with_prefix("kubeproxy");
        let registry = &mut registry;
        registry.register(
            "sync_proxy_rules_duration_seconds",
            "How long a sync took that brings the kernel to what is wanted",
            metrics.sync_duration.clone(),
        );
        registry.register(
            "network_programming_duration_seconds",
            "How long it took from a change of an endpoint to the kernel, by the annotation endpoints.kubernetes.io/last-change-trigger-time",
            metrics.programming_duration.clone(),
        );
        registry.register(
            "sync_proxy_rules_last_timestamp_seconds",
            "When the last sync ended that left nothing undone",
            metrics.last_synced.clone(),
        );
        registry.register(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "When the last change arrived",
            metrics.last_queued.clone(),
        );
        registry.register(
            "sync_proxy_rules_endpoint_changes",
            "How many changes of EndpointSlices have arrived",
            metrics.endpoint_changes.clone(),
        );
        registry.register(
            "sync_proxy_rules_endpoint_changes_pending",
            "How many changes of EndpointSlices no sync has taken in yet",
            metrics.endpoint_changes_pending.clone(),
        );
        registry.register(
            "sync_proxy_rules_service_changes",
            "How many changes of Services have arrived",
            metrics.service_changes.clone(),
        );
        registry.register(
            "sync_proxy_rules_service_changes_pending",
            "How many changes of Services no sync has taken in yet",
            metrics.service_changes_pending.clone(),
        );
        registry.register(
            "sync_proxy_rules_iptables_restore_failures",
            "Always 0: there is no iptables-restore here",
            restore_failures,
        );
        registry.register(
            "sync_proxy_rules_no_local_endpoints_total",
            "How many Services have traffic that is to stay on this node, and no endpoint on it that takes any",
            metrics.no_local_endpoints.clone(),
        );
        registry.register(
            "conntrack_reconciler_sync_duration_seconds",
            "How long it took to look through conntrack for flows that are to be forgotten",
            metrics.cleansing_duration.clone(),
        );
        registry.register(
            "conntrack_reconciler_deleted_entries",
            "Flows that conntrack was made to forget",
            metrics.forgotten.clone(),
        );
        registry.register("proxy_healthz", "Answers to /healthz, by their status", metrics.healthz.clone());
        registry.register("proxy_livez", "Answers to /livez, by their status", metrics.livez.clone());
        metrics
    }

    /// Changes have arrived.
    pub(crate) fn queued(&self, changes: ChangeCounts, now: Timestamp) {
        for family in Family::ALL.map(of) {
            self.last_queued.get_or_create(&family).set(now.as_duration().as_secs_f64());
        }
        self.service_changes.inc_by(changes.services.into());
        self.service_changes_pending.inc_by(changes.services.into());
        self.endpoint_changes.inc_by(changes.endpoints.into());
        self.endpoint_changes_pending.inc_by(changes.endpoints.into());
    }

    /// A sync that took `seconds` and was about these families has taken changes in.
    pub(crate) fn record_sync(
        &self,
        changes: ChangeCounts,
        seconds: f64,
        families: impl Iterator<Item = Family>,
    ) {
        for family in families.map(of) {
            self.sync_duration.get_or_create(&family).observe(seconds);
        }
        self.service_changes_pending.dec_by(changes.services.into());
        self.endpoint_changes_pending.dec_by(changes.endpoints.into());
    }

    /// A sync left nothing undone.
    pub(crate) fn synced(&self, family: Family, now: Timestamp) {
        self.last_synced.get_or_create(&of(family)).set(now.as_duration().as_secs_f64());
    }

    /// What changed at `since` is in the kernel.
    pub(crate) fn programmed(&self, family: Family, since: Timestamp, now: Timestamp) {
        // Clocks of other hosts may be ahead.
        let seconds = now.duration_since(since).as_secs_f64().max(0.0);
        self.programming_duration.get_or_create(&of(family)).observe(seconds);
    }

    /// So many Services have no endpoint on this node although their traffic is to stay on it: by
    /// `internalTrafficPolicy` and `externalTrafficPolicy`, and by family.
    pub(crate) fn no_local_endpoints(&self, counts: NoLocalEndpoints) {
        for family in Family::ALL {
            for (policy, count) in
                [("internal", counts.internal(family)), ("external", counts.external(family))]
            {
                let labels = [("traffic_policy", policy), ("ip_family", name(family))];
                self.no_local_endpoints.get_or_create(&labels).set(count as i64);
            }
        }
    }

    /// Conntrack was looked through.
    pub(crate) fn cleansed(&self, FlowDeletion { family, took, forgotten }: FlowDeletion) {
        self.cleansing_duration.get_or_create(&of(family)).observe(took.as_secs_f64());
        self.forgotten.get_or_create(&of(family)).inc_by(forgotten as u64);
    }

    /// `/healthz` was answered.
    pub(crate) fn healthz(&self, good: bool) {
        self.healthz.get_or_create(&code(good)).inc();
    }

    /// `/livez` was answered.
    pub(crate) fn livez(&self, good: bool) {
        self.livez.get_or_create(&code(good)).inc();
    }
}

fn of(family: Family) -> One {
    [("ip_family", name(family))]
}

fn code(good: bool) -> One {
    [("code", if good { "200" } else { "503" })]
}

fn sync_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// The first one is kube-proxy's too: it joins its lists of bounds to one that holds a 0.
fn programming_histogram() -> Histogram {
    let every = |from: u16, to: u16, step: u16| (from..=to).step_by(step.into()).map(f64::from);
    let bounds = [0.0, 0.25, 0.5].into_iter().chain(every(1, 59, 1));
    Histogram::new(bounds.chain(every(60, 115, 5)).chain(every(120, 300, 30)))
}
