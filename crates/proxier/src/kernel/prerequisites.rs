//! What of a plan must not be tried, or must be done besides, because something of it failed.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Cause, Failure};
use crate::{
    model::VirtualServerKey,
    plan::{Change, Plan},
    set::{Element, KeySet},
};

/// What failed of a plan so far, and so what must not be tried of the rest. Nothing is made that could not be recorded
/// as ours. No real server goes where another program's virtual server may be. If something is still there, neither its
/// record nor its protection is removed.
#[derive(Debug, Default)]
pub struct FailedPrerequisites {
    unrecorded: BTreeSet<Element>,
    unmade: BTreeSet<VirtualServerKey>,
    unremoved: BTreeSet<VirtualServerKey>,
    still_bound: BTreeSet<IpAddr>,
    unguarded: BTreeSet<IpAddr>,
}

impl FailedPrerequisites {
    /// Takes note of a change that failed.
    pub fn note(&mut self, change: &Change) {
        match change {
            Change::AddElement { element, .. } => {
                self.unrecorded.insert(*element);
                if let Element::Key(KeySet::NoEndpoints, key) = element
                    && self.unmade.contains(key)
                {
                    self.unguarded.insert(key.address);
                }
            }
            Change::AddServer { key, .. } => {
                self.unmade.insert(*key);
            }
            Change::RemoveServer(key) => {
                self.unremoved.insert(*key);
            }
            Change::Unbind(address) => {
                self.still_bound.insert(*address);
            }
            _ => {}
        }
    }

    /// Why a change must not be tried, if it must not.
    pub fn stops(&self, change: &Change) -> Option<&'static str> {
        let unrecorded = |element| self.unrecorded.contains(&element);
        match change {
            Change::Bind(address) if unrecorded(Element::Vip(*address)) => Some(UNRECORDED),
            Change::Bind(address) if self.unguarded.contains(address) => Some(UNGUARDED),
            Change::Bind(IpAddr::V4(address)) if unrecorded(Element::ArpIgnore(*address)) => Some(NOT_SILENT),
            Change::AddServer { key, .. } | Change::AddRealServer { key, .. }
                if unrecorded(Element::Key(KeySet::Served, *key)) =>
            {
                Some(UNRECORDED)
            }
            Change::AddServer { key, .. } if unrecorded(Element::Key(KeySet::Firewall, *key)) => Some(OPEN),
            Change::AddRealServer { key, .. }
            | Change::RemoveElement { element: Element::Key(KeySet::NoEndpoints, key), .. }
                if self.unmade.contains(key) =>
            {
                Some("not tried: its virtual server could not be made")
            }
            Change::AddElement { element: Element::ShortCircuit(key, to), .. }
                if self.unmade.contains(&VirtualServerKey { address: to.address, port: to.port, ..*key }) =>
            {
                Some("not tried: the virtual server that it leads to could not be made")
            }
            Change::RemoveElement { element, .. } if self.is_still_needed(element) => {
                Some("not tried: what it records or protects is still there")
            }
            _ => None,
        }
    }

    /// Whether an element is about something that could not be removed.
    fn is_still_needed(&self, element: &Element) -> bool {
        match element {
            Element::Key(_, key) | Element::Allowed(key, _) => self.unremoved.contains(key),
            Element::Vip(address) => self.still_bound.contains(address),
            Element::ArpIgnore(address) => self.still_bound.contains(&IpAddr::V4(*address)),
            _ => false,
        }
    }
}

const OPEN: &str = "not tried: all clients could reach it, although loadBalancerSourceRanges limits them";
const NOT_SILENT: &str = "not tried: this node would answer for it in ARP";
const UNRECORDED: &str = "not tried: it could not be recorded as ours";
const UNGUARDED: &str = "not tried: a port on it could not be refused, and would lead to this node's own listener";

/// What is to be done at once about virtual servers that could not be made, before their addresses are bound. What the
/// kernel does not have is not recorded as ours, and new connections to it are refused: on an address that others need,
/// they would reach this node's own listener. A virtual server that another program made is not ours, unless it was
/// recorded before this plan.
pub fn amends(plan: &Plan, failures: &[Failure]) -> Plan {
    let add = |set, key| {
        let element = Element::Key(set, key);
        Change::AddElement { element, comment: None, replace: false }
    };
    let unrecord = |key| {
        let element = Element::Key(KeySet::Served, key);
        Change::RemoveElement { element, with_server: false }
    };
    let (mut amends, mut somebody_elses) = (Vec::new(), BTreeSet::new());
    for failure in failures {
        let Some(Change::AddServer { key, .. }) = plan.changes().get(failure.change) else { continue };
        match failure.cause {
            Cause::Refused | Cause::NoScheduler | Cause::NotTried => {
                amends.extend([add(KeySet::NoEndpoints, *key), unrecord(*key)]);
            }
            // Whether it is there is seen at the next reading, and is refused until then.
            Cause::Unknown => amends.push(add(KeySet::NoEndpoints, *key)),
            Cause::Exists => drop(somebody_elses.insert(*key)),
        }
    }
    if !somebody_elses.is_empty() {
        let recorded = plan.changes().iter().filter_map(|change| match change {
            Change::AddElement { element: Element::Key(KeySet::Served, key), replace: false, .. } => Some(*key),
            _ => None,
        });
        let taken = recorded.filter(|key| somebody_elses.contains(key));
        amends.extend(taken.flat_map(|key| [add(KeySet::Foreign, key), unrecord(key)]));
    }
    Plan::new(amends)
}
