//! Configuration and state of IPVS as plain values, without bytes or sockets.
//!
//! Everything that a caller sets (keys, [`VirtualServer`], [`Destination`], [`Daemon`], [`Timeouts`]) is `Copy`,
//! ordered and hashable. So callers can use it as a map key and compare it with the kernel's state.

mod daemon;
mod destination;
mod forwarding;
mod info;
mod key;
mod name;
mod persistence;
mod protocol;
mod service;
mod stats;
mod timeouts;

pub use daemon::{Daemon, DaemonRole};
pub use destination::{Connections, Destination, DestinationEntry};
pub use forwarding::{Forwarding, Tunnel, TunnelFlags, TunnelType};
pub use info::{Info, Version};
pub use key::{DestinationKey, VirtualServerKey};
pub use name::{InterfaceName, InvalidName, PersistenceEngine, Scheduler};
pub use persistence::{Netmask, Persistence};
pub use protocol::{Family, Protocol};
pub use service::{ServiceEntry, ServiceFlags, VirtualServer};
pub use stats::{Rates, Stats};
pub use timeouts::Timeouts;
