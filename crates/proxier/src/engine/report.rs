//! What a sync tells.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use crate::{
    cluster::Claim,
    desired::{HealthCheck, Skipped},
    kernel::{KernelUnavailable, Reason},
    model::{Family, ServiceId, ServicePortId, VirtualServerKey},
    plan::{Change, Plan},
};

/// What a sync did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SyncReport {
    /// The changes that the engine asked for. The kernel made all of them, except those in `failures` and those about a
    /// virtual server that exists although a list left it out: the engine reads the kernel again for these.
    pub plan: Plan,
    /// What failed. It is tried again, later and later.
    pub failures: Vec<FailedChange>,
    /// What Services ask for and cannot have, as far as it was not reported before.
    pub skipped: Vec<Skipped>,
    /// Why nothing could be done, if nothing could.
    pub unavailable: Option<KernelUnavailable>,
    /// What load balancers are to be told from now on that ask this node about a Service, where that has changed; none:
    /// they are not answered any more.
    pub health_checks: Vec<(ServiceId, Option<HealthCheck>)>,
    /// Whether the kernel was read and compared as a whole: all that failed before was tried again.
    pub whole: bool,
    /// How many of the changes had been made already: the kernel had it otherwise when it was read.
    pub drifted: usize,
    /// What Services had asked for and do not any more.
    pub given_up: BTreeMap<VirtualServerKey, ServiceId>,
}

impl Engine {
    /// The Services that changes of a sync are for, those that are gone included. Some changes are for none: addresses
    /// of pods, ranges of ClusterIPs.
    pub fn services_of<'a>(&'a self, report: &'a SyncReport) -> BTreeSet<&'a ServiceId> {
        let mut services = BTreeSet::new();
        let about = |change: &Change| (change.key(), change.address());
        for run in report.plan.changes().chunk_by(|one, other| about(one) == about(other)) {
            let (key, address) = run.first().map_or((None, None), about);
            let holder = key.and_then(|key| match self.cluster.holder(&Claim::VirtualServer(key)) {
                Some(holder) => Some(&holder.port.service),
                None => report.given_up.get(&key),
            });
            services.extend(holder);
            services.extend(address.into_iter().flat_map(|address| self.cluster.services_at(address)));
        }
        services
    }

    /// Whether a sync was about a family: it changed something of it, or compared what there is of it.
    pub fn is_about(&self, report: &SyncReport, family: Family) -> bool {
        let has_any = || {
            let servers = self.known.iter().flat_map(|known| {
                let servers = &known.virtual_servers;
                servers.first_key_value().into_iter().chain(servers.last_key_value())
            });
            servers.map(|(key, _)| key.family()).any(|of| of == family)
        };
        report.plan.changes().iter().any(|change| change.family() == family) || report.whole && has_any()
    }
}

/// How much there is in the kernel of ours, as far as is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Virtual servers.
    pub virtual_servers: usize,
    /// Real servers, each as often as virtual servers have it.
    pub real_servers: usize,
    /// Real servers that have left the endpoints and keep their last connections.
    pub draining: usize,
}

/// How many Services have traffic that is to stay on this node, where none of their endpoints takes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NoLocalEndpoints {
    pub(super) internal: [usize; 2],
    pub(super) external: [usize; 2],
}

impl NoLocalEndpoints {
    /// Those whose `internalTrafficPolicy` says so, in one family.
    pub fn internal(&self, family: Family) -> usize {
        self.internal[family as usize]
    }

    /// Those whose `externalTrafficPolicy` says so, in one family.
    pub fn external(&self, family: Family) -> usize {
        self.external[family as usize]
    }
}

/// A change that the kernel refused. `Display` says for which Service, what, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {change}: {reason}", service.as_ref().map_or("all Services".into(), |port| format!("Service {port}")))]
#[non_exhaustive]
pub struct FailedChange {
    /// The Service that it was for.
    pub service: Option<ServicePortId>,
    /// What was to be done.
    pub change: Change,
    /// Why it was not, in the kernel's words, and its errno.
    pub reason: Reason,
}
