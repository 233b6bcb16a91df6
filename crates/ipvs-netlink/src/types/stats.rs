/// Counters of a virtual server or of a destination, since it was added or zeroed.
///
/// The kernel adds up the counters of its processors every two seconds, when it estimates the rates: what happened
/// since does not show yet, and setting them to zero does not erase it.
///
/// Kernels before 4.1 count connections and packets in 32 bits, which then wrap around here too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stats {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients that passed through this host, thus 0 unless masquerading.
    pub packets_out: u64,
    /// Bytes from clients, with IP headers.
    pub bytes_in: u64,
    /// Bytes to clients that passed through this host.
    pub bytes_out: u64,
    /// Averages of the last seconds.
    pub rates: Rates,
}

/// Averages a second, which the kernel re-estimates every two seconds (0 when the sysctl
/// `net.ipv4.vs.run_estimation` is 0).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rates {
    /// Connections a second.
    pub connections: u64,
    /// Packets a second from clients.
    pub packets_in: u64,
    /// Packets a second to clients.
    pub packets_out: u64,
    /// Bytes (not bits) a second from clients.
    pub bytes_in: u64,
    /// Bytes (not bits) a second to clients.
    pub bytes_out: u64,
}
