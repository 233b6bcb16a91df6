//! Flows in conntrack, created and listed over netlink: tens of thousands at once, without a packet.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use netlink_batch::attribute::{address, array, find, nest, put};
use netlink_batch::{Batch, Protocol, Socket};

use crate::namespace::Namespace;

/// `IPCTNL_MSG_CT_NEW` and `IPCTNL_MSG_CT_GET` of the subsystem `NFNL_SUBSYS_CTNETLINK`.
const NEW: u16 = 0x100;
const GET: u16 = 0x101;
/// `NLM_F_EXCL` and `NLM_F_CREATE`.
const CREATE: u16 = 0x600;

// `enum ctattr_*` of `linux/netfilter/nfnetlink_conntrack.h`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const TIMEOUT: u16 = 7;
const IP: u16 = 1;
const PROTOCOL: u16 = 2;
const IPV4_SOURCE: u16 = 1;
const IPV4_DESTINATION: u16 = 2;
const IPV6_SOURCE: u16 = 3;
const IPV6_DESTINATION: u16 = 4;
const NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

/// Longer than any test.
const AN_HOUR: u32 = 3600;

/// A flow that conntrack knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// The number of the protocol in the IP header.
    pub protocol: u8,
    /// The client, which sends.
    pub client: SocketAddr,
    /// The address to which the client sends.
    pub to: SocketAddr,
    /// The real server, which answers.
    pub endpoint: SocketAddr,
}

impl Flow {
    fn read(payload: &[u8]) -> Option<Self> {
        let attributes = payload.get(4..)?;
        let [original, reply] = [ORIGINAL, REPLY].map(|direction| find(attributes, direction));
        let ((protocol, client, to), (_, endpoint, _)) = (direction(original?)?, direction(reply?)?);
        Some(Self { protocol, client, to, endpoint })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend([if self.to.is_ipv4() { 2 } else { 10 }, 0, 0, 0]);
        for (kind, source, destination) in [(ORIGINAL, self.client, self.to), (REPLY, self.endpoint, self.client)] {
            nest(out, kind, |out| {
                nest(out, IP, |out| {
                    put_address(out, IPV4_SOURCE, IPV6_SOURCE, source.ip());
                    put_address(out, IPV4_DESTINATION, IPV6_DESTINATION, destination.ip());
                });
                nest(out, PROTOCOL, |out| {
                    put(out, NUMBER, [self.protocol]);
                    put(out, SOURCE_PORT, source.port().to_be_bytes());
                    put(out, DESTINATION_PORT, destination.port().to_be_bytes());
                });
            });
        }
        put(out, TIMEOUT, AN_HOUR.to_be_bytes());
    }
}

fn put_address(out: &mut Vec<u8>, v4: u16, v6: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => put(out, v4, address.octets()),
        IpAddr::V6(address) => put(out, v6, address.octets()),
    }
}

fn direction(tuple: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let (ip, fields) = (find(tuple, IP)?, find(tuple, PROTOCOL)?);
    let at = |v4, v6, port| {
        let address = find(ip, v4).or_else(|| find(ip, v6)).and_then(address)?;
        Some(SocketAddr::new(address, find(fields, port).and_then(array).map(u16::from_be_bytes)?))
    };
    let [number] = find(fields, NUMBER).and_then(array)?;
    let source = at(IPV4_SOURCE, IPV6_SOURCE, SOURCE_PORT)?;
    Some((number, source, at(IPV4_DESTINATION, IPV6_DESTINATION, DESTINATION_PORT)?))
}

impl Namespace {
    /// Puts flows into conntrack.
    pub fn make_flows(&self, flows: &[Flow]) -> Result<()> {
        let mut socket = self.enter(|| Ok(Socket::open(Protocol::Netfilter)?))?;
        let mut batch = Batch::new();
        for flow in flows {
            batch.push_with(NEW, CREATE, |out| flow.write(out));
        }
        match socket.execute(batch)?.as_slice() {
            [] => Ok(()),
            all @ [first, ..] => {
                bail!("{} of {} flows, such as {:?}: {}", all.len(), flows.len(), flows[first.request], first.error)
            }
        }
    }

    /// All flows of protocols with ports.
    pub fn flows(&self) -> Result<BTreeSet<Flow>> {
        let mut socket = self.enter(|| Ok(Socket::open(Protocol::Netfilter)?))?;
        let mut flows = BTreeSet::new();
        let listed = socket.dump_each(GET, &[0; 4], |_, payload| flows.extend(Flow::read(payload)));
        listed.context("listing conntrack")?;
        Ok(flows)
    }
}
