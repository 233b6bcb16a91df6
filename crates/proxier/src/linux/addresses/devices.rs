//! Decides which device has an address.

use std::{collections::BTreeSet, net::IpAddr};

use foldhash::{HashMap, HashMapExt as _};

/// Maximum number of addresses on a device, if there can be further devices.
///
/// For each new IPv4 address the kernel visits all addresses of the device (`__inet_insert_ifa` of
/// `net/ipv4/devinet.c`). So the time to bind n addresses on one device grows with the square of n.
const MAX_ADDRESSES: usize = 4096;

/// The devices by number, `None` if a device does not exist.
#[derive(Debug, Default)]
pub(super) struct Devices {
    devices: Vec<Option<Device>>,
    /// The addresses on other devices than the first.
    elsewhere: HashMap<IpAddr, u32>,
}

#[derive(Debug, Clone, Copy)]
struct Device {
    /// The interface index.
    index: u32,
    is_up: bool,
    addresses: usize,
}

impl Devices {
    /// Adds the device with the next number: its interface index, and whether it is up.
    pub(super) fn push(&mut self, found: Option<(u32, bool)>) {
        self.devices.push(found.map(|(index, is_up)| Device { index, is_up, addresses: 0 }));
    }

    /// Ends a lookup: the places of addresses stay as they were before it. Leaves out the numbers after the last device
    /// that exists.
    pub(super) fn follow(&mut self, before: Self) {
        for device in self.devices.iter_mut().flatten() {
            let same = before.devices.iter().flatten().find(|old| old.index == device.index);
            device.addresses = same.map_or(0, |old| old.addresses);
        }
        self.elsewhere = before.elsewhere;
        let end = self.devices.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        self.devices.truncate(end);
    }

    pub(super) fn next_number(&self) -> usize {
        self.devices.len()
    }

    pub(super) fn has_first(&self) -> bool {
        matches!(self.devices.first(), Some(Some(_)))
    }

    /// The interface index of the first device; 0 if there is none.
    pub(super) fn first(&self) -> u32 {
        self.devices.first().copied().flatten().map_or(0, |device| device.index)
    }

    pub(super) fn indexes(&self) -> impl Iterator<Item = u32> {
        self.devices.iter().flatten().map(|device| device.index)
    }

    pub(super) fn up(&self) -> impl Iterator<Item = u32> {
        self.devices.iter().flatten().filter(|device| device.is_up).map(|device| device.index)
    }

    pub(super) fn elsewhere(&self) -> impl Iterator<Item = IpAddr> {
        self.elsewhere.keys().copied()
    }

    /// Learns the addresses of all devices of the host, and returns those of these devices.
    pub(super) fn take_addresses(&mut self, at: impl Iterator<Item = (u32, IpAddr)>) -> BTreeSet<IpAddr> {
        self.devices.iter_mut().flatten().for_each(|device| device.addresses = 0);
        self.elsewhere = HashMap::new();
        let first = self.first();
        let mut addresses = BTreeSet::new();
        for (index, address) in at {
            let Some(device) = self.device(index) else { continue };
            device.addresses += 1;
            if index != first {
                self.elsewhere.insert(address, index);
            }
            addresses.insert(address);
        }
        addresses
    }

    /// Whether so many further addresses exceed the room on all devices.
    pub(super) fn lacks_room(&self, count: usize) -> bool {
        let room = self.devices.iter().flatten().map(|device| MAX_ADDRESSES.saturating_sub(device.addresses));
        room.sum::<usize>() < count
    }

    /// Chooses the device for a new address.
    pub(super) fn bind(&mut self, address: IpAddr) -> u32 {
        let with_room = self.devices.iter().flatten().find(|device| device.addresses < MAX_ADDRESSES);
        let index = with_room.map_or(self.first(), |device| device.index);
        if let Some(device) = self.device(index) {
            device.addresses += 1;
        }
        if index != self.first() {
            self.elsewhere.insert(address, index);
        }
        index
    }

    /// The interface index of the device that has an address.
    pub(super) fn holder(&self, address: IpAddr) -> u32 {
        self.elsewhere.get(&address).copied().unwrap_or(self.first())
    }

    /// The kernel has removed an address, or has rejected one.
    pub(super) fn forget(&mut self, address: IpAddr) {
        let index = self.elsewhere.remove(&address).unwrap_or(self.first());
        if let Some(device) = self.device(index) {
            device.addresses = device.addresses.saturating_sub(1);
        }
    }

    fn device(&mut self, index: u32) -> Option<&mut Device> {
        self.devices.iter_mut().flatten().find(|device| device.index == index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(found: &[Option<u32>]) -> Devices {
        let mut devices = Devices::default();
        found.iter().for_each(|index| devices.push(index.map(|index| (index, false))));
        devices
    }

    fn address(number: usize) -> IpAddr {
        let [.., high, low] = number.to_be_bytes();
        [10, 96, high, low].into()
    }

    #[test]
    fn addresses_fill_one_device_after_the_other() {
        let mut devices = devices(&[Some(7), Some(8)]);
        assert!(!devices.lacks_room(2 * MAX_ADDRESSES) && devices.lacks_room(2 * MAX_ADDRESSES + 1));
        let at: Vec<u32> = (0..2 * MAX_ADDRESSES + 1).map(|number| devices.bind(address(number))).collect();
        let on = |index| at.iter().filter(|at| **at == index).count();
        assert_eq!((on(7), on(8)), (MAX_ADDRESSES + 1, MAX_ADDRESSES), "without a third device, the first gets more");
        assert_eq!(devices.holder(address(MAX_ADDRESSES)), 8);
        assert_eq!(devices.holder(address(MAX_ADDRESSES)), 8, "until the kernel has removed it");
        devices.forget(address(MAX_ADDRESSES));
        assert_eq!(devices.holder(address(0)), 7);
        devices.forget(address(0));
        assert_eq!(devices.bind(address(9_999)), 8, "the first device is still full");
    }

    #[test]
    fn listed_addresses_are_found_on_their_devices() {
        let mut devices = devices(&[Some(7), None, Some(9)]);
        let listed = [(7, address(1)), (9, address(2)), (3, address(3))];
        assert_eq!(devices.take_addresses(listed.into_iter()), [address(1), address(2)].into());
        assert_eq!(devices.elsewhere().collect::<Vec<_>>(), [address(2)]);
        assert_eq!([1, 2].map(|number| devices.holder(address(number))), [7, 9]);
    }

    #[test]
    fn lookup_keeps_the_places_of_addresses() {
        let mut before = devices(&[Some(7), Some(8)]);
        before.take_addresses([(7, address(1)), (8, address(2))].into_iter());
        let mut devices = devices(&[Some(7), Some(8), None]);
        devices.follow(before);
        assert_eq!([1, 2].map(|number| devices.holder(address(number))), [7, 8]);
    }

    #[test]
    fn next_device_follows_the_last_one_that_exists() {
        let mut devices = devices(&[Some(7), None, Some(9), None, None]);
        devices.follow(Devices::default());
        assert_eq!(devices.next_number(), 3);
        assert!(devices.has_first());
        let mut devices = self::devices(&[None]);
        devices.follow(Devices::default());
        assert_eq!((devices.next_number(), devices.has_first(), devices.first()), (0, false, 0));
    }
}
