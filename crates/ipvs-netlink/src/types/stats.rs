/// Counters of a virtual server or of a destination, since it was added or zeroed.
///
/// The kernel sums the counters of its processors every two seconds, when it estimates the rates. Until then recent
/// events do not show, and zeroing does not erase them.
///
/// Kernels before 4.1 count connections and packets in 32 bits, so these wrap around.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stats {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients that passed through this host; 0 unless masquerading.
    pub packets_out: u64,
    /// Bytes from clients, with IP headers.
    pub bytes_in: u64,
    /// Bytes to clients that passed through this host.
    pub bytes_out: u64,
    /// Averages of the last seconds.
    pub rates: Rates,
}

/// Averages per second. The kernel estimates them every two seconds (0 if the sysctl `net.ipv4.vs.run_estimation` is
/// 0).
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
