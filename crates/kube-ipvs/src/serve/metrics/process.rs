//! The metrics of this process (`process_*`), as every Prometheus client exposes them; dashboards for kube-proxy show
//! them. The prometheus crate counts processor time in whole seconds, and an idle proxy needs minutes for one.

use std::fs;

use procfs::{boot_time_secs, page_size, process::Process, ticks_per_second};
use prometheus::{Counter, Gauge, Registry, proto::MetricFamily};
use rustix::process::{Resource, getrlimit};

use super::add;

pub(crate) fn process() -> Vec<MetricFamily> {
    let registry = Registry::new();
    let Ok(stat) = Process::myself().and_then(|process| process.stat()) else { return Vec::new() };
    let seconds = |ticks: u64| ticks as f64 / ticks_per_second() as f64;
    let cpu = add(&registry, Counter::new("process_cpu_seconds_total", "Processor time in seconds"));
    cpu.inc_by(seconds(stat.utime + stat.stime));
    let start = boot_time_secs().ok().map(|boot| boot as f64 + seconds(stat.starttime));
    let open = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
    let most = getrlimit(Resource::Nofile).current.map(|most| most as f64);
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Resident memory in bytes", Some((stat.rss * page_size()) as f64)),
        ("process_virtual_memory_bytes", "Virtual memory in bytes", Some(stat.vsize as f64)),
        ("process_start_time_seconds", "Unix time at which the process started", start),
        ("process_open_fds", "Open file descriptors", open),
        ("process_max_fds", "Maximum number of open file descriptors", most),
    ] {
        if let Some(value) = value {
            add(&registry, Gauge::new(name, help)).set(value);
        }
    }
    registry.gather()
}
