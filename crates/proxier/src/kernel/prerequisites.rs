//! The consequences of failed changes for the rest of a plan.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Cause, Failure, Report};
use crate::{
    model::VirtualServerKey,
    plan::{Change, Phase, Plan},
    set::{Element, KeySet},
};

/// Applies a plan phase by phase.
///
/// `apply` makes the changes of one phase, continues after a failure, and returns the failures. It gets no change that
/// depends on a failed one: the report has [`Cause::NotTried`] for that. After the failures of a phase, `apply` also
/// gets the changes that follow from them, as a phase of their own. Each change has a number, by which its
/// [`Failure`] names it.
pub fn in_phases(plan: &Plan, mut apply: impl FnMut(Phase, &[(usize, &Change)]) -> Vec<Failure>) -> Report {
    let (mut report, mut failed) = (Report::default(), FailedPrerequisites::default());
    let numbered: Vec<_> = plan.changes().iter().enumerate().collect();
    for run in numbered.chunk_by(|(_, one), (_, other)| one.phase() == other.phase()) {
        let (mut possible, mut failures) = (Vec::with_capacity(run.len()), Vec::new());
        for &(change, what) in run {
            match failed.stops(what) {
                None => possible.push((change, what)),
                Some(reason) => failures.push(Failure { change, cause: Cause::NotTried, reason: reason.into() }),
            }
        }
        if !possible.is_empty() {
            failures.extend(apply(run[0].1.phase(), &possible));
        }
        failures.iter().for_each(|failure| failed.note(&plan.changes()[failure.change]));
        let amends = amends(plan, &failures);
        report.failures.extend(failures);
        let amends: Vec<_> = (numbered.len()..).zip(amends.changes()).collect();
        if !amends.is_empty() {
            let failures = apply(Phase::WriteElements, &amends);
            let (unmade, made): (Vec<_>, Vec<_>) =
                amends.into_iter().partition(|(number, _)| failures.iter().any(|failure| failure.change == *number));
            unmade.into_iter().for_each(|(_, change)| failed.note(change));
            report.amended.extend(made.into_iter().map(|(_, change)| change.clone()));
        }
    }
    report
}

/// The changes of a plan that failed so far. From them follows which other changes must not be tried.
///
/// An object that kube-ipvs could not record is not made. No real server is added to a virtual server that another
/// program may own. If an object could not be removed, its record and its protection stay.
#[derive(Debug, Default)]
struct FailedPrerequisites {
    unrecorded: BTreeSet<Element>,
    unmade: BTreeSet<VirtualServerKey>,
    unremoved: BTreeSet<VirtualServerKey>,
    still_bound: BTreeSet<IpAddr>,
    unguarded: BTreeSet<IpAddr>,
    /// Virtual servers whose old source ranges the kernel has not removed.
    open: BTreeSet<VirtualServerKey>,
}

impl FailedPrerequisites {
    fn note(&mut self, change: &Change) {
        match change {
            Change::AddElement { element, .. } => {
                self.unrecorded.insert(*element);
                if let Element::Key(KeySet::NoEndpoints, key) = element
                    && self.unmade.contains(key)
                {
                    self.unguarded.insert(key.address);
                }
            }
            Change::RemoveElement { element: Element::Allowed(key, _), .. } => {
                self.open.insert(*key);
            }
            Change::AddVirtualServer { key, .. } => {
                self.unmade.insert(*key);
            }
            Change::RemoveVirtualServer(key) => {
                self.unremoved.insert(*key);
            }
            Change::Unbind(address) => {
                self.still_bound.insert(*address);
            }
            _ => {}
        }
    }

    /// The reason why a change must not be tried, if there is one.
    fn stops(&self, change: &Change) -> Option<&'static str> {
        let unrecorded = |element| self.unrecorded.contains(&element);
        match change {
            Change::Bind(address) if unrecorded(Element::Vip(*address)) => Some(UNRECORDED),
            Change::Bind(address) if self.unguarded.contains(address) => Some(UNGUARDED),
            Change::Bind(IpAddr::V4(address)) if unrecorded(Element::ArpIgnore(*address)) => Some(NOT_SILENT),
            Change::AddVirtualServer { key, .. } | Change::AddRealServer { key, .. }
                if unrecorded(Element::Key(KeySet::Served, *key)) =>
            {
                Some(UNRECORDED)
            }
            Change::AddVirtualServer { key, .. }
                if unrecorded(Element::Key(KeySet::Firewall, *key)) || self.open.contains(key) =>
            {
                Some(OPEN)
            }
            Change::AddRealServer { key, .. }
            | Change::RemoveElement { element: Element::Key(KeySet::NoEndpoints, key), .. }
                if self.unmade.contains(key) =>
            {
                Some("not tried: the kernel did not make its virtual server")
            }
            Change::AddElement { element: Element::ShortCircuit(key, to), .. }
                if self.unmade.contains(&VirtualServerKey { address: to.address, port: to.port, ..*key }) =>
            {
                Some("not tried: the kernel did not make the virtual server that it leads to")
            }
            Change::RemoveElement { element, .. } if self.is_still_needed(element) => {
                Some("not tried: the object that it records or protects still exists")
            }
            _ => None,
        }
    }

    /// Whether the element records or protects an object that could not be removed.
    fn is_still_needed(&self, element: &Element) -> bool {
        match element {
            Element::Key(_, key) | Element::Allowed(key, _) => self.unremoved.contains(key),
            Element::Vip(address) => self.still_bound.contains(address),
            Element::ArpIgnore(address) => self.still_bound.contains(&IpAddr::V4(*address)),
            _ => false,
        }
    }
}

const OPEN: &str = "not tried: without its loadBalancerSourceRanges, all clients could reach it";
const NOT_SILENT: &str = "not tried: this node would answer ARP requests for it";
const UNRECORDED: &str = "not tried: this proxy could not record that it owns it";
const UNGUARDED: &str = "not tried: this proxy could not reject a port on it, so connections would reach this node's \
                         own listener";

/// The changes that must follow at once for virtual servers that could not be made, before their addresses are bound.
///
/// Such a virtual server loses its record, unless the outcome is unknown. New connections to it are rejected. Otherwise
/// they would reach a listener of this node if the address is bound for another virtual server. If another program made
/// the virtual server, that program owns it, unless kube-ipvs had recorded it before this plan.
fn amends(plan: &Plan, failures: &[Failure]) -> Plan {
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
        let Some(Change::AddVirtualServer { key, .. }) = plan.changes().get(failure.change) else { continue };
        match failure.cause {
            Cause::Rejected | Cause::NoScheduler | Cause::NotTried => {
                amends.extend([add(KeySet::NoEndpoints, *key), unrecord(*key)]);
            }
            // The next read shows if the kernel made it. Until then, new connections are rejected.
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
