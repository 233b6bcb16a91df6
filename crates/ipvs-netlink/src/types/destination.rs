use crate::{DestinationKey, Forwarding, Stats};

/// How a destination is used: everything that can be changed without deleting it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// How packets reach it.
    pub forwarding: Forwarding,
    /// Its share of new connections, relative to the others. With 0 it gets none but keeps those it has. The
    /// kernel refuses more than 2³¹ − 1 (`ERANGE`).
    pub weight: u32,
    /// With this many connections it gets no more; 0 for no limit. The kernel refuses more than 2³¹ − 1
    /// (`EINVAL`).
    pub upper_threshold: u32,
    /// Below this many connections it gets new ones again; 0 for three quarters of the upper threshold. The
    /// kernel refuses more than the upper threshold (`ERANGE`).
    pub lower_threshold: u32,
}

impl Destination {
    /// A destination without thresholds.
    pub const fn new(forwarding: Forwarding, weight: u32) -> Self {
        Self { forwarding, weight, upper_threshold: 0, lower_threshold: 0 }
    }
}

/// Masquerading, weight 1.
impl Default for Destination {
    fn default() -> Self {
        Self::new(Forwarding::Masq, 1)
    }
}

/// How many connections a destination has now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Connections {
    /// Established ones.
    pub active: u32,
    /// All others: those being closed, and UDP. A connection counts here until its timeout passed.
    pub inactive: u32,
    /// Persistence templates: clients bound to this destination.
    pub persistent: u32,
}

/// A destination as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DestinationEntry {
    /// Which one.
    pub key: DestinationKey,
    /// How it is used.
    pub destination: Destination,
    /// How many connections it has.
    pub connections: Connections,
    /// What it did so far.
    pub stats: Stats,
}
