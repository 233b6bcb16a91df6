/// After how many idle seconds IPVS forgets a connection, by its state; of the whole network namespace.
///
/// 0 leaves a timeout as it is when set. The kernel refuses more than 2³¹ − 1 timer ticks (`EINVAL`), which is
/// 24 days at 1,000 ticks a second. A protocol that the kernel is built without reads as 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeouts {
    /// Established TCP connections; the kernel's default is 900.
    pub tcp: u32,
    /// TCP connections after a FIN; the kernel's default is 120.
    pub tcp_fin: u32,
    /// UDP; the kernel's default is 300.
    pub udp: u32,
}
