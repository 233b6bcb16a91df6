//! The kernel parameters that the data plane stands on. They belong to the network namespace of the
//! calling thread.

use std::{fs, io};

/// Each with what goes wrong without it.
const NEEDED: [(&str, &str, &str); 4] = [
    (
        "net/ipv4/vs/conntrack",
        "1",
        "packets of a service would have no conntrack entry, and so no masquerade",
    ),
    ("net/ipv4/vs/expire_nodest_conn", "1", "flows to a removed endpoint would be black holes"),
    ("net/ipv4/vs/expire_quiescent_template", "1", "clients with affinity would stick to a dead endpoint"),
    ("net/ipv4/ip_forward", "1", "the node would not forward to pods"),
];

/// A parameter that is not as it must be, and cannot be changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {} = {value}: {error}; without it {consequence}; set it on the host: sysctl -w {}={value}", name.replace('/', "."), name.replace('/', "."))]
pub(super) struct NotSet {
    name: String,
    value: &'static str,
    consequence: &'static str,
    error: io::Error,
}

/// Sets what is not set yet. A read-only /proc/sys is no obstacle where all is right already.
pub(super) fn prepare() -> Result<(), NotSet> {
    for (name, value, consequence) in NEEDED {
        set(name, value).map_err(|error| NotSet { name: name.into(), value, consequence, error })?;
    }
    let reuse = if kernel_is_at_least(5, 9) { "1" } else { "0" };
    let consequence = "re-used client ports would wait for a second, or reach dead endpoints";
    match set(REUSE, reuse) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(|error| NotSet { name: REUSE.into(), value: reuse, consequence, error }),
    }
}

/// Before 5.9 mode 1 delayed a connection from a re-used port by a second.
const REUSE: &str = "net/ipv4/vs/conn_reuse_mode";

fn set(name: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/{name}");
    if fs::read_to_string(&path)?.trim() == value {
        return Ok(());
    }
    fs::write(path, value)
}

fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.trim().parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}
