/// How many idle seconds IPVS keeps a connection, by its state; for the whole network namespace.
///
/// 0 keeps a timeout unchanged when set. The kernel rejects more than 2³¹ − 1 timer ticks (`EINVAL`), which is 24 days
/// at 1,000 ticks a second. If the kernel lacks a protocol, its timeouts read as 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeouts {
    /// Established TCP connections; the kernel's default is 900.
    pub tcp: u32,
    /// TCP connections after a FIN; the kernel's default is 120.
    pub tcp_fin: u32,
    /// UDP; the kernel's default is 300.
    pub udp: u32,
}
