//! The addresses of this host, and notices of their changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use netlink_batch::{Error, Listener, Protocol};
use netlink_packet_core::{NetlinkDeserializable as _, NetlinkHeader};
use netlink_packet_route::RouteNetlinkMessage;

use super::{
    Names,
    addresses::{Addresses, of_device},
    notices::is_device,
    unavailable,
};
use crate::{kernel::KernelUnavailable, model::NodeAddress};

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV6_IFADDR`.
const GROUPS: [u32; 3] = [1, 5, 9];
/// Addresses often change several at a time. kube-ipvs takes them after a pause of this length.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// The longest wait for that pause.
const MAX_DEBOUNCE: Duration = Duration::from_secs(1);
/// kube-ipvs reads all addresses again after this time. With many VIPs, the list is long.
const RESCAN_INTERVAL: Duration = Duration::from_secs(600);
/// The same after a failed read.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

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
    table: Table,
    /// Whether a notice can have got lost since the last read.
    is_stale: bool,
    last_read: Instant,
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
            table: Table { names: names.clone(), own: BTreeSet::new(), at: BTreeMap::new() },
            is_stale: true,
            last_read: Instant::now(),
        })
    }

    /// Reads the addresses.
    ///
    /// # Errors
    ///
    /// If rtnetlink cannot be read.
    pub fn read(&mut self) -> Result<BTreeSet<NodeAddress>, KernelUnavailable> {
        self.drop_notices();
        let read = self.addresses.of_other_devices();
        self.table.at = read.map_err(unavailable("cannot read the addresses of this host"))?;
        self.table.own = self.addresses.indexes();
        self.is_stale = false;
        self.last_read = Instant::now();
        Ok(self.table.addresses())
    }

    /// Waits until the addresses differ from those of the last read, and returns them.
    ///
    /// # Errors
    ///
    /// If the addresses cannot be read. The last ones stay in force. The next call tries again at the next notice, or
    /// after half a minute.
    pub fn wait(&mut self) -> Result<BTreeSet<NodeAddress>, KernelUnavailable> {
        let last = self.table.addresses();
        loop {
            let until_rescan = RESCAN_INTERVAL.saturating_sub(self.last_read.elapsed());
            if self.hears_within(if self.is_stale { RETRY_INTERVAL } else { until_rescan }) {
                let start = Instant::now();
                while start.elapsed() < MAX_DEBOUNCE && self.hears_within(DEBOUNCE) {}
            }
            self.is_stale |= self.last_read.elapsed() >= RESCAN_INTERVAL;
            if self.is_stale {
                self.read()?;
            }
            let now = self.table.addresses();
            if now != last {
                return Ok(now);
            }
        }
    }

    /// Empties the queue of notices before a read. If notices got lost, those that remain are older than the read.
    fn drop_notices(&mut self) {
        let start = Instant::now();
        let mut is_empty = false;
        while !is_empty && start.elapsed() < MAX_DEBOUNCE {
            is_empty = true;
            let heard = self.listener.wait(Some(Duration::ZERO), |_, _| is_empty = false);
            is_empty &= !matches!(heard, Err(Error::Overrun | Error::Decode(_)));
        }
    }

    fn hears_within(&mut self, time: Duration) -> bool {
        let Self { listener, table, is_stale, .. } = self;
        let start = Instant::now();
        let mut is_change = false;
        while !is_change && start.elapsed() < time {
            let left = time.saturating_sub(start.elapsed());
            let heard = listener.wait(Some(left), |header, payload| match table.take(header, payload) {
                Some(has_changed) => is_change |= has_changed,
                None => (is_change, *is_stale) = (true, true),
            });
            match heard {
                Ok(()) => {}
                Err(Error::Overrun | Error::Decode(_)) => (is_change, *is_stale) = (true, true),
                // Without notices, kube-ipvs polls the addresses.
                Err(_) => {
                    thread::sleep(left.min(MAX_DEBOUNCE));
                    (is_change, *is_stale) = (true, true);
                }
            }
        }
        is_change
    }
}

/// The addresses on all devices but those of kube-ipvs. kube-ipvs changes its own itself: with many Services, that
/// causes thousands of notices.
struct Table {
    names: Names,
    /// The interface indexes of kube-ipvs's devices.
    own: BTreeSet<u32>,
    /// By interface index.
    at: BTreeMap<(u32, IpAddr), NodeAddress>,
}

impl Table {
    fn addresses(&self) -> BTreeSet<NodeAddress> {
        self.at.values().copied().collect()
    }

    /// Takes in a notice. Returns whether an address has changed. `None`: the notice does not tell.
    fn take(&mut self, header: &NetlinkHeader, payload: &[u8]) -> Option<bool> {
        /// `RTM_NEWLINK` and `RTM_DELLINK`.
        const NEW_LINK: u16 = 16;
        const DEL_LINK: u16 = 17;
        match header.message_type {
            NEW_LINK if is_device(&self.names, payload)? => self.own.extend(index(payload)),
            NEW_LINK => return Some(false),
            // A port that leaves its bridge causes such a notice, with another family (`AF_BRIDGE`).
            DEL_LINK if *payload.first()? == 0 => {
                self.own.remove(&index(payload)?);
                return Some(self.forget(index(payload)?));
            }
            _ => {}
        }
        if let Some(index) = index(payload).filter(|index| self.own.contains(index)) {
            return Some(self.forget(index));
        }
        match RouteNetlinkMessage::deserialize(header, payload).ok()? {
            RouteNetlinkMessage::NewAddress(message) => {
                let Some((at, address)) = of_device(&message) else { return Some(false) };
                Some(self.at.insert(at, address) != Some(address))
            }
            RouteNetlinkMessage::DelAddress(message) => {
                let Some((at, _)) = of_device(&message) else { return Some(false) };
                // The device can have the address with another prefix or peer, too.
                if self.at.remove(&at).is_some() { None } else { Some(false) }
            }
            _ => Some(false),
        }
    }

    /// Removes the addresses of a device. Returns whether there were some.
    fn forget(&mut self, index: u32) -> bool {
        let before = self.at.len();
        self.at.retain(|(at, _), _| *at != index);
        self.at.len() < before
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
        RouteNetlinkMessage::{DelAddress, DelLink, NewAddress, NewLink},
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkMessage},
    };

    use super::*;

    fn table(names: Names) -> Table {
        Table { names, own: BTreeSet::new(), at: BTreeMap::new() }
    }

    fn header(kind: u16) -> NetlinkHeader {
        let mut header = NetlinkHeader::default();
        header.message_type = kind;
        header
    }

    fn take(table: &mut Table, message: RouteNetlinkMessage) -> Option<bool> {
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        table.take(&header(message.message_type()), &bytes)
    }

    fn address(index: u32, text: &str) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.family = netlink_packet_route::AddressFamily::Inet;
        message.attributes.push(AddressAttribute::Local(text.parse().unwrap()));
        message
    }

    fn link(index: u32, name: &str) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::IfName(name.into()));
        link
    }

    fn texts(table: &Table) -> Vec<String> {
        table.addresses().iter().map(|address| address.address.to_string()).collect()
    }

    #[test]
    fn notices_of_other_devices_change_the_table() {
        let mut table = table(Names::default());
        assert_eq!(take(&mut table, NewAddress(address(2, "192.0.2.1"))), Some(true));
        assert_eq!(take(&mut table, NewAddress(address(2, "192.0.2.1"))), Some(false), "nothing new");
        assert_eq!(take(&mut table, NewAddress(address(3, "192.0.2.1"))), Some(true));
        assert_eq!(take(&mut table, NewAddress(address(3, "192.0.2.3"))), Some(true));
        assert_eq!(take(&mut table, DelAddress(address(3, "192.0.2.1"))), None, "with another prefix it can remain");
        assert_eq!(texts(&table), ["192.0.2.1", "192.0.2.3"], "device 2 still has the first");
        assert_eq!(take(&mut table, NewLink(link(4, "veth4"))), Some(false));
        assert_eq!(take(&mut table, DelLink(link(3, "eth3"))), Some(true));
        assert_eq!(texts(&table), ["192.0.2.1"]);
        assert_eq!(take(&mut table, DelAddress(address(9, "192.0.2.9"))), Some(false));
    }

    #[test]
    fn notices_of_own_devices_are_ignored() {
        let mut table = table(Names::new("two", "proxy0").unwrap());
        assert_eq!(take(&mut table, NewAddress(address(7, "10.96.0.1"))), Some(true), "the device is not known yet");
        assert_eq!(take(&mut table, NewLink(link(3, "kube-ipvs0"))), Some(false));
        assert_eq!(take(&mut table, NewLink(link(7, "proxy0"))), Some(true));
        assert_eq!(take(&mut table, NewLink(link(8, "proxy0-1"))), Some(false));
        assert_eq!(take(&mut table, NewAddress(address(7, "10.96.0.2"))), Some(false));
        assert_eq!(take(&mut table, DelAddress(address(8, "10.96.0.3"))), Some(false));
        assert_eq!(take(&mut table, NewAddress(address(3, "10.96.0.4"))), Some(true));
        assert_eq!(texts(&table), ["10.96.0.4"]);
        assert_eq!(take(&mut table, DelLink(link(7, "proxy0"))), Some(false));
        assert_eq!(take(&mut table, NewAddress(address(7, "192.0.2.7"))), Some(true), "another device has the index");
    }

    #[test]
    fn malformed_notice_makes_the_table_stale_or_changes_nothing() {
        let mut table = table(Names::default());
        for (kind, length) in (16..22).flat_map(|kind| (0..8).map(move |length| (kind, length))) {
            let taken = table.take(&header(kind), &[0xff; 8][..length]);
            assert!(taken != Some(true), "{kind} {length}");
        }
        assert_eq!(table.take(&header(20), &[0xff; 7]), None);
    }

    /// After any notices, a whole read makes the table right. Until then it only must not panic.
    #[test]
    fn mutated_rtnetlink_messages_are_read_without_panic() {
        let bytes = |message: RouteNetlinkMessage| {
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            bytes
        };
        let seeds = [
            bytes(NewAddress(address(2, "192.0.2.1"))),
            bytes(NewAddress(address(2, "2001:db8::1"))),
            bytes(NewLink(link(4, "veth4"))),
            bytes(NewLink(link(5, "kube-ipvs0"))),
        ];
        fuzz::fuzz("rtnetlink", seeds, |bytes| {
            let mut table = table(Names::default());
            for kind in 16..26 {
                table.take(&header(kind), bytes);
            }
            assert!(table.addresses().len() <= 1);
        });
    }
}
