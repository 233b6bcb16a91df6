//! The kernel's notices of changes that other programs made to our state. nftables reports changes of our tables.
//! rtnetlink reports changes of the addresses, the device and default routes. IPVS sends no notices: kube-ipvs sees
//! what another program does to a virtual server when it reads the kernel.

#[cfg(test)]
mod tests;

use std::{convert::Infallible, net::IpAddr};

use netlink_batch::{Error, Listener, Protocol};
use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader};
use netlink_packet_netfilter::NetfilterSubsystem;

use super::{Names, nft::attributes};
use crate::kernel::KernelUnavailable;

/// `NFNLGRP_NFTABLES`.
const NFTABLES: u32 = 7;
/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV6_IFADDR`, `RTNLGRP_IPV6_ROUTE`.
const DEVICES: [u32; 5] = [1, 5, 7, 9, 11];

/// What another program may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drift {
    /// One of our tables, or our device itself. If notices were lost, it is unknown what changed.
    Any,
    /// A default route, and so perhaps a gateway that our rules know.
    Gateways,
    /// This address was taken off a device. It is drift where it should be on ours.
    Unbound(IpAddr),
}

/// The notices of one part of the kernel. Its wait blocks: give it a thread.
pub struct Notices {
    listener: Listener,
    hears: fn(&Names, u16, &[u8]) -> Option<Drift>,
    names: Names,
    /// The socket by which we make changes ourselves.
    own: u32,
}

impl Notices {
    /// Those of nftables, except of what the socket `own` changed.
    pub(super) fn of_tables(own: u32, names: Names) -> Result<Self, Error> {
        let listener = Listener::open(Protocol::Netfilter, &[NFTABLES])?;
        Ok(Self { listener, hears: in_nftables, names, own })
    }

    /// Those of rtnetlink, except of what the socket `own` changed.
    pub(super) fn of_devices(own: u32, names: Names) -> Result<Self, Error> {
        let listener = Listener::open(Protocol::Route, &DEVICES)?;
        Ok(Self { listener, hears: in_devices, names, own })
    }

    /// Waits for the next notices, and returns what they say of ours, which may be nothing.
    ///
    /// # Errors
    ///
    /// When there can be no more of them.
    pub fn wait(&mut self) -> Result<Vec<Drift>, KernelUnavailable> {
        let mut drifts = Vec::new();
        let Self { listener, hears, names, own } = self;
        let heard = listener.wait(None, |header, notice: Notice| {
            // Of IPv6 addresses the kernel does not say who changed them.
            if header.port_number != *own {
                drifts.extend(hears(names, notice.kind, &notice.payload));
            }
        });
        match heard {
            Ok(()) => {}
            Err(Error::Overrun | Error::Decode(_)) => drifts.push(Drift::Any),
            Err(error) => return Err(super::unavailable("notices of the kernel")(error)),
        }
        drifts.dedup();
        Ok(drifts)
    }
}

/// A notice as it came. Read by ourselves: nothing that others do may stand in the way of it.
pub(super) struct Notice {
    pub(super) kind: u16,
    pub(super) payload: Vec<u8>,
}

impl NetlinkDeserializable for Notice {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self { kind: header.message_type, payload: payload.to_vec() })
    }
}

/// Whatever is about a table of ours: it names the table in its first attribute.
fn in_nftables(names: &Names, kind: u16, payload: &[u8]) -> Option<Drift> {
    /// Length of `struct nfgenmsg`.
    const HEADER: usize = 4;
    /// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE`, `NFTA_SET_TABLE`, `NFTA_SET_ELEM_LIST_TABLE`.
    const OF: u16 = 1;
    let [subsystem, _] = kind.to_be_bytes();
    let is_ours =
        |(attribute, value): (u16, &[u8])| attribute == OF && text(value) == names.table().as_bytes();
    let told = subsystem == u8::from(NetfilterSubsystem::NfTables)
        && attributes(payload.get(HEADER..)?).any(is_ours);
    told.then_some(Drift::Any)
}

/// An address that was taken off, our device set up or removed, a default route that came or went.
fn in_devices(names: &Names, kind: u16, payload: &[u8]) -> Option<Drift> {
    /// `RTM_NEWLINK`, `RTM_DELLINK`, `RTM_DELADDR`, `RTM_NEWROUTE`, `RTM_DELROUTE`.
    const NEW_LINK: u16 = 16;
    const DEL_LINK: u16 = 17;
    const DEL_ADDRESS: u16 = 21;
    const NEW_ROUTE: u16 = 24;
    const DEL_ROUTE: u16 = 25;
    let told = match kind {
        NEW_LINK => is_device(names, payload)? && is_up(payload)?,
        DEL_LINK => is_device(names, payload)?,
        DEL_ADDRESS => return address(payload).map(Drift::Unbound),
        // The length of a route's prefix is the second byte of `struct rtmsg`.
        NEW_ROUTE | DEL_ROUTE => return (payload.get(1) == Some(&0)).then_some(Drift::Gateways),
        _ => false,
    };
    told.then_some(Drift::Any)
}

/// Whether a link (`struct ifinfomsg`) is our device.
pub(super) fn is_device(names: &Names, link: &[u8]) -> Option<bool> {
    const HEADER: usize = 16;
    const NAME: u16 = 3;
    let is_name = |(kind, value): (u16, &[u8])| kind == NAME && text(value) == names.device().as_bytes();
    Some(attributes(link.get(HEADER..)?).any(is_name))
}

fn is_up(link: &[u8]) -> Option<bool> {
    const FLAGS: usize = 8;
    const UP: u32 = 1;
    let flags = u32::from_ne_bytes(*link.get(FLAGS..)?.first_chunk()?);
    Some(flags & UP != 0)
}

/// The address of a `struct ifaddrmsg`: `IFA_LOCAL`, or `IFA_ADDRESS` where there is no such.
fn address(message: &[u8]) -> Option<IpAddr> {
    const HEADER: usize = 8;
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    let of_kind = |wanted| {
        let mut all = attributes(message.get(HEADER..)?).filter(|(kind, _)| *kind == wanted);
        let (_, value) = all.next()?;
        let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
    };
    of_kind(LOCAL).or_else(|| of_kind(ADDRESS))
}

fn text(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == 0).next().unwrap_or_default()
}
