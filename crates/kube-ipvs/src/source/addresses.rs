//! The addresses of this host.

use std::collections::BTreeSet;

use proxier::{
    linux::{HostAddresses, Names},
    model::{Event, NodeAddress},
};

/// Reads the addresses once.
///
/// # Errors
///
/// When the kernel cannot be asked.
pub fn list() -> anyhow::Result<BTreeSet<NodeAddress>> {
    Ok(HostAddresses::open(&Names::default())?.read()?)
}

/// Delivers the addresses now and whenever they change, until `deliver` says false.
///
/// # Errors
///
/// When the kernel cannot be asked at the start; later failures are logged and tried again.
pub fn follow(mut deliver: impl FnMut(Event) -> bool) -> anyhow::Result<()> {
    let mut host = HostAddresses::open(&Names::default())?;
    let mut addresses = host.read()?;
    while deliver(Event::NodeAddresses(addresses)) {
        addresses = loop {
            match host.wait() {
                Ok(addresses) => break addresses,
                Err(error) => tracing::warn!("{error}; the addresses known so far stay in force"),
            }
        };
    }
    Ok(())
}
