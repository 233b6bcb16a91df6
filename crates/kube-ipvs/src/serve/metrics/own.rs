//! Our own metrics.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family as Of,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry,
};
use proxier::{
    Counts, SyncReport,
    linux::{Operation, Subsystem},
    plan::Change,
};

/// Seconds.
type Seconds = Counter<f64, AtomicU64>;

/// Our own metrics, except for those of each Service.
#[derive(Debug)]
pub(crate) struct KubeIpvs {
    virtual_servers: Gauge,
    real_servers: Gauge,
    draining: Gauge,
    plan_changes: Histogram,
    apply_errors: Of<[(&'static str, &'static str); 1], Counter>,
    netlink: Of<[(&'static str, &'static str); 2], Seconds>,
    drift_repaired: Counter,
    unavailable: Gauge,
}

impl KubeIpvs {
    /// Registers them.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            virtual_servers: Gauge::default(),
            real_servers: Gauge::default(),
            draining: Gauge::default(),
            // From one change to what a first sync of a large cluster has.
            plan_changes: Histogram::new(exponential_buckets(1.0, 4.0, 10)),
            apply_errors: Of::default(),
            netlink: Of::default(),
            drift_repaired: Counter::default(),
            unavailable: Gauge::default(),
        };
        for kind in KINDS {
            drop(metrics.apply_errors.get_or_create(&[("kind", kind)]));
        }
        for subsystem in [Subsystem::Ipvs, Subsystem::Nftables, Subsystem::Addresses, Subsystem::Conntrack] {
            for operation in [Operation::Prepare, Operation::Read, Operation::Apply] {
                metrics.spent(subsystem, operation, Duration::ZERO);
            }
        }
        let registry = registry.sub_registry_with_prefix("kube_ipvs");
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The version of kube-ipvs", Info::new(version));
        registry.register("virtual_servers", "Virtual servers of ours", metrics.virtual_servers.clone());
        registry.register(
            "real_servers",
            "Real servers of ours, each as often as virtual servers have it",
            metrics.real_servers.clone(),
        );
        registry.register(
            "draining_endpoints",
            "Real servers that have left the endpoints and keep their last connections",
            metrics.draining.clone(),
        );
        registry.register(
            "plan_changes",
            "How many changes of the kernel a sync had to make, if any",
            metrics.plan_changes.clone(),
        );
        registry.register(
            "apply_errors",
            "Changes that the kernel refused, by what they were about; kernel: it could not be used at all",
            metrics.apply_errors.clone(),
        );
        registry.register("netlink_seconds", "How long the kernel took", metrics.netlink.clone());
        registry.register(
            "drift_repaired",
            "Changes that kube-ipvs made again because another program had undone them",
            metrics.drift_repaired.clone(),
        );
        registry.register(
            "health_check_ports_unavailable",
            "healthCheckNodePorts that cannot be opened",
            metrics.unavailable.clone(),
        );
        metrics
    }

    /// A sync has ended.
    pub(crate) fn record_sync(&self, report: &SyncReport) {
        if !report.plan.is_empty() {
            self.plan_changes.observe(report.plan.changes().len() as f64);
        }
        self.drift_repaired.inc_by(report.drifted as u64);
        let failed = report.failures.iter().map(|failure| kind(&failure.change));
        for kind in failed.chain(report.unavailable.iter().map(|_| KERNEL)) {
            self.apply_errors.get_or_create(&[("kind", kind)]).inc();
        }
    }

    /// The kernel has taken its time.
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
        let labels = [("subsystem", subsystem), ("operation", operation)];
        self.netlink.get_or_create(&labels).inc_by(time.as_secs_f64());
    }

    /// So much there is.
    pub(crate) fn counts(&self, counts: Counts) {
        self.virtual_servers.set(counts.virtual_servers as i64);
        self.real_servers.set(counts.real_servers as i64);
        self.draining.set(counts.draining as i64);
    }

    /// So many healthCheckNodePorts cannot be listened at.
    pub(crate) fn unavailable(&self, count: usize) {
        self.unavailable.set(count as i64);
    }
}

const KERNEL: &str = "kernel";
/// A kind that this version does not know.
const OTHER: &str = "other";
const KINDS: [&str; 6] = ["virtual-server", "real-server", "address", "element", "flows", KERNEL];

/// What a change is about.
fn kind(change: &Change) -> &'static str {
    let [virtual_server, real_server, address, element, flows, _] = KINDS;
    match change {
        Change::AddServer { .. } | Change::UpdateServer { .. } | Change::RemoveServer(_) => virtual_server,
        Change::AddRealServer { .. } | Change::UpdateRealServer { .. } | Change::RemoveRealServer { .. } => {
            real_server
        }
        Change::Bind(_) | Change::Unbind(_) => address,
        Change::AddElement { .. } | Change::RemoveElement { .. } => element,
        Change::DeleteFlows { .. } => flows,
        _ => OTHER,
    }
}
