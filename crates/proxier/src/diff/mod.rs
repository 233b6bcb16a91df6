//! The difference between what is wanted and what the kernel has, as [`Change`]s.
//!
//! Each function looks at one thing that we own and visits the union of both sides, so that
//! `diff(desired, after(plan))` is empty and applying twice does nothing.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use ipvs_netlink::Destination;

use crate::{
    cluster::EndpointAddress,
    config::Config,
    desired::{RealServer, VirtualServer},
    drain::{Drains, Fate},
    model::VirtualServerKey,
    plan::Change,
    set::{Element, KeySet},
    state::{Membership, State},
};

/// What every comparison needs besides its two sides.
pub(crate) struct Differ<'a> {
    pub(crate) config: &'a Config,
    pub(crate) known: &'a State,
    pub(crate) drains: &'a mut Drains,
    pub(crate) now: Duration,
    pub(crate) changes: Vec<Change>,
}

impl Differ<'_> {
    /// Compares one virtual server of ours, its real servers and its set memberships.
    pub(crate) fn virtual_server(&mut self, key: VirtualServerKey, wanted: Option<&VirtualServer>) {
        let known = self.known.virtual_servers.get(&key);
        match (wanted, known) {
            (Some(wanted), None) => {
                self.changes.push(Change::AddServer { key, config: wanted.config });
                self.real_servers(key, &wanted.real_servers, &BTreeMap::new());
            }
            (Some(wanted), Some(known)) => {
                if wanted.config != known.config {
                    self.changes.push(Change::UpdateServer { key, config: wanted.config });
                }
                self.real_servers(key, &wanted.real_servers, &known.real_servers);
            }
            (None, Some(_)) if self.config.excludes(key.address) => return,
            (None, Some(_)) => {
                self.changes.push(Change::RemoveServer(key));
            }
            (None, None) => {}
        }
        self.membership(key, wanted);
    }

    /// Compares one address of ours.
    pub(crate) fn vip(&mut self, address: IpAddr, wanted: bool) {
        let recorded = self.known.recorded_vips.contains(&address);
        let bound = self.known.bound_vips.contains(&address);
        let element = Element::Vip(address);
        match (wanted, recorded) {
            (true, false) => self.changes.push(Change::AddElement { element, comment: None, replace: false }),
            (false, true) => self.changes.push(Change::RemoveElement(element)),
            _ => {}
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
        wanted: &BTreeMap<EndpointAddress, RealServer>,
        known: &BTreeMap<EndpointAddress, Destination>,
    ) {
        for (&address, wanted) in wanted {
            match (wanted, known.get(&address)) {
                (RealServer::Serving { destination, terminating }, known) => {
                    match terminating {
                        true => self.drains.listed(key, address, true),
                        false => self.drains.forget(key, address),
                    }
                    match known {
                        Some(known) => self.update(key, address, *destination, known),
                        None => {
                            let destination = *destination;
                            self.changes.push(Change::AddRealServer { key, address, destination });
                        }
                    }
                }
                (RealServer::Draining { terminating }, Some(known)) => {
                    self.drains.listed(key, address, *terminating);
                    self.quiesce(key, address, known);
                }
                (RealServer::Draining { .. }, None) => {}
            }
        }
        for (&address, known) in known.iter().filter(|(address, _)| !wanted.contains_key(address)) {
            match self.drains.unlisted(key, address, self.config.drain_cap, self.now) {
                Fate::Quiesce => self.quiesce(key, address, known),
                Fate::Remove => self.changes.push(Change::RemoveRealServer { key, address }),
            }
        }
    }

    fn quiesce(&mut self, key: VirtualServerKey, address: EndpointAddress, known: &Destination) {
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
        let wanted_sets = wanted.map(|wanted| wanted.sets).unwrap_or_default();
        for set in KeySet::ALL {
            let element = Element::Key(set, key);
            let owner =
                wanted.filter(|_| set == KeySet::Served).map(|wanted| comment(&wanted.owner.to_string()));
            match (wanted_sets.contains(set), known.sets.contains(set)) {
                (true, false) => {
                    self.changes.push(Change::AddElement { element, comment: owner, replace: false });
                }
                (true, true) if owner.is_some() && owner != known.comment => {
                    self.changes.push(Change::AddElement { element, comment: owner, replace: true });
                }
                (false, true) => self.changes.push(Change::RemoveElement(element)),
                _ => {}
            }
        }
    }
}

/// A name as `nft` can print it: its tool shows comments of up to 128 bytes.
fn comment(name: &str) -> std::sync::Arc<str> {
    let end = (0..=name.len().min(127)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name[..end].into()
}
