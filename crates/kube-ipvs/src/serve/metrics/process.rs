//! The metrics of this process (`process_*`), as every Prometheus client exposes them; dashboards for kube-proxy show
//! them. The prometheus crate counts processor time in whole seconds, and an idle proxy needs minutes for one.

use std::fs;

use prometheus::{Counter, Gauge, Registry, proto::MetricFamily};
use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

use super::add;

pub(crate) fn process() -> Vec<MetricFamily> {
    let registry = Registry::new();
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let Some(stat) = Stat::parse(&text, clock_ticks_per_second(), page_size() as u64) else {
        return Vec::new();
    };
    add(&registry, Counter::new("process_cpu_seconds_total", "Processor time in seconds")).inc_by(stat.cpu);
    let start = boot_time().map(|boot| boot + stat.start);
    let open = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
    let most = getrlimit(Resource::Nofile).current.map(|most| most as f64);
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Resident memory in bytes", Some(stat.resident_bytes as f64)),
        ("process_virtual_memory_bytes", "Virtual memory in bytes", Some(stat.virtual_bytes as f64)),
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

/// Fields of /proc/PID/stat, by proc_pid_stat(5).
#[derive(Debug, PartialEq)]
struct Stat {
    /// Seconds of processor time.
    cpu: f64,
    /// Seconds after boot.
    start: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
}

impl Stat {
    fn parse(text: &str, ticks: u64, page: u64) -> Option<Self> {
        // The program name, in parentheses, can contain anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        // The first of these fields is number 3 in the manual page.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let seconds = |field| Some(number(field)? as f64 / ticks as f64);
        Some(Self {
            cpu: seconds(14)? + seconds(15)?,
            start: seconds(22)?,
            virtual_bytes: number(23)?,
            resident_bytes: number(24)? * page,
        })
    }
}

/// In seconds since 1970.
fn boot_time() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_stat_line_is_parsed_after_the_program_name() {
        let line = "4711 (a) (b c) S 1 4711 4711 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 6 0 12345 1000000 250 1844 1 1";
        let stat = Stat { cpu: 2.0, start: 123.45, virtual_bytes: 1_000_000, resident_bytes: 1_024_000 };
        assert_eq!(Stat::parse(line, 100, 4096), Some(stat));
        assert_eq!(Stat::parse("4711 (a) S 1", 100, 4096), None);
    }
}
