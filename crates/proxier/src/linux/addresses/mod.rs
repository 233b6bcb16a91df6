//! The devices of the VIPs, and their addresses.

mod devices;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use devices::Devices;

use netlink_batch::{Batch, Error, Protocol, Socket};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};

use super::{
    Names, routes,
    sysctl::{self, SysctlError},
};
use crate::{
    kernel::{Cause, Failure, Reason},
    model::NodeAddress,
    plan::Change,
    takeover::is_of_the_link,
};

/// The dummy devices that hold the VIPs. They stay down: their addresses are local anyway, and the kernel sends and
/// answers nothing through them.
pub(super) struct Addresses {
    socket: Socket,
    names: Names,
    /// As of the last lookup.
    devices: Devices,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum DeviceError {
    /// kube-ipvs would break the device for its owner: it sets its device down, removes it and fills it with VIPs.
    #[error("the device {0} is not a dummy device, so another program made it: choose another device name")]
    NotDummy(Box<str>),
    #[error(transparent)]
    Netlink(#[from] Error),
}

impl Addresses {
    pub(super) fn open(names: Names) -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(Protocol::Route)?, names, devices: Devices::default() })
    }

    /// The netlink port, by which the kernel marks changes of this socket.
    pub(super) fn port(&self) -> u32 {
        self.socket.port()
    }

    pub(super) fn observe_sends(&mut self, observer: impl FnMut(&[u8]) + Send + 'static) {
        self.socket.observe_sends(observer);
    }

    pub(super) fn prepare(&mut self) -> Result<(), DeviceError> {
        self.find()?;
        if !self.devices.has_first() {
            self.create(0)?;
            self.find()?;
        }
        // Another program, such as NetworkManager, can have set a device up.
        let up: Vec<u32> = self.devices.up().collect();
        up.into_iter().try_for_each(|index| self.set_down(index))?;
        // A host can disable IPv6 on all new devices. The init container can write sysctls, and the daemon often
        // cannot. If it matters, a bind reports the failure.
        let _ = self.enable_ipv6();
        Ok(())
    }

    fn create(&mut self, number: usize) -> Result<(), Error> {
        let mut device = LinkMessage::default();
        device.header.flags = LinkFlags::Noarp;
        device.header.change_mask = LinkFlags::Noarp;
        device.attributes = vec![
            LinkAttribute::IfName(self.names.numbered_device(number)),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Dummy)]),
        ];
        match self.socket.request(RouteNetlinkMessage::NewLink(device), NLM_F_CREATE | NLM_F_EXCL) {
            Err(Error::Rejected(error)) if error.already_exists() => Ok(()),
            outcome => outcome,
        }
    }

    fn add_device(&mut self) -> bool {
        self.create(self.devices.next_number()).is_ok() && self.find_next().unwrap_or(false)
    }

    /// A device that is up gets routes, sends neighbour solicitations and accepts router advertisements. When it goes
    /// down, the kernel removes its IPv6 addresses. The engine binds them again in the reconcile that follows.
    fn set_down(&mut self, index: u32) -> Result<(), Error> {
        let mut device = LinkMessage::default();
        device.header.index = index;
        device.header.change_mask = LinkFlags::Up;
        self.socket.request(RouteNetlinkMessage::SetLink(device), 0)
    }

    pub(super) fn read(&mut self) -> Result<BTreeSet<IpAddr>, DeviceError> {
        self.find()?;
        let list = self.list()?;
        let at = list.iter().filter_map(|message| Some((message.header.index, local_address(message)?)));
        Ok(self.devices.take_addresses(at))
    }

    pub(super) fn indexes(&self) -> BTreeSet<u32> {
        self.devices.indexes().collect()
    }

    /// The addresses of all other devices, by interface index.
    pub(super) fn of_other_devices(&mut self) -> Result<BTreeMap<(u32, IpAddr), NodeAddress>, DeviceError> {
        self.find()?;
        let (list, own) = (self.list()?, self.indexes());
        Ok(list.iter().filter_map(of_device).filter(|((index, _), _)| !own.contains(index)).collect())
    }

    pub(super) fn default_gateways(&mut self) -> Result<BTreeSet<IpAddr>, Error> {
        routes::default_gateways(&mut self.socket)
    }

    pub(super) fn apply(&mut self, changes: &[(usize, &Change)], failures: &mut Vec<Failure>) -> Result<(), Error> {
        let bound = changes.iter().filter(|(_, change)| matches!(change, Change::Bind(_))).count();
        // If no further device can be created, the addresses go to the first one, which takes longer.
        while self.devices.lacks_room(bound) && self.add_device() {}
        let ipv6 = if changes.iter().any(|(_, change)| is_bind_of_ipv6(change)) { self.enable_ipv6() } else { Ok(()) };
        let mut batch = Batch::new();
        for (_, change) in changes {
            match change {
                Change::Bind(address) => {
                    let message = message(self.devices.bind(*address), *address);
                    batch.push(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL);
                }
                Change::Unbind(address) => {
                    let message = message(self.devices.holder(*address), *address);
                    batch.push(RouteNetlinkMessage::DelAddress(message), 0);
                }
                _ => {}
            }
        }
        let mut rejected = BTreeSet::new();
        for failure in self.socket.execute(batch)? {
            let (number, change) = changes[failure.request];
            let done_already = match change {
                Change::Bind(_) => failure.error.already_exists(),
                _ => failure.error.is_not_found(),
            };
            if !done_already {
                rejected.insert(failure.request);
                let reason = match &ipv6 {
                    Err(error) if is_bind_of_ipv6(change) => {
                        format!("{}: {}. {error}", self.names.device(), failure.error)
                    }
                    _ => format!("{}: {}", self.names.device(), failure.error),
                };
                let reason = Reason::new(reason, Some(failure.error.errno()));
                failures.push(Failure { change: number, cause: Cause::Rejected, reason });
            }
        }
        for (request, (_, change)) in changes.iter().enumerate() {
            match (change, rejected.contains(&request)) {
                (Change::Bind(address), true) | (Change::Unbind(address), false) => self.devices.forget(*address),
                _ => {}
            }
        }
        Ok(())
    }

    /// Another program, such as NetworkManager, can have disabled IPv6 on a device. The kernel then rejects addresses.
    fn enable_ipv6(&self) -> Result<(), SysctlError> {
        (0..self.devices.next_number()).try_for_each(|number| {
            let name = format!("net/ipv6/conf/{}/disable_ipv6", self.names.numbered_device(number));
            sysctl::set_if_present(&name, "0", "the device takes no IPv6 VIP")
        })
    }

    /// Moves all addresses to the first device, the only one that kube-proxy knows, and removes the others.
    pub(super) fn gather(&mut self) -> Result<(), DeviceError> {
        self.read()?;
        let mut batch = Batch::new();
        for address in self.devices.elsewhere() {
            let message = message(self.devices.first(), address);
            batch.push(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL);
        }
        if let Some(failure) = self.socket.execute(batch)?.into_iter().find(|failure| !failure.error.already_exists()) {
            return Err(Error::from(failure.error).into());
        }
        let others: Vec<u32> = self.devices.indexes().filter(|index| *index != self.devices.first()).collect();
        others.into_iter().try_for_each(|index| Ok(self.delete(index)?))
    }

    /// Removes the devices that have no addresses: another program may have added some. Link-local addresses do not
    /// count, because the kernel adds them to a device that is up.
    pub(super) fn remove(&mut self) -> Result<(), DeviceError> {
        self.find()?;
        let is_vip = |message: &AddressMessage| local_address(message).is_some_and(|at| !is_of_the_link(at));
        let used: BTreeSet<u32> =
            self.list()?.iter().filter(|message| is_vip(message)).map(|message| message.header.index).collect();
        let unused: Vec<u32> = self.devices.indexes().filter(|index| !used.contains(index)).collect();
        unused.into_iter().try_for_each(|index| Ok(self.delete(index)?))
    }

    fn delete(&mut self, index: u32) -> Result<(), Error> {
        let mut device = LinkMessage::default();
        device.header.index = index;
        self.socket.request(RouteNetlinkMessage::DelLink(device), 0)
    }

    fn list(&mut self) -> Result<Vec<AddressMessage>, Error> {
        let list = self.socket.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        Ok(list.into_iter().filter_map(address_message).collect())
    }

    /// Looks up all devices: at least as many as before, and further ones that a previous process made.
    fn find(&mut self) -> Result<(), DeviceError> {
        let before = std::mem::take(&mut self.devices);
        let found = self.find_all(before.next_number());
        match found {
            Ok(()) => self.devices.follow(before),
            // The addresses are where they were.
            Err(_) => self.devices = before,
        }
        found
    }

    /// Another program can have removed a device in between.
    fn find_all(&mut self, known: usize) -> Result<(), DeviceError> {
        const GAP: usize = 4;
        let mut end = known + GAP;
        while self.devices.next_number() < end {
            if self.find_next()? {
                end = end.max(self.devices.next_number() + GAP);
            }
        }
        Ok(())
    }

    /// Looks up the device with the next number. Returns whether it exists.
    fn find_next(&mut self) -> Result<bool, DeviceError> {
        let name = self.names.numbered_device(self.devices.next_number());
        let mut device = LinkMessage::default();
        device.attributes = vec![LinkAttribute::IfName(name.clone())];
        let answers = match self.socket.query(RouteNetlinkMessage::GetLink(device)) {
            Err(Error::Rejected(error)) if error.is_not_found() => Vec::new(),
            answers => answers?,
        };
        let device = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        });
        if device.as_ref().is_some_and(|device| !is_dummy(device)) {
            return Err(DeviceError::NotDummy(name.into()));
        }
        let found = device.map(|device| (device.header.index, device.header.flags.contains(LinkFlags::Up)));
        self.devices.push(found);
        Ok(found.is_some())
    }
}

fn is_bind_of_ipv6(change: &Change) -> bool {
    matches!(change, Change::Bind(IpAddr::V6(_)))
}

/// The message about an address on the device with this index.
fn message(index: u32, address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    (message.header.family, message.header.prefix_len) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    // No other host can have the address, so duplicate address detection is not needed.
    message.header.flags = AddressHeaderFlags::Nodad;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    if address.is_ipv6() {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

fn is_dummy(link: &LinkMessage) -> bool {
    let is_dummy = |info: &LinkInfo| *info == LinkInfo::Kind(InfoKind::Dummy);
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().any(is_dummy),
        _ => false,
    })
}

fn address_message(message: RouteNetlinkMessage) -> Option<AddressMessage> {
    match message {
        RouteNetlinkMessage::NewAddress(message) => Some(message),
        _ => None,
    }
}

/// The interface index and the address of a message.
pub(super) fn of_device(message: &AddressMessage) -> Option<((u32, IpAddr), NodeAddress)> {
    let address = node_address(message)?;
    Some(((message.header.index, address.address), address))
}

fn node_address(message: &AddressMessage) -> Option<NodeAddress> {
    let global = matches!(message.header.scope, AddressScope::Universe | AddressScope::Site);
    Some(NodeAddress { address: local_address(message)?, global })
}

/// On a point-to-point link, `Address` is the peer's address and `Local` the device's.
fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => return Some(*local),
            AddressAttribute::Address(other) => address = Some(*other),
            _ => {}
        }
    }
    address.filter(|address| *address != IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_message_gives_local_address_and_scope() {
        let found = |scope, attributes: &[AddressAttribute]| {
            let mut message = AddressMessage::default();
            message.header.scope = scope;
            message.attributes = attributes.to_vec();
            let NodeAddress { address, global } = node_address(&message)?;
            Some((address.to_string(), global))
        };
        let address = |text: &str| AddressAttribute::Address(text.parse().unwrap());
        let local = |text: &str| AddressAttribute::Local(text.parse().unwrap());
        let is = |text: &str, global| Some((text.to_owned(), global));
        use AddressScope::{Host, Link, Site, Universe};
        assert_eq!(found(Universe, &[address("192.0.2.1"), local("192.0.2.1")]), is("192.0.2.1", true));
        assert_eq!(found(Site, &[address("fec0::1")]), is("fec0::1", true));
        assert_eq!(found(Host, &[local("127.0.0.1")]), is("127.0.0.1", false));
        assert_eq!(found(Link, &[address("fe80::1")]), is("fe80::1", false));
        // A point-to-point link.
        assert_eq!(found(Universe, &[address("192.0.2.2"), local("192.0.2.1")]), is("192.0.2.1", true));
        assert_eq!(found(Universe, &[address("0.0.0.0")]), None);
        assert_eq!(found(Universe, &[]), None);
    }
}
