use crate::{DestinationKey, Forwarding, Stats};

/// The configuration of a destination: everything that can change without deleting it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Destination {
    /// How packets reach it.
    pub forwarding: Forwarding,
    /// Its share of new connections, relative to the others. With 0 it keeps its connections and gets no new ones. The
    /// kernel rejects more than 2³¹ − 1 (`ERANGE`).
    pub weight: u32,
    /// With this many connections it gets no new ones; 0 for no limit. The kernel rejects more than 2³¹ − 1 (`EINVAL`).
    pub upper_threshold: u32,
    /// Below this many connections it gets new ones again; 0 for three quarters of the upper threshold. The kernel
    /// rejects more than the upper threshold (`ERANGE`).
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

/// The current connections of a destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Connections {
    /// Established connections.
    pub active: u32,
    /// All others: closing connections, and UDP. A connection counts until it times out.
    pub inactive: u32,
    /// Persistence templates: clients bound to this destination.
    pub persistent: u32,
}

/// A destination as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DestinationEntry {
    /// The destination.
    pub key: DestinationKey,
    /// Its configuration.
    pub destination: Destination,
    /// Its current connections.
    pub connections: Connections,
    /// Its counters.
    pub stats: Stats,
}
