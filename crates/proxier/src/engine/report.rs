//! The result of a sync.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use crate::{
    cluster::Claim,
    desired::{HealthCheck, Skipped},
    kernel::{KernelUnavailable, Reason},
    model::{Family, ServiceId, ServicePortId, VirtualServerKey},
    plan::{Change, Plan},
};

/// The result of a sync.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SyncReport {
    /// The changes that the engine asked for. The kernel made all of them, with two exceptions: those in `failures`,
    /// and those about a virtual server that exists although a list omitted it. For the latter the engine reads the
    /// kernel again.
    pub plan: Plan,
    /// The changes that failed. The engine retries them with increasing delays.
    pub failures: Vec<FailedChange>,
    /// The requests of Services that cannot be fulfilled, without those that an earlier sync reported.
    pub skipped: Vec<Skipped>,
    /// Why the kernel could not be used, if it could not.
    pub unavailable: Option<KernelUnavailable>,
    /// The changed answers to load balancers that ask this node about a Service. None: the health check has ended.
    pub health_checks: Vec<(ServiceId, Option<HealthCheck>)>,
    /// Whether the engine read the kernel and compared all of it, which retries all earlier failures.
    pub is_full: bool,
    /// The number of changes that repair drift: the kernel differed from the state that the engine expected.
    pub drifted: usize,
    /// The virtual servers that no Service asks for any more, each with the Service that asked last.
    pub released: BTreeMap<VirtualServerKey, ServiceId>,
}

impl Engine {
    /// The Services that the changes of a sync are for, including removed ones. Some changes are for no Service, such
    /// as pod ranges and ranges of ClusterIPs.
    pub fn services_of<'a>(&'a self, report: &'a SyncReport) -> BTreeSet<&'a ServiceId> {
        let mut services = BTreeSet::new();
        let about = |change: &Change| (change.key(), change.address());
        for run in report.plan.changes().chunk_by(|one, other| about(one) == about(other)) {
            let (key, address) = run.first().map_or((None, None), about);
            let holder = key.and_then(|key| match self.cluster.holder(&Claim::VirtualServer(key)) {
                Some(holder) => Some(&holder.port.service),
                None => report.released.get(&key),
            });
            services.extend(holder);
            services.extend(address.into_iter().flat_map(|address| self.cluster.services_at(address)));
        }
        services
    }

    /// Whether a sync was about a family: it changed state of the family, or compared it.
    pub fn concerns_family(&self, report: &SyncReport, family: Family) -> bool {
        let has_any = || {
            let servers = self.known.iter().flat_map(|known| {
                let servers = &known.virtual_servers;
                servers.first_key_value().into_iter().chain(servers.last_key_value())
            });
            servers.map(|(key, _)| key.family()).any(|of| of == family)
        };
        report.plan.changes().iter().any(|change| change.family() == family) || report.is_full && has_any()
    }
}

/// The amount of kube-ipvs's state in the kernel, as far as the engine knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Virtual servers.
    pub virtual_servers: usize,
    /// Real servers, counted once for each virtual server.
    pub real_servers: usize,
    /// Real servers that left the endpoints and keep their last connections.
    pub draining: usize,
}

/// The number of Services with the policy `Local` and endpoints elsewhere, but none on this node that takes
/// connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NoLocalEndpoints {
    pub(super) internal: [usize; 2],
    pub(super) external: [usize; 2],
}

impl NoLocalEndpoints {
    /// Services with `internalTrafficPolicy: Local`, in one family.
    pub fn internal(&self, family: Family) -> usize {
        self.internal[family as usize]
    }

    /// Services with `externalTrafficPolicy: Local`, in one family.
    pub fn external(&self, family: Family) -> usize {
        self.external[family as usize]
    }
}

/// A change that the kernel did not make. `Display` prints the Service, the change and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {change}: {reason}", service.as_ref().map_or("all Services".into(), |port| format!("Service {port}")))]
#[non_exhaustive]
pub struct FailedChange {
    /// The Service that it was for.
    pub service: Option<ServicePortId>,
    /// The change.
    pub change: Change,
    /// The kernel's reason, and its errno.
    pub reason: Reason,
}
