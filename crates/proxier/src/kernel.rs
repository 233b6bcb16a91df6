//! The edge between what is decided and what is done.

use std::collections::BTreeMap;

use crate::{cluster::EndpointAddress, model::VirtualServerKey, plan::Plan, state::State};

/// A kernel that can be read and changed. Synchronous: one owner calls it, one call at a time.
pub trait Kernel {
    /// Makes what every plan stands on, where it is not there: the device, the tables, the sysctls.
    ///
    /// # Errors
    ///
    /// When a plan could not work at all, with what is missing and what to do.
    fn prepare(&mut self) -> Result<(), Unusable>;

    /// Reads the state.
    ///
    /// # Errors
    ///
    /// When any part of it cannot be read: an unreadable state is never an empty one.
    fn observe(&mut self) -> Result<State, Unusable>;

    /// Counts the connections of the real servers of some virtual servers. One that is gone has none.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    fn connections(&mut self, servers: &[VirtualServerKey]) -> Result<ConnectionCounts, Unusable>;

    /// Carries out a plan, going on past what fails.
    fn apply(&mut self, plan: &Plan) -> Report;
}

/// How many connections go through a real server, established and dying ones together.
pub type ConnectionCounts = BTreeMap<(VirtualServerKey, EndpointAddress), u64>;

/// The kernel cannot be used at all, for now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

/// What became of a plan. Everything that is not listed was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What failed.
    pub failures: Vec<Failure>,
}

/// One change that was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its place in the plan.
    pub change: usize,
    /// Why, in the kernel's words where it has any.
    pub reason: String,
}
