//! Metrics that only kube-ipvs has.

use std::time::Duration;

use prometheus::{
    CounterVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use proxier::{
    Counts, SyncReport,
    linux::{Operation, Subsystem},
    plan::Change,
};

use super::add;

#[derive(Debug)]
pub(crate) struct KubeIpvs {
    virtual_servers: IntGauge,
    real_servers: IntGauge,
    draining: IntGauge,
    conntrack_entries: IntGauge,
    conntrack_limit: IntGauge,
    plan_changes: Histogram,
    apply_errors: IntCounterVec,
    netlink: CounterVec,
    drift_repaired: IntCounter,
    unavailable: IntGauge,
}

impl KubeIpvs {
    pub(crate) fn register(registry: &Registry) -> Self {
        let build = Opts::new("kube_ipvs_build_info", "Constant 1, with the version of kube-ipvs as a label");
        let build = add(registry, IntGaugeVec::new(build, &["version"]));
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let gauge = |name: &str, help: &str| add(registry, IntGauge::new(name, help));
        let plan_changes = HistogramOpts::new("kube_ipvs_plan_changes", "Changes of the kernel in a sync that had any");
        // From one change to the first sync of a large cluster.
        let plan_changes = plan_changes.buckets((0..10).map(|power| 4_f64.powi(power)).collect());
        let apply_errors = Opts::new(
            "kube_ipvs_apply_errors_total",
            "Changes that the kernel rejected, by kind. The kind kernel counts the times that the kernel could not be \
             used at all",
        );
        let netlink =
            Opts::new("kube_ipvs_netlink_seconds_total", "Seconds that the kernel took, by subsystem and operation");
        let metrics = Self {
            virtual_servers: gauge("kube_ipvs_virtual_servers", "Virtual servers of kube-ipvs"),
            real_servers: gauge(
                "kube_ipvs_real_servers",
                "Real servers of kube-ipvs, counted once for each virtual server",
            ),
            draining: gauge(
                "kube_ipvs_draining_endpoints",
                "Real servers that drain: their endpoints have left, and they keep their last connections",
            ),
            conntrack_entries: gauge(
                "kube_ipvs_conntrack_entries",
                "Entries of the connection tracking table of the node. 0 if the kernel has no such table",
            ),
            conntrack_limit: gauge(
                "kube_ipvs_conntrack_entries_limit",
                "Entries that the connection tracking table of the node can hold. Then the kernel drops new connections",
            ),
            plan_changes: add(registry, Histogram::with_opts(plan_changes)),
            apply_errors: add(registry, IntCounterVec::new(apply_errors, &["kind"])),
            netlink: add(registry, CounterVec::new(netlink, &["subsystem", "operation"])),
            drift_repaired: add(
                registry,
                IntCounter::new(
                    "kube_ipvs_drift_repaired_total",
                    "Changes that kube-ipvs repeated because another program had undone them",
                ),
            ),
            unavailable: gauge(
                "kube_ipvs_health_check_ports_unavailable",
                "healthCheckNodePorts on which kube-ipvs cannot listen",
            ),
        };
        for kind in KINDS {
            metrics.apply_errors.with_label_values(&[kind]);
        }
        for subsystem in [Subsystem::Ipvs, Subsystem::Nftables, Subsystem::Addresses, Subsystem::Conntrack] {
            for operation in [Operation::Prepare, Operation::Read, Operation::Apply] {
                metrics.spent(subsystem, operation, Duration::ZERO);
            }
        }
        metrics
    }

    pub(crate) fn record_sync(&self, report: &SyncReport) {
        if !report.plan.is_empty() {
            self.plan_changes.observe(report.plan.changes().len() as f64);
        }
        self.drift_repaired.inc_by(report.drifted as u64);
        let failed = report.failures.iter().map(|failure| kind(&failure.change));
        for kind in failed.chain(report.unavailable.iter().map(|_| KERNEL)) {
            self.apply_errors.with_label_values(&[kind]).inc();
        }
    }

    pub(crate) fn spent(&self, subsystem: Subsystem, operation: Operation, time: Duration) {
        let subsystem = match subsystem {
            Subsystem::Ipvs => "ipvs",
            Subsystem::Nftables => "nftables",
            Subsystem::Addresses => "addresses",
            Subsystem::Conntrack => "conntrack",
            _ => OTHER,
        };
        let operation = match operation {
            Operation::Prepare => "prepare",
            Operation::Read => "read",
            Operation::Apply => "apply",
            _ => OTHER,
        };
        self.netlink.with_label_values(&[subsystem, operation]).inc_by(time.as_secs_f64());
    }

    pub(crate) fn counts(&self, counts: Counts) {
        self.virtual_servers.set(counts.virtual_servers as i64);
        self.real_servers.set(counts.real_servers as i64);
        self.draining.set(counts.draining as i64);
    }

    /// The number of entries and the limit. None: the kernel has no connection tracking.
    pub(crate) fn conntrack(&self, table: Option<(i64, i64)>) {
        let (entries, limit) = table.unwrap_or_default();
        self.conntrack_entries.set(entries);
        self.conntrack_limit.set(limit);
    }

    pub(crate) fn unavailable(&self, count: usize) {
        self.unavailable.set(count as i64);
    }
}

const KERNEL: &str = "kernel";
/// A kind that this version does not know.
const OTHER: &str = "other";
const KINDS: [&str; 6] = ["virtual-server", "real-server", "address", "element", "flows", KERNEL];

fn kind(change: &Change) -> &'static str {
    let [virtual_server, real_server, address, element, flows, _] = KINDS;
    match change {
        Change::AddVirtualServer { .. } | Change::UpdateVirtualServer { .. } | Change::RemoveVirtualServer(_) => {
            virtual_server
        }
        Change::AddRealServer { .. } | Change::UpdateRealServer { .. } | Change::RemoveRealServer { .. } => real_server,
        Change::Bind(_) | Change::Unbind(_) => address,
        Change::AddElement { .. } | Change::RemoveElement { .. } => element,
        Change::DeleteFlows { .. } => flows,
        _ => OTHER,
    }
}
