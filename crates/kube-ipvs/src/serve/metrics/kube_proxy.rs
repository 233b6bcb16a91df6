//! The metrics of kube-proxy (`pkg/proxy/metrics`), with its names, labels and buckets, so that its dashboards and
//! alerts go on working.

use jiff::Timestamp;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{MetricVec, MetricVecBuilder},
};
use proxier::{NoLocalEndpoints, linux::FlowDeletion, model::Family};

use super::add;

#[derive(Debug)]
pub(crate) struct KubeProxy {
    sync_duration: HistogramVec,
    programming_duration: HistogramVec,
    last_synced: GaugeVec,
    last_queued: GaugeVec,
    endpoint_changes: IntCounter,
    endpoint_changes_pending: IntGauge,
    service_changes: IntCounter,
    service_changes_pending: IntGauge,
    healthz: IntCounterVec,
    livez: IntCounterVec,
    no_local_endpoints: IntGaugeVec,
    cleansing_duration: HistogramVec,
    deleted: IntCounterVec,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ChangeCounts {
    pub(crate) services: u32,
    pub(crate) endpoints: u32,
}

impl KubeProxy {
    pub(crate) fn register(registry: &Registry) -> Self {
        let opts = |name: &str, help: &str| Opts::new(format!("kubeproxy_{name}"), help);
        let counter = |name, help| add(registry, IntCounter::with_opts(opts(name, help)));
        let gauge = |name, help| add(registry, IntGauge::with_opts(opts(name, help)));
        let counters = |name, help, label| add(registry, IntCounterVec::new(opts(name, help), &[label]));
        let by_family = |name, help| whole(counters(name, help, FAMILY));
        let times = |name, help| whole(add(registry, GaugeVec::new(opts(name, help), &[FAMILY])));
        let histograms = |name, help, buckets| {
            let opts = HistogramOpts { common_opts: opts(name, help), buckets };
            whole(add(registry, HistogramVec::new(opts, &[FAMILY])))
        };
        by_family(
            "sync_proxy_rules_iptables_restore_failures_total",
            "Always 0: kube-ipvs does not use iptables-restore",
        );
        let no_local_endpoints = opts(
            "sync_proxy_rules_no_local_endpoints_total",
            "Services with the traffic policy Local and no endpoint on this node that takes traffic",
        );
        let labels = ["traffic_policy", FAMILY];
        let metrics = Self {
            sync_duration: histograms(
                "sync_proxy_rules_duration_seconds",
                "Seconds that a sync of the kernel took",
                sync_buckets(),
            ),
            programming_duration: histograms(
                "network_programming_duration_seconds",
                "Seconds from a change of an endpoint to its sync, by the annotation \
                 endpoints.kubernetes.io/last-change-trigger-time",
                programming_buckets(),
            ),
            last_synced: times(
                "sync_proxy_rules_last_timestamp_seconds",
                "Unix time at which the last sync without failures ended",
            ),
            last_queued: times(
                "sync_proxy_rules_last_queued_timestamp_seconds",
                "Unix time at which the last change arrived",
            ),
            endpoint_changes: counter(
                "sync_proxy_rules_endpoint_changes_total",
                "Changes of EndpointSlices that have arrived",
            ),
            endpoint_changes_pending: gauge(
                "sync_proxy_rules_endpoint_changes_pending",
                "Changes of EndpointSlices that wait for a sync",
            ),
            service_changes: counter("sync_proxy_rules_service_changes_total", "Changes of Services that have arrived"),
            service_changes_pending: gauge(
                "sync_proxy_rules_service_changes_pending",
                "Changes of Services that wait for a sync",
            ),
            healthz: counters("proxy_healthz_total", "Answers to /healthz, by status code", "code"),
            livez: counters("proxy_livez_total", "Answers to /livez, by status code", "code"),
            no_local_endpoints: add(registry, IntGaugeVec::new(no_local_endpoints, &labels)),
            cleansing_duration: histograms(
                "conntrack_reconciler_sync_duration_seconds",
                "Seconds that the deletion of stale conntrack entries took",
                sync_buckets(),
            ),
            deleted: by_family(
                "conntrack_reconciler_deleted_entries_total",
                "Conntrack entries that kube-ipvs deleted",
            ),
        };
        metrics.no_local_endpoints(Default::default());
        metrics
    }

    pub(crate) fn queued(&self, changes: ChangeCounts, now: Timestamp) {
        for family in Family::ALL {
            self.last_queued.with_label_values(&of(family)).set(now.as_duration().as_secs_f64());
        }
        self.service_changes.inc_by(changes.services.into());
        self.service_changes_pending.add(changes.services.into());
        self.endpoint_changes.inc_by(changes.endpoints.into());
        self.endpoint_changes_pending.add(changes.endpoints.into());
    }

    pub(crate) fn record_sync(&self, changes: ChangeCounts, seconds: f64, families: impl Iterator<Item = Family>) {
        families.for_each(|family| self.sync_duration.with_label_values(&of(family)).observe(seconds));
        self.service_changes_pending.sub(changes.services.into());
        self.endpoint_changes_pending.sub(changes.endpoints.into());
    }

    pub(crate) fn synced(&self, family: Family, now: Timestamp) {
        self.last_synced.with_label_values(&of(family)).set(now.as_duration().as_secs_f64());
    }

    pub(crate) fn programmed(&self, family: Family, since: Timestamp, now: Timestamp) {
        // Clocks of other hosts can be ahead.
        let seconds = now.duration_since(since).as_secs_f64().max(0.0);
        self.programming_duration.with_label_values(&of(family)).observe(seconds);
    }

    /// Sets the number of Services that lack an endpoint on this node although their traffic must stay on it.
    pub(crate) fn no_local_endpoints(&self, counts: NoLocalEndpoints) {
        for family in Family::ALL {
            for (policy, count) in [("internal", counts.internal(family)), ("external", counts.external(family))] {
                let labels = [policy, &family.to_string()];
                self.no_local_endpoints.with_label_values(&labels).set(count as i64);
            }
        }
    }

    pub(crate) fn flows_deleted(&self, FlowDeletion { family, took, deleted }: FlowDeletion) {
        self.cleansing_duration.with_label_values(&of(family)).observe(took.as_secs_f64());
        self.deleted.with_label_values(&of(family)).inc_by(deleted as u64);
    }

    pub(crate) fn healthz(&self, good: bool) {
        self.healthz.with_label_values(&[code(good)]).inc();
    }

    pub(crate) fn livez(&self, good: bool) {
        self.livez.with_label_values(&[code(good)]).inc();
    }
}

const FAMILY: &str = "ip_family";

fn of(family: Family) -> [String; 1] {
    [family.to_string()]
}

/// Gives the metric a value for each family before the first event.
fn whole<T: MetricVecBuilder>(metric: MetricVec<T>) -> MetricVec<T> {
    for family in Family::ALL {
        metric.with_label_values(&of(family));
    }
    metric
}

fn code(good: bool) -> &'static str {
    if good { "200" } else { "503" }
}

fn sync_buckets() -> Vec<f64> {
    (0..15).map(|power| 0.001 * 2_f64.powi(power)).collect()
}

/// The bound 0 is kube-proxy's too: it appends its bounds to a list that holds a 0.
fn programming_buckets() -> Vec<f64> {
    let every = |from: u16, to: u16, step: u16| (from..=to).step_by(step.into()).map(f64::from);
    let bounds = [0.0, 0.25, 0.5].into_iter().chain(every(1, 59, 1));
    bounds.chain(every(60, 115, 5)).chain(every(120, 300, 30)).collect()
}
