//! Durations of kernel operations.

use std::{collections::BTreeMap, time::Duration};

use crate::model::Family;

/// A part of the kernel, by its netlink protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Subsystem {
    /// Virtual servers and real servers.
    Ipvs,
    /// Rules and sets.
    Nftables,
    /// The device and its addresses, over rtnetlink.
    Addresses,
    /// Conntrack entries.
    Conntrack,
}

/// The kind of a kernel operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Verify the prerequisites of every plan, and make those that are missing.
    Prepare,
    /// Read state.
    Read,
    /// Apply a plan.
    Apply,
}

/// One deletion of flows of one family, with all lists of conntrack entries that it needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowDeletion {
    /// The family of the entries.
    pub family: Family,
    /// The duration.
    pub took: Duration,
    /// The number of deleted flows.
    pub deleted: usize,
}

/// The kernel operations of a period.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    /// The total duration by subsystem and operation.
    pub spent: BTreeMap<(Subsystem, Operation), Duration>,
    /// The deletions of flows.
    pub flow_deletions: Vec<FlowDeletion>,
}

impl Meter {
    pub(super) fn add(&mut self, subsystem: Subsystem, operation: Operation, time: Duration) {
        *self.spent.entry((subsystem, operation)).or_default() += time;
    }
}
