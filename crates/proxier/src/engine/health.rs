use std::collections::BTreeSet;

use super::{Engine, FailedChange, SyncReport};
use crate::{
    cluster::Claim,
    model::{Family, ServiceId, VirtualServerKey},
    plan::Change,
    set::Element,
};

impl Engine {
    /// Whether a sync failed for a family as a whole: the kernel cannot be used, a change failed that all Services of
    /// the family need, or changes failed for most of its Services. One failing Service is never enough.
    pub fn is_family_unhealthy(&self, report: &SyncReport, family: Family) -> bool {
        let failures = || report.failures.iter().filter(|failure| failure.change.family() == family);
        if report.unavailable.is_some() || failures().any(|failure| is_of_all(&failure.change)) {
            return true;
        }
        let failing: BTreeSet<&ServiceId> = failures().flat_map(|failure| self.affected_services(failure)).collect();
        if failing.len() < 2 {
            return false;
        }
        let owner = |key: &VirtualServerKey| Some(&self.cluster.holder(&Claim::VirtualServer(*key))?.port.service);
        let keys = self.known.iter().flat_map(|known| known.virtual_servers.keys());
        let made = keys.filter(|key| key.family() == family).filter_map(owner);
        let all: BTreeSet<&ServiceId> = made.chain(failing.iter().copied()).collect();
        failing.len() * 2 > all.len()
    }

    /// The Services that a failed change affects.
    pub fn affected_services(&self, failure: &FailedChange) -> impl Iterator<Item = &ServiceId> {
        let at = failure.change.address().filter(|_| failure.service.is_none());
        let key = failure.change.key().map(Claim::VirtualServer);
        let holder = key.and_then(|claim| self.cluster.holder(&claim)).map(|holder| &holder.port.service);
        holder.into_iter().chain(at.into_iter().flat_map(|address| self.cluster.services_at(address)))
    }
}

/// Whether every Service of the family needs a change.
fn is_of_all(change: &Change) -> bool {
    match change {
        Change::AddElement { element, .. } | Change::RemoveElement { element, .. } => {
            matches!(element, Element::ServiceRange(_) | Element::PodSource(_) | Element::RemotePod(_))
        }
        _ => false,
    }
}
