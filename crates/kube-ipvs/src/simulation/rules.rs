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

/// The sources that the rules admit to a virtual server.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Access {
    Closed,
    Only(BTreeSet<IpNet>),
    All,
}

impl Access {
    pub(super) fn to(key: VirtualServerKey, kernel: &FakeKernel) -> Self {
        let has = |element| kernel.elements.as_ref().is_some_and(|all| all.contains_key(&element));
        if !kernel.virtual_servers.contains_key(&key) {
            return Self::Closed;
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
            _ if !known.claims().contains_key(&key) => Self::Closed,
            Some(ranges) => Self::Only(ranges.into_iter().collect()),
            None => Self::All,
        }
    }

    /// Whether one of the others admits each source that this admits.
    fn is_within(&self, others: [&Self; 2]) -> bool {
        let holds = |other: &Self, range| match other {
            Self::Closed => false,
            Self::Only(ranges) => ranges.iter().any(|wide| wide.contains(range)),
            Self::All => true,
        };
        match self {
            Self::Closed => true,
            Self::Only(own) => own.iter().all(|range| others.iter().any(|other| holds(other, range))),
            Self::All => others.contains(&&Self::All),
        }
    }
}

/// Checks the place of a change in the order of a sync. `report` is the report of the sync, and `kernel` the state
/// before the change. `copy` is the copy of the record after the sync, together with the engine's memory: it still
/// names objects whose removal the kernel has not confirmed.
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
        Change::AddVirtualServer { key, .. } if !has(Element::Key(KeySet::Served, *key)) => {
            "it is not recorded as ours"
        }
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
        Change::RemoveVirtualServer(key) if is_bound(&key.address) && unbinds(key.address) => {
            "its address is still bound, and would lead to this node's own listener"
        }
        _ => return Ok(()),
    };
    Err(Violation::new("order", format!("{change}: {broken}")))
}

/// Whether the rules let packets to a Service's port on this address reach a listener of this node. Ports without a
/// Service do not count: kube-ipvs removes their elements after their virtual servers, and the kernel can reject that.
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

/// Checks that a change admits only sources that were admitted before, or that a Service allows.
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
