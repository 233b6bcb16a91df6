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
/// If the kernel does not answer.
pub fn list() -> anyhow::Result<BTreeSet<NodeAddress>> {
    Ok(HostAddresses::open(&Names::default())?.read()?)
}

/// Delivers the addresses now and after each change, until `deliver` returns false.
///
/// # Errors
///
/// If the kernel does not answer at the start. Later failures are logged and retried.
pub fn follow(mut deliver: impl FnMut(Event) -> bool) -> anyhow::Result<()> {
    let mut host = HostAddresses::open(&Names::default())?;
    let mut addresses = host.read()?;
    while deliver(Event::NodeAddresses(addresses)) {
        addresses = loop {
            match host.wait() {
                Ok(addresses) => break addresses,
                Err(error) => tracing::warn!("{error}. kube-ipvs keeps the last known addresses"),
            }
        };
    }
    Ok(())
}
