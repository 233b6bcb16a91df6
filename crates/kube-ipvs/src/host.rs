//! Host settings that kube-proxy applies once, at start. kube-ipvs can serve without them, so it only reports those
//! that it cannot set.

use std::{collections::BTreeSet, fs, io, path::Path};

use ipvs_netlink::Scheduler;
use proxier::linux::sysctl;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Configuration, Conntrack};

const CONNTRACK_MAX: &str = "net/netfilter/nf_conntrack_max";
const HASH_SIZE: &str = "/sys/module/nf_conntrack/parameters/hashsize";

/// Sets conntrack's limits and timeouts, the limit of open files and this process's OOM score. Returns the failures.
#[must_use]
pub fn prepare(configuration: &Configuration) -> Vec<String> {
    let mut failures = Vec::new();
    let mut failed = |failure: String| failures.push(failure);
    let conntrack = &configuration.conntrack;
    // The limit is the host's. Network namespaces other than the first can only read it.
    let is_ours = !fs::metadata(sysctl::path(CONNTRACK_MAX)).is_ok_and(|limit| limit.permissions().readonly());
    if let Some(most) = most_connections(conntrack).filter(|_| is_ours) {
        let consequence = "conntrack can become full, and then drops new connections";
        raise(CONNTRACK_MAX, most, consequence).unwrap_or_else(&mut failed);
        // Four connections per hash bucket, on average.
        raise_hash_size(most / 4).unwrap_or_else(&mut failed);
    }
    const EARLIER: &str = "conntrack forgets idle connections earlier than configured";
    const BEFORE_IPVS: &str = "conntrack forgets idle connections before IPVS does, and their packets reach endpoints \
                               from another port";
    let ipvs = &configuration.ipvs;
    // A connection ends with the shorter timeout of IPVS and conntrack, so conntrack's must not be the shorter one.
    // kube-ipvs does not raise `udp_timeout` to that of IPVS: conntrack would keep every DNS query for that long.
    for (name, timeout, consequence) in [
        ("tcp_timeout_established", conntrack.tcp_established_timeout, EARLIER),
        ("tcp_timeout_close_wait", conntrack.tcp_close_wait_timeout, EARLIER),
        ("udp_timeout", conntrack.udp_timeout, EARLIER),
        ("udp_timeout_stream", conntrack.udp_stream_timeout, EARLIER),
        ("tcp_timeout_established", ipvs.tcp_timeout, BEFORE_IPVS),
        ("tcp_timeout_fin_wait", ipvs.tcp_fin_timeout, BEFORE_IPVS),
        ("udp_timeout_stream", ipvs.udp_timeout, BEFORE_IPVS),
    ] {
        if let Some(timeout) = timeout.if_set() {
            let name = format!("net/netfilter/nf_conntrack_{name}");
            raise(&name, timeout.as_secs(), consequence).unwrap_or_else(&mut failed);
        }
    }
    if conntrack.tcp_be_liberal {
        let consequence = "the kernel does not translate packets outside the window of a connection";
        let set = sysctl::set("net/netfilter/nf_conntrack_tcp_be_liberal", "1", consequence);
        set.map_err(|error| error.to_string()).unwrap_or_else(&mut failed);
    }
    allow_open_files();
    let score = configuration.oom_score_adj;
    if let Err(error) = fs::write("/proc/self/oom_score_adj", score.to_string()) {
        failed(format!("cannot set this process's oom_score_adj = {score}: {error}"));
    }
    failures
}

/// The schedulers that no Service can make the kernel load. Loading them takes the lock of network namespaces under the
/// lock of IPVS. The end of a network namespace takes both in reverse order, so the kernel can deadlock (seen on 6.1).
/// A scheduler that is already loaded or built in is harmless.
pub fn hazardous_schedulers() -> BTreeSet<Scheduler> {
    hazardous_schedulers_of(Path::new("/sys/module"), &sysctl::path("net/ipv4/vs"))
}

fn hazardous_schedulers_of(modules: &Path, sysctls: &Path) -> BTreeSet<Scheduler> {
    let is_there = |scheduler: &Scheduler| {
        // A built-in scheduler has no module directory. Both kinds have a sysctl.
        modules.join(format!("ip_vs_{scheduler}")).exists() || sysctls.join(format!("{scheduler}_expiration")).exists()
    };
    [Scheduler::LBLC, Scheduler::LBLCR].into_iter().filter(|scheduler| !is_there(scheduler)).collect()
}

/// A container starts with a limit of 1024 open files. Each Service with a health check takes one or two.
fn allow_open_files() {
    let limits = getrlimit(Resource::Nofile);
    // Every process can raise its soft limit up to the hard limit. If it is that high already, a failure does no harm.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits });
}

/// The limit of connections to set for conntrack. None: the configuration leaves it unchanged.
fn most_connections(conntrack: &Conntrack) -> Option<u64> {
    let number = |number: i32| u64::try_from(number).unwrap_or(0);
    match number(conntrack.max_per_core.get()) {
        0 => None,
        per_core => Some((per_core * processors()).max(number(conntrack.min.get()))),
    }
}

/// The number of the host's processors. This process can have fewer.
fn processors() -> u64 {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    count(&online).max(1)
}

/// Counts the processors of a kernel list such as `0-3,6`.
fn count(list: &str) -> u64 {
    let one = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        (last + 1).checked_sub(first)
    };
    list.trim().split(',').filter_map(one).sum()
}

fn raise(name: &str, value: u64, consequence: &str) -> Result<(), String> {
    if read(sysctl::path(name)).is_ok_and(|found| found >= value) {
        return Ok(());
    }
    sysctl::set(name, &value.to_string(), consequence).map_err(|error| error.to_string())
}

fn raise_hash_size(slots: u64) -> Result<(), String> {
    if read(HASH_SIZE).is_ok_and(|found| found >= slots) {
        return Ok(());
    }
    fs::write(HASH_SIZE, slots.to_string()).map_err(|error| {
        format!(
            "cannot set {HASH_SIZE} = {slots}: {error}. Without it, conntrack is slower with many connections. Set \
                 it on the host: echo {slots} > {HASH_SIZE}"
        )
    })
}

fn read(path: impl AsRef<Path>) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheduler_already_in_the_kernel_is_not_hazardous() {
        let folder = tempfile::tempdir().unwrap();
        let hazardous = || hazardous_schedulers_of(&folder.path().join("module"), &folder.path().join("vs"));
        assert_eq!(hazardous(), [Scheduler::LBLC, Scheduler::LBLCR].into());
        fs::create_dir_all(folder.path().join("module/ip_vs_lblc")).unwrap();
        assert_eq!(hazardous(), [Scheduler::LBLCR].into());
        // Built in.
        fs::create_dir_all(folder.path().join("vs")).unwrap();
        fs::write(folder.path().join("vs/lblcr_expiration"), "86400").unwrap();
        assert_eq!(hazardous(), [].into());
    }

    #[test]
    fn processor_list_counts_single_numbers_and_ranges() {
        for (list, expected) in [("0\n", 1), ("0-3\n", 4), ("0-3,6,8-9", 7), ("", 0), ("what", 0), ("3-1", 0)] {
            assert_eq!(count(list), expected, "{list:?}");
        }
    }

    #[test]
    fn conntrack_limit_scales_with_processors_and_has_a_minimum() {
        let conntrack = |per_core: i64, min: i64| Conntrack {
            max_per_core: per_core.try_into().unwrap(),
            min: min.try_into().unwrap(),
            ..Conntrack::default()
        };
        assert_eq!(most_connections(&conntrack(0, 1000)), None);
        assert_eq!(most_connections(&conntrack(1, 1_000_000)), Some(1_000_000));
        assert_eq!(most_connections(&conntrack(1_000_000, 1)), Some(1_000_000 * processors()));
    }
}
