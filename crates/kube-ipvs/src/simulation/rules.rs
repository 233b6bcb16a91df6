//! Rules for each single change of the daemon (docs/architecture.md, "Invariants").

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use proxier::{
    SyncReport,
    fake::{FakeKernel, RecordCopy},
    model::VirtualServerKey,
    plan::Change,
    set::{Element, KeySet},
};

use super::{Violation, known::Known, others::Foreign};

/// The clients that the rules let through to a virtual server.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Access {
    Nobody,
    Only(BTreeSet<IpNet>),
    All,
}

impl Access {
    pub(super) fn to(key: VirtualServerKey, kernel: &FakeKernel) -> Self {
        let has = |element| kernel.elements.as_ref().is_some_and(|all| all.contains_key(&element));
        if !kernel.virtual_servers.contains_key(&key) {
            return Self::Nobody;
        }
        if !has(Element::Key(KeySet::Firewall, key)) {
            return Self::All;
        }
        let allowed = kernel.elements.iter().flat_map(|all| all.keys()).filter_map(|element| match element {
            Element::Allowed(of, range) if *of == key => Some(*range),
            _ => None,
        });
        Self::Only(allowed.collect())
    }

    fn wanted(key: VirtualServerKey, known: &Known) -> Self {
        match known.sources(&key) {
            _ if !known.claims().contains_key(&key) => Self::Nobody,
            Some(ranges) => Self::Only(ranges.into_iter().collect()),
            None => Self::All,
        }
    }

    /// Whether each of its clients is one of others.
    fn is_within(&self, others: [&Self; 2]) -> bool {
        let holds = |other: &Self, range| match other {
            Self::Nobody => false,
            Self::Only(ranges) => ranges.iter().any(|wide| wide.contains(range)),
            Self::All => true,
        };
        match self {
            Self::Nobody => true,
            Self::Only(own) => own.iter().all(|range| others.iter().any(|other| holds(other, range))),
            Self::All => others.contains(&&Self::All),
        }
    }
}

/// Checks a change of the daemon. `report`: the sync that made it, `kernel`: the state before it, and `copy`: the copy of
/// the record after the sync, with the engine's memory. It still names objects of which the daemon does not know if they
/// are gone.
pub(super) fn check_order(
    change: &Change,
    report: &SyncReport,
    kernel: &FakeKernel,
    foreign: &Foreign,
    copy: &RecordCopy,
) -> Result<(), Violation> {
    let has = |element| kernel.elements.as_ref().is_some_and(|all| all.contains_key(&element));
    let is_bound = |address: &IpAddr| kernel.addresses.as_ref().is_some_and(|all| all.contains(address));
    let unbinds = |address| {
        let change = Change::Unbind(address);
        report.plan.changes().contains(&change) && report.failures.iter().all(|failure| failure.change != change)
    };
    let broken = match change {
        Change::AddServer { key, .. } if !has(Element::Key(KeySet::Served, *key)) => "it is not recorded as ours",
        Change::RemoveElement { element: Element::Key(KeySet::Served, key), .. }
            if kernel.virtual_servers.contains_key(key)
                && !foreign.servers.contains_key(key)
                && !copy.servers.contains(key) =>
        {
            "its virtual server is still there"
        }
        Change::Bind(address) if !has(Element::Vip(*address)) => "it is not recorded as ours",
        Change::RemoveElement { element: Element::Vip(address), .. }
            if is_bound(address) && !foreign.addresses.contains(address) && !copy.vips.contains(address) =>
        {
            "the address is still bound"
        }
        Change::RemoveElement { element: Element::ArpIgnore(address), .. } if is_bound(&(*address).into()) => {
            "the address is still bound, and this node would answer for it"
        }
        Change::RemoveServer(key) if is_bound(&key.address) && unbinds(key.address) => {
            "its address is still bound, and would lead to this node's own listener"
        }
        _ => return Ok(()),
    };
    Err(Violation::new("order", format!("{change}: {broken}")))
}

/// Whether an address has a port of a Service that the rules let through to this node itself. Ports that no Service has
/// any more do not count: their elements go after their virtual servers, and the kernel can refuse that.
pub(super) fn opens_listener(address: IpAddr, kernel: &FakeKernel, known: &Known) -> bool {
    let Some(elements) = &kernel.elements else { return false };
    elements.keys().any(|element| match element {
        Element::Key(KeySet::Served, key) => {
            let is_rejected = elements.contains_key(&Element::Key(KeySet::NoEndpoints, *key));
            let is_asked = key.address == address && known.claims().contains_key(key);
            is_asked && !kernel.virtual_servers.contains_key(key) && !is_rejected
        }
        _ => false,
    })
}

/// Checks that a change lets nobody through that neither came through before nor is wanted.
pub(super) fn check_access(
    change: &Change,
    before: &Access,
    after: &Access,
    key: VirtualServerKey,
    known: &Known,
) -> Result<(), Violation> {
    let wanted = Access::wanted(key, known);
    if after.is_within([before, &wanted]) {
        return Ok(());
    }
    let text = format!("{change} opens {key} to {after:?}; before: {before:?}, wanted: {wanted:?}");
    Err(Violation::new("access", text))
}
