//! A conntrack table with tens of thousands of flows.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use anyhow::{Result, ensure};
use scenarios::{Cluster, Flow, Namespace, Service, Slice, TestResult, eventually, scenario};

use crate::memory::memory;

const NODE: &str = "node-3";
const UDP: u8 = 17;
const TCP: u8 = 6;
/// In KiB.
const MOST_GROWTH: u64 = 1024;

struct Family {
    slice: &'static str,
    vip: &'static str,
    other_vip: &'static str,
    /// Three endpoints: the first leaves before the measurement, the second is measured, the third stays.
    endpoints: [&'static str; 3],
    /// The first of many clients.
    client: &'static str,
    /// The number of flows to the second endpoint.
    many: u32,
}

const FAMILIES: [Family; 2] = [
    Family {
        slice: "dns-v4",
        vip: "10.96.0.53",
        other_vip: "10.96.0.54",
        endpoints: ["10.244.3.2", "10.244.3.3", "10.244.3.4"],
        client: "198.18.0.0",
        many: 15_000,
    },
    Family {
        slice: "dns-v6",
        vip: "fd00:10:96::53",
        other_vip: "fd00:10:96::54",
        endpoints: ["fd00:10:244:3::2", "fd00:10:244:3::3", "fd00:10:244:3::4"],
        client: "2001:db8::",
        many: 5_000,
    },
];

impl Family {
    /// Flows of `clients` clients from one port.
    fn flows(&self, from: u16, protocol: u8, to: (&str, u16), endpoint: &str, clients: u32) -> Result<Vec<Flow>> {
        let (to, endpoint) = (SocketAddr::new(to.0.parse()?, to.1), SocketAddr::new(endpoint.parse()?, 8053));
        let first: IpAddr = self.client.parse()?;
        let client = |number: u32| match first {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() + number).into(),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() + u128::from(number)).into(),
        };
        let flow = |number| Flow { protocol, client: SocketAddr::new(client(number), from), to, endpoint };
        Ok((0..clients).map(flow).collect())
    }

    /// Flows that differ in one field from those that kube-ipvs must delete.
    fn other_flows(&self) -> Result<Vec<Flow>> {
        let [_, leaves, stays] = self.endpoints;
        let all = [
            self.flows(4001, UDP, (self.vip, 53), stays, self.many / 2)?,
            self.flows(4002, UDP, (self.other_vip, 53), leaves, self.many / 2)?,
            self.flows(4003, UDP, (self.vip, 54), leaves, self.many / 4)?,
            self.flows(4004, TCP, (self.vip, 53), leaves, self.many / 4)?,
        ];
        Ok(all.concat())
    }

    fn await_endpoints(&self, node: &Namespace, endpoints: &[&str]) -> Result<()> {
        let at = |address: &str, port| Ok::<_, anyhow::Error>(SocketAddr::new(address.parse()?, port));
        let reals: Vec<String> =
            endpoints.iter().map(|endpoint| Ok(format!("{} 1", at(endpoint, 8053)?))).collect::<Result<_>>()?;
        let reals: Vec<&str> = reals.iter().map(String::as_str).collect();
        node.await_service(&format!("UDP {}", at(self.vip, 53)?), &reals).map(drop)
    }
}

/// The kernel has one limit for all namespaces. It is low on a test machine with little memory.
fn raise_conntrack_limit() -> Result<()> {
    const LIMIT: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
    const ENOUGH: u32 = 200_000;
    if fs::read_to_string(LIMIT)?.trim().parse::<u32>()? < ENOUGH {
        fs::write(LIMIT, ENOUGH.to_string())?;
    }
    Ok(())
}

/// Removes one endpoint of both families and waits until its flows are gone.
fn remove_endpoint(cluster: &Cluster, number: usize) -> Result<()> {
    let node = cluster.at(NODE)?;
    for family in &FAMILIES {
        cluster.manifests.remove_endpoint(family.slice, family.endpoints[number])?;
    }
    for family in &FAMILIES {
        family.await_endpoints(node, &family.endpoints[number + 1..])?;
    }
    let service: Vec<SocketAddr> =
        FAMILIES.iter().map(|family| Ok(SocketAddr::new(family.vip.parse()?, 53))).collect::<Result<_>>()?;
    let endpoint: Vec<IpAddr> =
        FAMILIES.iter().map(|family| Ok(family.endpoints[number].parse()?)).collect::<Result<_>>()?;
    eventually(|| {
        let flows = node.flows()?;
        let is_stale =
            |flow: &&Flow| flow.protocol == UDP && service.contains(&flow.to) && endpoint.contains(&flow.endpoint.ip());
        let stale = flows.iter().filter(is_stale).count();
        ensure!(stale == 0, "{stale} flows to {endpoint:?}");
        Ok(())
    })
}

#[test]
fn endpoint_removal_among_50_000_flows_deletes_only_its_flows_in_a_mib() -> TestResult {
    scenario(Cluster::builder(), |cluster| {
        raise_conntrack_limit()?;
        let service = FAMILIES.iter().fold(Service::new("dns"), |service, family| service.cluster_ip(family.vip));
        cluster.manifests.write("dns", &service.port_line("protocol: UDP, port: 53, targetPort: 8053"))?;
        for family in &FAMILIES {
            let slice = Slice::of("dns").name(family.slice).named_port("\"\"", "UDP", 8053);
            let slice = family.endpoints.iter().fold(slice, |slice, endpoint| slice.ready(endpoint));
            cluster.manifests.write(family.slice, &slice)?;
        }
        let proxy = cluster.start_proxy(NODE, &[])?;
        let node = cluster.at(NODE)?;
        for family in &FAMILIES {
            family.await_endpoints(node, &family.endpoints)?;
        }
        // The daemon deletes flows once before the measurement, because its first deletion takes buffers.
        for family in &FAMILIES {
            node.make_flows(&family.flows(4000, UDP, (family.vip, 53), family.endpoints[0], 100)?)?;
        }
        remove_endpoint(cluster, 0)?;

        let start = Instant::now();
        let mut others = BTreeSet::new();
        for family in &FAMILIES {
            node.make_flows(&family.flows(4000, UDP, (family.vip, 53), family.endpoints[1], family.many)?)?;
            let flows = family.other_flows()?;
            node.make_flows(&flows)?;
            others.extend(flows);
        }
        println!("made the flows in {:.1?}", start.elapsed());
        // Resets the peak of the daemon's memory, `VmHWM`.
        fs::write(format!("/proc/{}/clear_refs", proxy.id()), "5")?;
        // The kernel loads pages of the program when they first run. They are a file's, or in the bench's file system.
        let program = || Ok::<_, anyhow::Error>(memory(&proxy, "RssFile")? + memory(&proxy, "RssShmem")?);
        let (before, loaded) = (memory(&proxy, "VmHWM")?, program()?);
        remove_endpoint(cluster, 1)?;
        let growth = memory(&proxy, "VmHWM")?.saturating_sub(before + program()?.saturating_sub(loaded));
        println!("the daemon's {before} KiB grew by {growth} KiB, without pages of its program");
        let left = node.flows()?;
        let lost: Vec<&Flow> = others.difference(&left).collect();
        ensure!(lost.is_empty(), "{} other flows are gone, such as {:?}", lost.len(), lost[0]);
        ensure!(growth < MOST_GROWTH, "the daemon's {before} KiB grew by {growth} KiB");
        Ok(())
    })
}
