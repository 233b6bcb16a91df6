//! Kernel parameters. They belong to the network namespace of the calling thread.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::Settings;
use crate::{config::Config, kernel::Reason};

/// Name, value, and the consequence of a missing setting.
const NEEDED: [(&str, &str, &str); 4] = [
    (
        "net/ipv4/vs/conntrack",
        "1",
        "packets to a Service would have no conntrack entry, so the kernel would not \
                                    masquerade them",
    ),
    ("net/ipv4/vs/expire_nodest_conn", "1", "IPVS would silently drop the packets of flows to a removed endpoint"),
    (
        "net/ipv4/vs/expire_quiescent_template",
        "1",
        "clients with session affinity would stay on an endpoint that has left",
    ),
    ("net/ipv4/ip_forward", "1", "this node would not forward packets to pods"),
];

/// For [`Settings::strict_arp`].
const STRICT_ARP: [(&str, &str, &str); 2] = [
    ("net/ipv4/conf/all/arp_ignore", "1", "this node would answer ARP requests for VIPs, despite strict ARP"),
    ("net/ipv4/conf/all/arp_announce", "2", "this node would announce VIPs in ARP requests, despite strict ARP"),
];

/// For [`Config::localhost_node_ports`].
const LOCALHOST: [(&str, &str, &str); 1] =
    [("net/ipv4/conf/all/route_localnet", "1", "node ports on 127.0.0.1 would not reach pods")];

/// A sysctl that has the wrong value and cannot be changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {} = {value}: {error}. Without it, {consequence}. Set it on the host: sysctl -w {}={value}", name.replace('/', "."), name.replace('/', "."))]
pub struct SysctlError {
    name: String,
    value: String,
    consequence: String,
    error: io::Error,
}

impl From<SysctlError> for Reason {
    fn from(error: SysctlError) -> Self {
        Self::new(error.to_string(), error.error.raw_os_error())
    }
}

/// Sets a sysctl such as `net/ipv4/ip_forward`, unless it has the value already. So a read-only /proc/sys is no
/// obstacle if the values are right.
///
/// # Errors
///
/// If the sysctl cannot be set: with the `consequence`.
pub fn set(name: &str, value: &str, consequence: &str) -> Result<(), SysctlError> {
    let not_set =
        |error| SysctlError { name: name.into(), value: value.into(), consequence: consequence.into(), error };
    write(name, value).map_err(not_set)
}

pub(super) fn prepare(config: &Config, settings: &Settings) -> Result<(), SysctlError> {
    let strict_arp: &[_] = if settings.strict_arp { &STRICT_ARP } else { &[] };
    let localhost: &[_] = if config.localhost_node_ports { &LOCALHOST } else { &[] };
    for (name, value, consequence) in NEEDED.iter().chain(strict_arp).chain(localhost) {
        set(name, value, consequence)?;
    }
    let reuse = if kernel_is_at_least(5, 9) { "1" } else { "0" };
    let consequence = "connections from reused client ports would wait for a second, or go to removed endpoints";
    set_if_present(REUSE, reuse, consequence)
}

/// Does the same as [`set`], unless the kernel has no such sysctl.
pub(super) fn set_if_present(name: &str, value: &str, consequence: &str) -> Result<(), SysctlError> {
    match set(name, value, consequence) {
        Err(error) if error.error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Before Linux 5.9, mode 1 delayed a connection from a re-used port by a second.
const REUSE: &str = "net/ipv4/vs/conn_reuse_mode";

/// The file of a sysctl under /proc/sys.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

fn write(name: &str, value: &str) -> io::Result<()> {
    let path = path(name);
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
