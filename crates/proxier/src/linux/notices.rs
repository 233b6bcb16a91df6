//! The kernel's notices of changes that other programs made to our state. nftables reports changes of our tables.
//! rtnetlink reports changes of the addresses, the device and default routes. IPVS sends no notices: kube-ipvs sees
//! what another program does to a virtual server when it reads the kernel.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use netlink_batch::{
    Error, Listener, Protocol,
    attribute::{self, array, attributes, find, text},
};

use super::{Names, netfilter, nft::OF_TABLE};
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
        let heard = listener.wait(None, |header, payload| {
            // Of IPv6 addresses the kernel does not say who changed them.
            if header.port_number != *own {
                drifts.extend(hears(names, header.message_type, payload));
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

/// Whatever is about a table of ours: it names the table in its first attribute.
fn in_nftables(names: &Names, kind: u16, payload: &[u8]) -> Option<Drift> {
    let [subsystem, _] = kind.to_be_bytes();
    let is_ours = |(attribute, value): (u16, &[u8])| attribute == OF_TABLE && text(value) == names.table();
    let told = subsystem == netfilter::NFTABLES && attributes(netfilter::attributes(payload)).any(is_ours);
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
    let is_name = |(kind, value): (u16, &[u8])| kind == NAME && text(value) == names.device();
    Some(attributes(link.get(HEADER..)?).any(is_name))
}

fn is_up(link: &[u8]) -> Option<bool> {
    const FLAGS: usize = 8;
    const UP: u32 = 1;
    let flags = u32::from_ne_bytes(array(link.get(FLAGS..FLAGS + 4)?)?);
    Some(flags & UP != 0)
}

/// The address of a `struct ifaddrmsg`: `IFA_LOCAL`, or `IFA_ADDRESS` where there is no such.
fn address(message: &[u8]) -> Option<IpAddr> {
    const HEADER: usize = 8;
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    let of_kind = |kind| find(message.get(HEADER..)?, kind).and_then(attribute::address);
    of_kind(LOCAL).or_else(|| of_kind(ADDRESS))
}
