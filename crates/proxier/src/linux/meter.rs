//! How long the kernel takes.

use std::{collections::BTreeMap, time::Duration};

use crate::model::Family;

/// A part of the kernel, by the netlink protocol that it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Subsystem {
    /// Virtual servers and real servers.
    Ipvs,
    /// Rules and sets.
    Nftables,
    /// The device and its addresses.
    Addresses,
    /// Flows.
    Conntrack,
}

/// What was done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// What every plan stands on was looked at, and made where it was not there.
    Prepare,
    /// It was read.
    Read,
    /// A plan was carried out.
    Apply,
}

/// Flows of one family were looked through for those that are to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowDeletion {
    /// The family.
    pub family: Family,
    /// How long that took.
    pub took: Duration,
    /// How many flows were forgotten.
    pub forgotten: usize,
}

/// What was asked of the kernel.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    /// How long it took to answer.
    pub spent: BTreeMap<(Subsystem, Operation), Duration>,
    /// What was forgotten.
    pub flow_deletions: Vec<FlowDeletion>,
}

impl Meter {
    pub(super) fn add(&mut self, subsystem: Subsystem, operation: Operation, time: Duration) {
        *self.spent.entry((subsystem, operation)).or_default() += time;
    }
}
