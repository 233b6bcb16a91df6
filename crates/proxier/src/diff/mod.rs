//! Compares the desired state with the kernel's state, and returns the difference as [`Change`]s.
//!
//! Each function visits the union of both sides of one kind of object. So `diff(desired, after(plan))` is empty, and
//! applying a plan twice changes nothing.

use std::{collections::BTreeSet, hash::BuildHasher as _, net::IpAddr, time::Duration};

use foldhash::quality::FixedState;
use ipnet::IpNet;
use ipvs_netlink::Destination;
use litemap::LiteMap;

use crate::{
    cluster::EndpointAddress,
    config::Config,
    desired::{RealServer, SharedResource, VirtualServer},
    drain::{Drains, Fate},
    model::{Family, Protocol, VirtualServerKey},
    plan::Change,
    set::{Element, KeySet, KeySets},
    state::{Membership, State},
};

pub(crate) struct Differ<'a> {
    pub(crate) config: &'a Config,
    pub(crate) known: &'a State,
    /// Virtual servers of other programs. None of them is wanted.
    pub(crate) foreign: &'a BTreeSet<VirtualServerKey>,
    pub(crate) drains: &'a mut Drains,
    pub(crate) now: Duration,
    /// Whether to keep ranges that no known object asks for.
    pub(crate) keeps_ranges: bool,
    pub(crate) changes: Vec<Change>,
}

impl Differ<'_> {
    pub(crate) fn virtual_server(&mut self, key: VirtualServerKey, wanted: Option<&VirtualServer>) {
        let known = self.known.virtual_servers.get(&key);
        match (wanted, known) {
            (Some(wanted), None) => {
                self.changes.push(Change::AddVirtualServer { key, config: wanted.config });
                // Earlier datagrams went to no endpoint, and conntrack would keep their flows there.
                if key.protocol == Protocol::Udp {
                    self.forget_flows(key, None);
                }
                self.real_servers(key, wanted, &LiteMap::new());
            }
            (Some(wanted), Some(known)) => {
                if wanted.config != known.config {
                    self.changes.push(Change::UpdateVirtualServer { key, config: wanted.config });
                }
                self.real_servers(key, wanted, &known.real_servers);
            }
            (None, Some(_)) if self.config.excludes(key.address) => return,
            (None, Some(_)) => {
                self.changes.push(Change::RemoveVirtualServer(key));
                match key.protocol {
                    Protocol::Udp => self.forget_flows(key, None),
                    // Draining endpoints keep their flows after their short circuit is removed.
                    _ if key.address.is_loopback() => self.forget_short_circuited(key, None),
                    _ => {}
                }
            }
            (None, None) => {}
        }
        self.membership(key, wanted);
        self.allowed(key, wanted);
        self.short_circuit(key, wanted);
    }

    pub(crate) fn shared(&mut self, shared: SharedResource, wanted: bool) {
        match shared {
            SharedResource::Vip(address) => self.vip(address, wanted),
            SharedResource::HealthCheck(key) => {
                self.element(Element::HealthCheck(key), wanted, self.known.health_checks.contains(&key));
            }
            SharedResource::Hairpin(protocol, endpoint) => {
                let known = self.known.hairpins.contains(&(protocol, endpoint));
                self.element(Element::Hairpin(protocol, endpoint), wanted, known);
            }
        }
    }

    pub(crate) fn ranges(&mut self, element: fn(IpNet) -> Element, known: &BTreeSet<IpNet>, wanted: &BTreeSet<IpNet>) {
        // A set rejects a range that overlaps with one of its elements.
        let is_in_the_way = |range: &IpNet| wanted.iter().any(|other| other.contains(range) || range.contains(other));
        for range in known.difference(wanted) {
            if !self.keeps_ranges || is_in_the_way(range) {
                self.element(element(*range), false, true);
            }
        }
        wanted.difference(known).for_each(|range| self.element(element(*range), true, false));
    }

    /// The set `outside` of a family has its element if the family has pod ranges.
    pub(crate) fn outside(&mut self, pod_sources: &BTreeSet<IpNet>) {
        for family in Family::ALL {
            let is_known = self.known.outside.contains(&family);
            let is_wanted = pod_sources.iter().any(|range| Family::of(range.addr()) == family);
            self.element(Element::Outside(family), is_wanted || is_known && self.keeps_ranges, is_known);
        }
    }

    fn vip(&mut self, address: IpAddr, wanted: bool) {
        let recorded = self.known.recorded_vips.contains(&address);
        let bound = self.known.bound_vips.contains(&address);
        self.element(Element::Vip(address), wanted, recorded);
        if let IpAddr::V4(address) = address {
            let silent = wanted && self.config.scoped_arp;
            self.element(Element::ArpIgnore(address), silent, self.known.arp_ignore.contains(&address));
        }
        match (wanted, bound) {
            (true, false) => self.changes.push(Change::Bind(address)),
            (false, true) => self.changes.push(Change::Unbind(address)),
            _ => {}
        }
    }

    fn real_servers(
        &mut self,
        key: VirtualServerKey,
        server: &VirtualServer,
        known: &LiteMap<EndpointAddress, Destination>,
    ) {
        let wanted = &server.real_servers;
        let mut added = Vec::with_capacity(wanted.len().saturating_sub(known.len()));
        let draining = self.drains.of(key);
        // Both are sorted, so one walk through both finds the pairs.
        let mut known = known.iter().map(|(address, known)| (*address, known)).peekable();
        for (&address, wanted) in wanted {
            while let Some((address, known)) = known.next_if(|(other, _)| *other < address) {
                self.unlisted(key, server, address, known);
            }
            let known = known.next_if(|(other, _)| *other == address).map(|(_, known)| known);
            match (wanted, known) {
                (RealServer::Serving { destination, terminating }, known) => {
                    match terminating {
                        true => self.drains.listed(key, address, true),
                        false if draining.binary_search(&address).is_ok() => self.drains.forget(key, address),
                        false => {}
                    }
                    match known {
                        Some(known) => self.update(key, address, *destination, known),
                        None => added.push((address, *destination)),
                    }
                }
                (RealServer::Draining { terminating }, Some(known)) => {
                    self.drains.listed(key, address, *terminating);
                    self.drain(key, address, known);
                }
                (RealServer::Draining { .. }, None) => {}
            }
        }
        let place = place_on(&self.config.hostname, key);
        added.sort_by_cached_key(|(address, _)| place(*address));
        let add = |(address, destination)| Change::AddRealServer { key, address, destination };
        self.changes.extend(added.into_iter().map(add));
        known.for_each(|(address, known)| self.unlisted(key, server, address, known));
    }

    /// A real server that the Service does not list.
    fn unlisted(
        &mut self,
        key: VirtualServerKey,
        server: &VirtualServer,
        address: EndpointAddress,
        known: &Destination,
    ) {
        let cap = server.max_drain_time.unwrap_or(self.config.drain_cap);
        match self.drains.unlisted(key, address, cap, known.weight == 0, self.now) {
            Fate::Drain => self.drain(key, address, known),
            Fate::Remove => {
                self.changes.push(Change::RemoveRealServer { key, address });
                if key.protocol == Protocol::Udp {
                    self.forget_flows(key, Some(address));
                }
                // IPVS does not see the packets that conntrack sends by the short circuit.
                server.short_circuited.iter().for_each(|from| self.forget_short_circuited(*from, Some(address)));
            }
        }
    }

    fn forget_flows(&mut self, to: VirtualServerKey, endpoint: Option<EndpointAddress>) {
        self.changes.push(Change::DeleteFlows { to, endpoint, by_short_circuit: false });
    }

    fn forget_short_circuited(&mut self, to: VirtualServerKey, endpoint: Option<EndpointAddress>) {
        self.changes.push(Change::DeleteFlows { to, endpoint, by_short_circuit: true });
    }

    fn element(&mut self, element: Element, wanted: bool, known: bool) {
        match (wanted, known) {
            (true, false) => self.changes.push(Change::AddElement { element, comment: None, replace: false }),
            (false, true) => self.changes.push(Change::RemoveElement { element, with_server: false }),
            _ => {}
        }
    }

    fn allowed(&mut self, key: VirtualServerKey, wanted: Option<&VirtualServer>) {
        let nothing = BTreeSet::new();
        let known = self.known.allowed.get(&key).unwrap_or(&nothing);
        // The last ranges go in one transaction with the firewall element, which alone would drop all clients.
        let with_server = wanted.is_none_or(|wanted| wanted.allowed.is_empty());
        let wanted = wanted.map_or(&nothing, |wanted| &wanted.allowed);
        // Removals come first: a set rejects a range that overlaps with one of its elements.
        for source in known.difference(wanted) {
            let element = Element::Allowed(key, *source);
            self.changes.push(Change::RemoveElement { element, with_server });
        }
        for source in wanted.difference(known) {
            self.element(Element::Allowed(key, *source), true, false);
        }
    }

    fn short_circuit(&mut self, key: VirtualServerKey, server: Option<&VirtualServer>) {
        let known = self.known.short_circuits.get(&key).copied();
        let wanted = server.and_then(|server| server.short_circuit);
        if known == wanted {
            return;
        }
        match (wanted, known) {
            (Some(wanted), known) => {
                let (element, replace) = (Element::ShortCircuit(key, wanted), known.is_some());
                self.changes.push(Change::AddElement { element, comment: None, replace });
            }
            (None, Some(known)) => self.element(Element::ShortCircuit(key, known), false, true),
            (None, None) => {}
        }
        // If the short circuit leads to an endpoint of this virtual server, the engine deletes its flows together with
        // that endpoint. If the engine only pauses the short circuit, because no endpoint serves, then endpoints that
        // drain or come back keep their flows.
        let before = self.known.virtual_servers.get(&key).filter(|_| server.is_some());
        let to_endpoint = |known| before.is_some_and(|before| before.real_servers.contains_key(&known));
        let is_paused = server.is_some_and(|server| server.paused_short_circuit == known);
        let are_all_forgotten = server.is_none() && (key.protocol == Protocol::Udp || key.address.is_loopback());
        if known.is_some_and(|known| !is_paused && !are_all_forgotten && !to_endpoint(known)) {
            self.forget_short_circuited(key, None);
        }
    }

    fn drain(&mut self, key: VirtualServerKey, address: EndpointAddress, known: &Destination) {
        self.update(key, address, Destination { weight: 0, ..*known }, known);
    }

    fn update(
        &mut self,
        key: VirtualServerKey,
        address: EndpointAddress,
        destination: Destination,
        known: &Destination,
    ) {
        if destination != *known {
            self.changes.push(Change::UpdateRealServer { key, address, destination });
        }
    }

    fn membership(&mut self, key: VirtualServerKey, wanted: Option<&VirtualServer>) {
        let nothing = Membership::default();
        let known = self.known.elements.get(&key).unwrap_or(&nothing);
        let wanted_sets = match wanted {
            Some(wanted) => wanted.sets,
            None if self.foreign.contains(&key) => KeySets::NONE.with(KeySet::Foreign),
            None => KeySets::NONE,
        };
        for set in KeySet::ALL {
            let element = Element::Key(set, key);
            let owner = wanted.filter(|_| set == KeySet::Served).map(|wanted| comment(&wanted.owner.to_string()));
            match (wanted_sets.contains(set), known.sets.contains(set)) {
                (true, false) => {
                    self.changes.push(Change::AddElement { element, comment: owner, replace: false });
                }
                (true, true) if owner.is_some() && owner != known.comment => {
                    self.changes.push(Change::AddElement { element, comment: owner, replace: true });
                }
                (false, true) => {
                    let with_server = wanted.is_none();
                    self.changes.push(Change::RemoveElement { element, with_server });
                }
                _ => {}
            }
        }
    }
}

/// Sorts the real servers of a virtual server: practically at random, and always the same on one node.
///
/// `rr` begins with the real server that was added last. If all nodes used one order, the first connection of every
/// node would go to the same endpoint.
fn place_on(node: &str, key: VirtualServerKey) -> impl Fn(EndpointAddress) -> u64 + use<> {
    let of_server = FixedState::with_seed(FixedState::default().hash_one((node, key)));
    move |address| of_server.hash_one(address)
}

/// Cuts a name to a length that `nft` prints: comments of up to 128 bytes.
fn comment(name: &str) -> std::sync::Arc<str> {
    let end = (0..=name.len().min(127)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name[..end].into()
}
