//! What a turn tells.

use crate::{
    desired::{HealthCheck, Skipped},
    kernel::Unusable,
    model::{ServiceId, ServicePortId},
    plan::{Change, Plan},
};

/// What a turn did.
#[derive(Debug, Default)]
pub struct Turn {
    /// What was to be done. Everything in it was done, but for `failures`.
    pub plan: Plan,
    /// What failed. It is tried again, later and later.
    pub failures: Vec<FailedChange>,
    /// What Services ask for and cannot have, as far as it was not reported before.
    pub skipped: Vec<Skipped>,
    /// Why nothing could be done, if nothing could.
    pub unusable: Option<Unusable>,
    /// What load balancers are to be told from now on that ask this node about a Service, where that has changed; none:
    /// they are not answered any more.
    pub health_checks: Vec<(ServiceId, Option<HealthCheck>)>,
    /// Whether the kernel was read and compared as a whole: all that failed before was tried again.
    pub whole: bool,
    /// How many of the changes had been made already: the kernel had it otherwise when it was read.
    pub drifted: usize,
}

/// How much there is in the kernel of ours, as far as is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Virtual servers.
    pub virtual_servers: usize,
    /// Real servers, each as often as virtual servers have it.
    pub real_servers: usize,
    /// Real servers that have left the endpoints and keep their last connections.
    pub draining: usize,
}

/// A change that the kernel refused. `Display` says for which Service, what, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {change}: {reason}", service.as_ref().map_or("all Services".into(), |port| format!("Service {port}")))]
pub struct FailedChange {
    /// The Service that it was for.
    pub service: Option<ServicePortId>,
    /// What was to be done.
    pub change: Change,
    /// Why it was not, in the kernel's words.
    pub reason: String,
}
