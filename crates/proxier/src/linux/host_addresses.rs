//! The addresses of this host, and notices of their changes.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use netlink_batch::{Error, Listener, Protocol};

use super::{Names, addresses::Addresses, notices::is_device, unavailable};
use crate::{kernel::KernelUnavailable, model::NodeAddress};

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV6_IFADDR`.
const GROUPS: [u32; 3] = [1, 5, 9];
/// Addresses often change several at a time. kube-ipvs reads them after a pause of this length.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// The longest wait for that pause.
const MAX_DEBOUNCE: Duration = Duration::from_secs(1);
/// kube-ipvs rereads the addresses at this interval, because notices can get lost.
const RESCAN_INTERVAL: Duration = Duration::from_secs(30);

/// The addresses of this host for [`Event::NodeAddresses`](crate::model::Event::NodeAddresses), without those on the
/// kube-ipvs device. [`wait`](Self::wait) blocks: give it a thread.
///
/// ```no_run
/// use proxier::{linux::{HostAddresses, Names}, model::Event};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (sender, _events) = std::sync::mpsc::channel();
/// let mut host = HostAddresses::open(&Names::default())?;
/// let mut addresses = host.read()?;
/// while sender.send(Event::NodeAddresses(addresses)).is_ok() {
///     addresses = host.wait()?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct HostAddresses {
    listener: Listener,
    addresses: Addresses,
    own: OwnDevice,
    last: BTreeSet<NodeAddress>,
}

impl HostAddresses {
    /// Opens the sockets in the network namespace of the calling thread. `names` are those of the kernel's
    /// [`Settings`](super::Settings).
    ///
    /// # Errors
    ///
    /// If the kernel rejects a socket or a subscription to notices.
    pub fn open(names: &Names) -> Result<Self, KernelUnavailable> {
        Ok(Self {
            // Before the first read, so that no change falls between the read and the subscription.
            listener: Listener::open(Protocol::Route, &GROUPS).map_err(unavailable("rtnetlink"))?,
            addresses: Addresses::open(names.clone()).map_err(unavailable("rtnetlink"))?,
            own: OwnDevice { names: names.clone(), index: 0 },
            last: BTreeSet::new(),
        })
    }

    /// Reads the addresses.
    ///
    /// # Errors
    ///
    /// If rtnetlink cannot be read.
    pub fn read(&mut self) -> Result<BTreeSet<NodeAddress>, KernelUnavailable> {
        let read = self.addresses.of_other_devices();
        self.last = read.map_err(unavailable("cannot read the addresses of this host"))?;
        self.own.index = self.addresses.index();
        Ok(self.last.clone())
    }

    /// Waits until the addresses differ from those of the last read, and returns them.
    ///
    /// # Errors
    ///
    /// If the addresses cannot be read. The last ones stay in force. The next call tries again at the next notice, or
    /// after half a minute.
    pub fn wait(&mut self) -> Result<BTreeSet<NodeAddress>, KernelUnavailable> {
        let last = self.last.clone();
        loop {
            if self.hears_within(RESCAN_INTERVAL) {
                let start = Instant::now();
                while start.elapsed() < MAX_DEBOUNCE && self.hears_within(DEBOUNCE) {}
            }
            let now = self.read()?;
            if now != last {
                return Ok(now);
            }
        }
    }

    fn hears_within(&mut self, time: Duration) -> bool {
        let Self { listener, own, .. } = self;
        let start = Instant::now();
        let mut is_change = false;
        while !is_change && start.elapsed() < time {
            let left = time.saturating_sub(start.elapsed());
            let heard = listener.wait(Some(left), |header, payload| {
                is_change |= own.is_change_of_others(header.message_type, payload);
            });
            match heard {
                Ok(()) => {}
                Err(Error::Overrun | Error::Decode(_)) => is_change = true,
                // Without notices, kube-ipvs polls the addresses.
                Err(_) => {
                    thread::sleep(left.min(MAX_DEBOUNCE));
                    is_change = true;
                }
            }
        }
        is_change
    }
}

/// The kube-ipvs device, whose addresses do not count as the host's. kube-ipvs changes them itself: with many Services,
/// that causes thousands of notices.
struct OwnDevice {
    names: Names,
    /// 0 if there is no device.
    index: u32,
}

impl OwnDevice {
    /// Whether a notice can concern an address on another device. Learns the index of the kube-ipvs device from link
    /// notices.
    fn is_change_of_others(&mut self, kind: u16, payload: &[u8]) -> bool {
        /// `RTM_NEWLINK`, `RTM_NEWADDR` and `RTM_DELADDR`.
        const NEW_LINK: u16 = 16;
        const NEW_ADDRESS: u16 = 20;
        const DEL_ADDRESS: u16 = 21;
        match kind {
            NEW_LINK => {
                if is_device(&self.names, payload) == Some(true) {
                    self.index = index(payload).unwrap_or(0);
                }
                true
            }
            NEW_ADDRESS | DEL_ADDRESS => index(payload) != Some(self.index),
            _ => true,
        }
    }
}

/// The interface index in a `struct ifinfomsg` or a `struct ifaddrmsg`.
fn index(message: &[u8]) -> Option<u32> {
    const AT: usize = 4;
    Some(u32::from_ne_bytes(*message.get(AT..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NetlinkSerializable;
    use netlink_packet_route::{
        RouteNetlinkMessage::{self, DelAddress, DelLink, NewAddress, NewLink},
        address::AddressMessage,
        link::{LinkAttribute, LinkMessage},
    };

    use super::*;

    fn is_change(own: &mut OwnDevice, message: RouteNetlinkMessage) -> bool {
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        own.is_change_of_others(message.message_type(), &bytes)
    }

    fn address_on(index: u32) -> AddressMessage {
        let mut address = AddressMessage::default();
        address.header.index = index;
        address
    }

    fn link(index: u32, name: &str) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::IfName(name.into()));
        link
    }

    #[test]
    fn address_notices_of_own_device_are_ignored() {
        let mut own = OwnDevice { names: Names::new("two", "proxy0").unwrap(), index: 0 };
        assert!(is_change(&mut own, NewAddress(address_on(7))), "the device is not known yet");
        assert!(is_change(&mut own, NewLink(link(3, "kube-ipvs0"))));
        assert!(is_change(&mut own, NewLink(link(7, "proxy0"))));
        assert!(!is_change(&mut own, NewAddress(address_on(7))));
        assert!(!is_change(&mut own, DelAddress(address_on(7))));
        assert!(is_change(&mut own, NewAddress(address_on(3))));
        assert!(is_change(&mut own, DelAddress(address_on(3))));
        assert!(is_change(&mut own, DelLink(link(7, "proxy0"))));
    }

    #[test]
    fn malformed_notice_counts_as_address_change() {
        let mut own = OwnDevice { names: Names::default(), index: 7 };
        for (kind, length) in (0..40).flat_map(|kind| (0..8).map(move |length| (kind, length))) {
            assert!(own.is_change_of_others(kind, &[0xff; 8][..length]), "{kind} {length}");
        }
    }
}
