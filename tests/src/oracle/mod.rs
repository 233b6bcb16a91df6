//! The independent oracle: reads the kernel's state through `ipvsadm`, `ip` and `nft`, and parses enough to compare it.

mod addresses;
mod ipvsadm;
mod nft;

pub use addresses::VIP_DEVICE;
pub use ipvsadm::{RealServer, Table, VirtualServer};
pub use nft::Sets;

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};

use crate::namespace::Namespace;
use crate::wait::eventually;

/// Reads a node's state back, as methods of its namespace.
impl Namespace {
    /// The table from `ipvsadm -Ln`.
    pub fn ipvsadm(&self) -> Result<Table> {
        Table::parse(&self.run("ipvsadm", &["-Ln"])?)
    }

    /// The one virtual server `key`, given as `TCP 10.96.0.7:80`, or an empty table. The kernel looks up a single one
    /// directly. The list of all can shift while other namespaces change theirs.
    pub fn ipvsadm_of(&self, key: &str) -> Result<Table> {
        let (protocol, at) = key.split_once(' ').context("a key is a protocol and an address")?;
        let option = match protocol {
            "TCP" => "-t",
            "UDP" => "-u",
            _ => "--sctp-service",
        };
        let output = self.output("ipvsadm", &["-Ln", option, at])?;
        if !output.status.success() {
            return Ok(Table::default());
        }
        Table::parse(&String::from_utf8_lossy(&output.stdout))
    }

    /// The same as [`Self::ipvsadm`], for polling: reads /proc/net/ip_vs without a process while the table is small.
    ///
    /// The kernel returns that file a page at a time. If several namespaces have virtual servers, it loses its
    /// position: it advances over those of all namespaces, and resumes over its own only. Only the first read is
    /// therefore reliable.
    pub fn ip_vs(&self) -> Result<Table> {
        const SURELY_ALL: usize = 3000;
        let page = self.proc_net_page("ip_vs")?;
        if page.len() <= SURELY_ALL { Table::parse_proc(&page) } else { self.ipvsadm() }
    }

    /// Whether the namespace has a network device. It starts no process, so it is quick enough to catch a short-lived
    /// state.
    pub fn has_device(&self, device: &str) -> Result<bool> {
        let devices = self.proc_net_page("dev")?;
        Ok(devices.lines().any(|line| line.trim_start().starts_with(&format!("{device}:"))))
    }

    /// The VIPs on kube-ipvs0, sorted. The list is empty if the device does not exist.
    pub fn vips(&self) -> Result<Vec<IpAddr>> {
        addresses::vips(self)
    }

    /// The sets and maps in the nft tables of kube-ipvs.
    pub fn nft_sets(&self) -> Result<Sets> {
        nft::sets(self)
    }

    /// How many packets the kube-ipvs rules with this comment have counted, in both families.
    pub fn nft_packets(&self, comment: &str) -> Result<u64> {
        nft::packets(self, comment)
    }

    /// Waits until a virtual server such as `TCP 10.96.0.7:80` has exactly these real servers, given with weights as
    /// `10.244.1.2:80 1`, and until its address is bound. ipvsadm and ip confirm it.
    pub fn await_service(&self, key: &str, real_servers: &[&str]) -> Result<VirtualServer> {
        let mut wanted: Vec<String> = real_servers.iter().map(|&real| real.to_owned()).collect();
        wanted.sort();
        let check = |table: &Table| {
            let found = table.weights(key);
            if found.as_ref() != Some(&wanted) {
                bail!("{key} should be {wanted:?} on {}, but it is {found:?}", self.name());
            }
            Ok(())
        };
        eventually(|| check(&self.ip_vs()?))?;
        // Between two reads only the test itself can change the state, so one look decides.
        let table = self.ipvsadm()?;
        check(&table).context("/proc/net/ip_vs had it, ipvsadm has not")?;
        self.await_bound(key)?;
        table.service(key).cloned().context("a virtual server went away between two looks")
    }

    /// Waits until a virtual server sends new connections to exactly these real servers, each with weight 1, and until
    /// its address is bound. Draining real servers with weight 0 can still exist.
    pub fn await_serving(&self, key: &str, real_servers: &[&str]) -> Result<()> {
        let mut wanted: Vec<String> = real_servers.iter().map(|real| format!("{real} 1")).collect();
        wanted.sort();
        let check = |table: &Table| {
            let all = table.weights(key).with_context(|| format!("there is no {key} on {}", self.name()))?;
            let serving: Vec<&String> = all.iter().filter(|real| !real.ends_with(" 0")).collect();
            if serving.iter().copied().eq(&wanted) {
                return Ok(());
            }
            bail!("{key} on {} should serve with {wanted:?}, but it has {all:?}", self.name())
        };
        eventually(|| check(&self.ip_vs()?))?;
        check(&self.ipvsadm()?).context("/proc/net/ip_vs had it, ipvsadm has not")?;
        self.await_bound(key)
    }

    /// Waits until the address of a virtual server is local. kube-ipvs binds it last; until then, the node forwards
    /// packets to it.
    fn await_bound(&self, key: &str) -> Result<()> {
        let (_, at) = key.split_once(' ').context("a key is a protocol and an address")?;
        let address = at.parse::<SocketAddr>().with_context(|| format!("{key}: not an address with a port"))?.ip();
        eventually(|| {
            let found = self.run("ip", &["-o", "addr", "show", "to", &address.to_string()])?;
            ensure!(!found.is_empty(), "{address} of {key} is not bound on {}", self.name());
            Ok(())
        })
    }

    /// Waits until a virtual server is gone. ipvsadm confirms it.
    pub fn await_no_service(&self, key: &str) -> Result<()> {
        let check = |table: &Table| match table.service(key) {
            None => Ok(()),
            Some(service) => bail!("there should be no {key} on {}, but there is {service:?}", self.name()),
        };
        eventually(|| check(&self.ip_vs()?))?;
        check(&self.ipvsadm()?)
    }

    /// Waits until exactly these VIPs are bound.
    pub fn await_vips(&self, vips: &[&str]) -> Result<()> {
        let mut wanted: Vec<IpAddr> = vips.iter().map(|vip| vip.parse().context("a VIP")).collect::<Result<_>>()?;
        wanted.sort_unstable();
        eventually(|| {
            let found = self.vips()?;
            if found == wanted { Ok(()) } else { bail!("{VIP_DEVICE} should hold {wanted:?} but holds {found:?}") }
        })
    }
}
