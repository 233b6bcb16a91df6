//! The device of the VIPs, and its addresses.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use netlink_batch::{Batch, Error, Protocol, Socket};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};

use super::{Names, routes};
use crate::{
    kernel::{Cause, Failure, Prepared, Reason},
    model::NodeAddress,
    plan::Change,
    takeover::is_of_the_link,
};

/// The dummy device that holds the VIPs. It stays down: its addresses are local anyway, and the kernel sends and
/// answers nothing through it.
pub(super) struct Addresses {
    socket: Socket,
    names: Names,
    /// The interface index from the last lookup; 0 if there was no device.
    index: u32,
    /// Whether another program, such as NetworkManager, set the device up.
    is_up: bool,
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
        Ok(Self { socket: Socket::open(Protocol::Route)?, names, index: 0, is_up: false })
    }

    /// The netlink port, by which the kernel marks changes of this socket.
    pub(super) fn port(&self) -> u32 {
        self.socket.port()
    }

    pub(super) fn observe_sends(&mut self, observer: impl FnMut(&[u8]) + Send + 'static) {
        self.socket.observe_sends(observer);
    }

    pub(super) fn prepare(&mut self) -> Result<Prepared, DeviceError> {
        if self.find()? {
            if !self.is_up {
                return Ok(Prepared::Intact);
            }
            self.set_down()?;
            return Ok(Prepared::Repaired);
        }
        let mut device = LinkMessage::default();
        device.header.flags = LinkFlags::Noarp;
        device.header.change_mask = LinkFlags::Noarp;
        device.attributes = vec![
            LinkAttribute::IfName(self.names.device().into()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Dummy)]),
        ];
        match self.socket.request(RouteNetlinkMessage::NewLink(device), NLM_F_CREATE | NLM_F_EXCL) {
            Err(Error::Rejected(error)) if error.already_exists() => {}
            outcome => outcome?,
        }
        self.find()?;
        Ok(Prepared::Repaired)
    }

    /// A device that is up gets routes, sends neighbour solicitations and accepts router advertisements. When it goes
    /// down, the kernel removes its IPv6 addresses. The engine binds them again in the reconcile that follows.
    fn set_down(&mut self) -> Result<(), Error> {
        let mut device = LinkMessage::default();
        device.header.index = self.index;
        device.header.change_mask = LinkFlags::Up;
        self.socket.request(RouteNetlinkMessage::SetLink(device), 0)
    }

    pub(super) fn observe(&mut self) -> Result<BTreeSet<IpAddr>, DeviceError> {
        if !self.find()? {
            return Ok(BTreeSet::new());
        }
        let list = self.list()?;
        let ours = list.iter().filter(|message| message.header.index == self.index);
        Ok(ours.filter_map(local_address).collect())
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    pub(super) fn of_other_devices(&mut self) -> Result<BTreeSet<NodeAddress>, DeviceError> {
        self.find()?;
        let list = self.list()?;
        let others = list.iter().filter(|message| message.header.index != self.index);
        Ok(others.filter_map(node_address).collect())
    }

    pub(super) fn default_gateways(&mut self) -> Result<BTreeSet<IpAddr>, Error> {
        routes::default_gateways(&mut self.socket)
    }

    pub(super) fn apply(&mut self, changes: &[(usize, &Change)], failures: &mut Vec<Failure>) -> Result<(), Error> {
        let mut batch = Batch::new();
        for (_, change) in changes {
            match change {
                Change::Bind(address) => {
                    let message = self.message(*address);
                    batch.push(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL);
                }
                Change::Unbind(address) => {
                    batch.push(RouteNetlinkMessage::DelAddress(self.message(*address)), 0);
                }
                _ => {}
            }
        }
        for failure in self.socket.execute(batch)? {
            let (number, change) = changes[failure.request];
            let done_already = match change {
                Change::Bind(_) => failure.error.already_exists(),
                _ => failure.error.is_not_found(),
            };
            if !done_already {
                let reason = format!("{}: {}", self.names.device(), failure.error);
                let reason = Reason::new(reason, Some(failure.error.errno()));
                failures.push(Failure { change: number, cause: Cause::Refused, reason });
            }
        }
        Ok(())
    }

    /// Removes the device, unless it has addresses: another program may have added some. Link-local addresses do not
    /// count, because the kernel adds them to a device that is up.
    pub(super) fn remove(&mut self) -> Result<(), DeviceError> {
        if !self.find()? || self.observe()?.into_iter().any(|address| !is_of_the_link(address)) {
            return Ok(());
        }
        let mut device = LinkMessage::default();
        device.header.index = self.index;
        Ok(self.socket.request(RouteNetlinkMessage::DelLink(device), 0)?)
    }

    fn list(&mut self) -> Result<Vec<AddressMessage>, Error> {
        let list = self.socket.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        Ok(list.into_iter().filter_map(address_message).collect())
    }

    fn find(&mut self) -> Result<bool, DeviceError> {
        let mut device = LinkMessage::default();
        device.attributes = vec![LinkAttribute::IfName(self.names.device().into())];
        let answers = match self.socket.query(RouteNetlinkMessage::GetLink(device)) {
            Err(Error::Rejected(error)) if error.is_not_found() => Vec::new(),
            answers => answers?,
        };
        let mut devices = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        });
        let device = devices.next();
        self.index = device.map_or(0, |device| device.header.index);
        self.is_up = device.is_some_and(|device| device.header.flags.contains(LinkFlags::Up));
        match device {
            Some(device) if !is_dummy(device) => Err(DeviceError::NotDummy(self.names.device().into())),
            device => Ok(device.is_some()),
        }
    }

    fn message(&self, address: IpAddr) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = self.index;
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
