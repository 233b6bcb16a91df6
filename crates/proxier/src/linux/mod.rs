//! The Linux kernel over netlink: IPVS, the device of the VIPs, nftables and sysctls.
//!
//! All of these belong to the network namespace of the thread that called [`LinuxKernel::open`]. Use the kernel on that
//! thread. Several kernels can live in one process, each on a thread that entered its namespace first:
//!
//! ```no_run
//! use proxier::{Config, linux::{LinuxKernel, Settings, netlink_batch::in_namespace}};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let namespace = std::fs::File::open("/run/netns/node-1")?;
//! in_namespace(&namespace, || {
//!     let kernel = LinuxKernel::open(&Config::new("node-1"), Settings::default());
//!     // The loop that owns it.
//! })?;
//! # Ok(())
//! # }
//! ```

mod addresses;
mod cleanup;
mod conntrack;
mod host_addresses;
mod ipset;
mod ipvs;
mod kernel;
mod keys;
mod meter;
mod names;
mod netfilter;
mod nft;
mod notices;
mod reads;
mod reason;
mod record;
mod routes;
mod runner;
mod settings;
pub mod sysctl;
mod takeover;
mod timeouts;
mod traffic;

use std::{io, time::Instant};

pub use netlink_batch;

pub use crate::schedule::Drift;
use crate::{config::Config, kernel::KernelUnavailable, takeover::AdoptedState};
pub use host_addresses::HostAddresses;
pub use meter::{FlowDeletion, Meter, Operation, Subsystem};
pub use names::{NameError, Names};
pub use notices::Notices;
use reason::unavailable;
pub use runner::{Runner, Update};
pub use settings::{LocalDetector, Settings, Timeouts};
pub use traffic::TrafficReader;

/// The kernel of one network namespace. It has one owner, and no other program writes to the state that it records.
///
/// # What it changes
///
/// [`open`](Self::open) makes the kernel load IPVS and conntrack, and changes nothing else. The engine calls
/// [`prepare`](crate::kernel::Kernel::prepare) before it reads the kernel. This call sets, makes or repairs:
///
/// | state | when |
/// |---|---|
/// | `net.ipv4.ip_forward` = 1 | always: without these sysctls, packets end in black holes |
/// | `net.ipv4.vs.conntrack` = 1 | always |
/// | `net.ipv4.vs.expire_nodest_conn` = 1 | always |
/// | `net.ipv4.vs.expire_quiescent_template` = 1 | always |
/// | `net.ipv4.vs.conn_reuse_mode` = 1, before Linux 5.9 = 0 | always |
/// | `net.ipv4.conf.all.arp_ignore` = 1, `arp_announce` = 2 | [`Settings::strict_arp`], off by default |
/// | `net.ipv4.conf.all.route_localnet` = 1 | [`Config::localhost_node_ports`], off by default |
/// | `net.ipv6.conf.DEVICE.disable_ipv6` = 0, for the devices of the VIPs | always |
/// | the timeouts of IPVS | always: [`Settings::timeouts`], by default those of conntrack |
/// | a dummy device, which is down | always: [`Settings::names`] has its name |
/// | the nftables tables `ip` and `ip6` | always: [`Settings::names`] has their name |
/// | the nftables table `arp` | [`Config::scoped_arp`], off by default |
///
/// A plan changes set elements, virtual servers with their real servers, and addresses of the device. It deletes
/// conntrack entries that lead to removed endpoints. Other effects:
///
/// | effect | when |
/// |---|---|
/// | the kernel loads the module of a scheduler | a Service chooses it, and [`Config::missing_schedulers`] lacks it |
/// | unallocated ClusterIPs are rejected | [`Settings::reject_unallocated_cluster_ips`], on by default |
/// | state of kube-proxy is adopted | [`Settings::takeover`], off by default |
/// | kube-proxy's rules and ipsets go | you call [`remove_kube_proxy_leftovers`](Self::remove_kube_proxy_leftovers) |
/// | a file is written | [`Settings::record`], none by default |
///
/// This state stays when the process ends, and continues to serve. [`clean_up`](Self::clean_up) removes it, except for
/// sysctls, timeouts and modules.
pub struct LinuxKernel {
    ipvs: ipvs_netlink::Client,
    addresses: addresses::Addresses,
    conntrack: conntrack::Conntrack,
    ipsets: ipset::IpSets,
    record: Option<record::Record>,
    /// The error of the last attempt to read or write the record.
    record_error: Option<io::Error>,
    nft: nft::Nft,
    config: Config,
    settings: Settings,
    meter: Meter,
    /// Objects of kube-proxy that the record in nftables may not contain yet; `None` before the first read.
    adopted_state: Option<AdoptedState>,
    /// The number of objects in `adopted_state` at the first read.
    adopted: usize,
    /// The leftovers of kube-proxy removed so far, while a cleanup is incomplete.
    cleared: Option<takeover::Cleared>,
    /// Whether the leftovers of kube-proxy are gone, except those that stay.
    has_taken_over: bool,
    /// Whether kube-proxy's chain for Services stays because of another program's rules.
    keeps_services: bool,
}

impl LinuxKernel {
    /// Opens the sockets in the network namespace of the calling thread. `config` is
    /// [`Engine::config`](crate::Engine::config).
    ///
    /// # Errors
    ///
    /// If the kernel has no IPVS or no netlink: with the remedy. If a takeover is configured and the device does not
    /// have kube-proxy's name.
    pub fn open(config: &Config, settings: Settings) -> Result<Self, KernelUnavailable> {
        let names = &settings.names;
        if settings.takeover && !names.has_device_of_kube_proxy() {
            const REASON: &str = "to take over from kube-proxy, use the device name kube-ipvs0: kube-proxy binds its \
                                  VIPs there";
            return Err(KernelUnavailable::new(names.device().to_owned(), REASON));
        }
        Ok(Self {
            record: settings.record.as_deref().map(record::Record::at),
            record_error: None,
            ipvs: ipvs_netlink::Client::open().map_err(unavailable("IPVS"))?,
            conntrack: conntrack::Conntrack::open().map_err(unavailable("conntrack"))?,
            addresses: addresses::Addresses::open(settings.names.clone()).map_err(unavailable("rtnetlink"))?,
            ipsets: ipset::IpSets::open().map_err(unavailable("ipset"))?,
            nft: nft::Nft::open(settings.clone(), config.scoped_arp).map_err(unavailable("nftables"))?,
            config: config.clone(),
            settings,
            meter: Meter::default(),
            adopted_state: None,
            adopted: 0,
            cleared: None,
            has_taken_over: false,
            keeps_services: false,
        })
    }

    /// The names of the table and the device.
    pub fn names(&self) -> &Names {
        &self.settings.names
    }

    fn device(&self) -> String {
        self.settings.names.device().to_owned()
    }

    fn timed<T>(&mut self, subsystem: Subsystem, operation: Operation, work: impl FnOnce(&mut Self) -> T) -> T {
        let start = Instant::now();
        let outcome = work(self);
        self.meter.add(subsystem, operation, start.elapsed());
        outcome
    }
}
