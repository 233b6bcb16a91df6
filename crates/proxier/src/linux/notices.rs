//! The kernel's notices of changes by other programs. nftables reports changes of the kube-ipvs tables. rtnetlink
//! reports changes of addresses, of the device and of default routes. IPVS sends no notices: kube-ipvs sees changes of
//! virtual servers when it reads the kernel.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use netlink_batch::{
    Error, Listener, Protocol,
    attribute::{self, array, attributes, find, text},
};

use super::{Names, netfilter, nft::OF_TABLE};
use crate::{kernel::KernelUnavailable, schedule::Drift};

/// `NFNLGRP_NFTABLES`.
const NFTABLES: u32 = 7;
/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV6_IFADDR`, `RTNLGRP_IPV6_ROUTE`.
const DEVICES: [u32; 5] = [1, 5, 7, 9, 11];

/// The notices of one part of the kernel. [`wait`](Self::wait) blocks: give it a thread.
pub struct Notices {
    listener: Listener,
    hears: fn(&Names, u16, &[u8]) -> Option<Drift>,
    names: Names,
    /// The netlink port of the socket through which kube-ipvs makes changes.
    own: u32,
}

impl Notices {
    /// Notices of nftables, except for changes by the socket `own`.
    pub(super) fn of_tables(own: u32, names: Names) -> Result<Self, Error> {
        let listener = Listener::open(Protocol::Netfilter, &[NFTABLES])?;
        Ok(Self { listener, hears: in_nftables, names, own })
    }

    /// Notices of rtnetlink, except for changes by the socket `own`.
    pub(super) fn of_devices(own: u32, names: Names) -> Result<Self, Error> {
        let listener = Listener::open(Protocol::Route, &DEVICES)?;
        Ok(Self { listener, hears: in_devices, names, own })
    }

    /// Waits for the next notices, and returns the drift. The result can be empty.
    ///
    /// # Errors
    ///
    /// If the kernel delivers no more notices.
    pub fn wait(&mut self) -> Result<Vec<Drift>, KernelUnavailable> {
        let mut drifts = Vec::new();
        let Self { listener, hears, names, own } = self;
        let heard = listener.wait(None, |header, payload| {
            // The kernel does not report who changed an IPv6 address, so kube-ipvs also receives its own changes.
            if header.port_number != *own {
                drifts.extend(hears(names, header.message_type, payload));
            }
        });
        match heard {
            Ok(()) => {}
            Err(Error::Overrun | Error::Decode(_)) => drifts.push(Drift::Any),
            Err(error) => return Err(super::unavailable("the kernel's notices")(error)),
        }
        drifts.dedup();
        Ok(drifts)
    }
}

/// Any change of a kube-ipvs table, whose name is the first attribute.
fn in_nftables(names: &Names, kind: u16, payload: &[u8]) -> Option<Drift> {
    let [subsystem, _] = kind.to_be_bytes();
    let is_ours = |(attribute, value): (u16, &[u8])| attribute == OF_TABLE && text(value) == names.table();
    let is_drift = subsystem == netfilter::NFTABLES && attributes(netfilter::attributes(payload)).any(is_ours);
    is_drift.then_some(Drift::Any)
}

/// A removed address, the kube-ipvs device set up or removed, or a changed default route.
fn in_devices(names: &Names, kind: u16, payload: &[u8]) -> Option<Drift> {
    /// `RTM_NEWLINK`, `RTM_DELLINK`, `RTM_DELADDR`, `RTM_NEWROUTE`, `RTM_DELROUTE`.
    const NEW_LINK: u16 = 16;
    const DEL_LINK: u16 = 17;
    const DEL_ADDRESS: u16 = 21;
    const NEW_ROUTE: u16 = 24;
    const DEL_ROUTE: u16 = 25;
    let is_drift = match kind {
        NEW_LINK => is_device(names, payload)? && is_up(payload)?,
        DEL_LINK => is_device(names, payload)?,
        DEL_ADDRESS => return address(payload).map(Drift::Unbound),
        // The second byte of `struct rtmsg` is the prefix length.
        NEW_ROUTE | DEL_ROUTE => return (payload.get(1) == Some(&0)).then_some(Drift::Gateways),
        _ => false,
    };
    is_drift.then_some(Drift::Any)
}

/// Whether a link (`struct ifinfomsg`) is a device of kube-ipvs.
pub(super) fn is_device(names: &Names, link: &[u8]) -> Option<bool> {
    const HEADER: usize = 16;
    const NAME: u16 = 3;
    let is_name = |(kind, value): (u16, &[u8])| kind == NAME && names.is_device(&text(value));
    Some(attributes(link.get(HEADER..)?).any(is_name))
}

fn is_up(link: &[u8]) -> Option<bool> {
    const FLAGS: usize = 8;
    const UP: u32 = 1;
    let flags = u32::from_ne_bytes(array(link.get(FLAGS..FLAGS + 4)?)?);
    Some(flags & UP != 0)
}

/// The address in a `struct ifaddrmsg`: `IFA_LOCAL`, or else `IFA_ADDRESS`.
fn address(message: &[u8]) -> Option<IpAddr> {
    const HEADER: usize = 8;
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    let of_kind = |kind| find(message.get(HEADER..)?, kind).and_then(attribute::address);
    of_kind(LOCAL).or_else(|| of_kind(ADDRESS))
}
