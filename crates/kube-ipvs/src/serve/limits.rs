//! The time-outs of the HTTP servers, so that a slow client or a busy owner of the kernel never blocks a probe.

use std::time::Duration;

/// The time-outs of the HTTP servers. Tests set longer ones, as their results must not depend on the machine's speed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a client may take to send its request, read none of its answer, and keep an idle connection: the number
    /// of connections is limited, and probes are quick.
    pub caller: Duration,
    /// How long a scrape waits for the owner of the kernel to measure. After that it gets the last measurement.
    pub owner: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { caller: Duration::from_secs(5), owner: Duration::from_secs(2) }
    }
}
