//! The edge between what is decided and what is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    cluster::EndpointAddress,
    model::VirtualServerKey,
    plan::{Change, Plan},
    set::{Element, KeySet},
    state::State,
};

/// A kernel that can be read and changed. Synchronous: one owner calls it, one call at a time.
pub trait Kernel {
    /// Makes what every plan stands on, where it is not there: the device, the tables, the sysctls.
    ///
    /// # Errors
    ///
    /// When a plan could not work at all, with what is missing and what to do.
    fn prepare(&mut self) -> Result<(), KernelUnavailable>;

    /// Reads the state. A list of the kernel's can lack what is there: what of `believed` it lacks is asked for by
    /// itself.
    ///
    /// # Errors
    ///
    /// When any part of it cannot be read: an unreadable state is never an empty one.
    fn observe(&mut self, believed: &State) -> Result<State, KernelUnavailable>;

    /// Counts the connections of the real servers of some virtual servers. One that is gone has none.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    fn connections(&mut self, servers: &[VirtualServerKey]) -> Result<ConnectionCounts, KernelUnavailable>;

    /// Carries out a plan, going on past what fails.
    fn apply(&mut self, plan: &Plan) -> Report;
}

/// How many connections go through a real server, established and dying ones together.
pub type ConnectionCounts = BTreeMap<(VirtualServerKey, EndpointAddress), u64>;

/// The kernel cannot be used at all, for now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KernelUnavailable(pub String);

/// What became of a plan. Everything that is not listed was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What failed.
    pub failures: Vec<Failure>,
    /// What was done besides, because something failed: see [`amends`].
    pub amended: Vec<Change>,
}

/// One change that was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its place in the plan.
    pub change: usize,
    /// What that means for what is known of the kernel.
    pub cause: Cause,
    /// Why, in the kernel's words where it has any.
    pub reason: String,
}

/// What a failure means for what is known of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It was not made, and that is all.
    Refused,
    /// It was not tried, because of what failed before it.
    NotTried,
    /// It was not made: the kernel does not have its scheduler.
    NoScheduler,
    /// The kernel did not make it because it exists. Another program made it, unless it is recorded as ours: then a
    /// list left it out.
    Exists,
    /// It is unknown whether the kernel made it. The engine must read the kernel.
    Unknown,
}

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
const UNGUARDED: &str =
    "not tried: a port on it could not be refused, and would lead to this node's own listener";

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
            Change::AddElement { element: Element::Key(KeySet::Served, key), replace: false, .. } => {
                Some(*key)
            }
            _ => None,
        });
        let taken = recorded.filter(|key| somebody_elses.contains(key));
        amends.extend(taken.flat_map(|key| [add(KeySet::Foreign, key), unrecord(key)]));
    }
    Plan::new(amends)
}
