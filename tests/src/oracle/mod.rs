//! The independent judge: what `ipvsadm`, `ip` and `nft` say is in the kernel, parsed just enough to compare.

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

/// Reading back a node's state, as methods of its namespace.
impl Namespace {
    /// What `ipvsadm -Ln` prints.
    pub fn ipvsadm(&self) -> Result<Table> {
        Table::parse(&self.run("ipvsadm", &["-Ln"])?)
    }

    /// What `ipvsadm -Ln` prints of one virtual server, given as `TCP 10.96.0.7:80`, or nothing if there is none. The
    /// kernel looks that one up, where all of them are a list that other namespaces can shift.
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

    /// The same as [`Self::ipvsadm`], for polling: from /proc/net/ip_vs, without a process, while the table is small.
    ///
    /// The kernel hands that file out a page at a time, and where several namespaces have virtual servers it does not
    /// find its place again: it counts those of all of them when it goes on, and its own only when it resumes. So what
    /// did not come with the first read is not to be had there.
    pub fn ip_vs(&self) -> Result<Table> {
        const SURELY_ALL: usize = 3000;
        let page = self.proc_net_page("ip_vs")?;
        if page.len() <= SURELY_ALL { Table::parse_proc(&page) } else { self.ipvsadm() }
    }

    /// Whether it has a network device, without a process: quick enough to catch the moment.
    pub fn has_device(&self, device: &str) -> Result<bool> {
        let devices = self.proc_net_page("dev")?;
        Ok(devices.lines().any(|line| line.trim_start().starts_with(&format!("{device}:"))))
    }

    /// The VIPs, as `ip addr show kube-ipvs0` prints them: sorted, and none where the device is missing.
    pub fn vips(&self) -> Result<Vec<IpAddr>> {
        addresses::vips(self)
    }

    /// The sets and maps of kube-ipvs's nft tables, as `nft -j list` prints them.
    pub fn nft_sets(&self) -> Result<Sets> {
        nft::sets(self)
    }

    /// How many packets kube-ipvs's rules with this comment have counted, in both families.
    pub fn nft_packets(&self, comment: &str) -> Result<u64> {
        nft::packets(self, comment)
    }

    /// Waits for a virtual server, given as `TCP 10.96.0.7:80`, to have exactly these real servers, given as
    /// `10.244.1.2:80 1` with their weights, and its address to be bound; ipvsadm and ip confirm it.
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
        // Between two reads the state may only move on where the test itself changes something, so one look decides.
        let table = self.ipvsadm()?;
        check(&table).context("/proc/net/ip_vs had it, ipvsadm has not")?;
        self.await_bound(key)?;
        table.service(key).cloned().context("a virtual server went away between two looks")
    }

    /// Waits for a virtual server to send new connections to exactly these real servers, each with weight 1, and its
    /// address to be bound. Others may still be there with weight 0: they are draining.
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

    /// Waits until the address of a virtual server is the node's own. It is bound last: until then packets to it are
    /// forwarded like any others.
    fn await_bound(&self, key: &str) -> Result<()> {
        let (_, at) = key.split_once(' ').context("a key is a protocol and an address")?;
        let address = at.parse::<SocketAddr>().with_context(|| format!("{key}: not an address with a port"))?.ip();
        eventually(|| {
            let found = self.run("ip", &["-o", "addr", "show", "to", &address.to_string()])?;
            ensure!(!found.is_empty(), "{address} of {key} is not bound on {}", self.name());
            Ok(())
        })
    }

    /// Waits until a virtual server is gone, then has ipvsadm confirm it.
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
