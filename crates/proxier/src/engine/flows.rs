use std::collections::BTreeSet;

use crate::{cluster::EndpointAddress, model::VirtualServerKey, plan::Change, state::State};

/// Flows that conntrack could not be made to forget. No list of what the kernel has shows them, so they are kept here
/// until they are forgotten.
#[derive(Debug, Default)]
pub(super) struct Unforgotten(BTreeSet<(VirtualServerKey, Option<EndpointAddress>)>);

impl Unforgotten {
    /// A change failed.
    pub(super) fn note(&mut self, change: &Change) {
        if let Change::ForgetFlows { to, endpoint } = change {
            self.0.insert((*to, *endpoint));
        }
    }

    /// Adds them to a plan again, but for those whose endpoint has come back: they are where they should be.
    pub(super) fn plan(&mut self, known: &State, changes: &mut Vec<Change>) {
        for (to, endpoint) in std::mem::take(&mut self.0) {
            if !endpoint.is_some_and(|endpoint| serves(known, changes, to, endpoint)) {
                changes.push(Change::ForgetFlows { to, endpoint });
            }
        }
    }
}

/// Whether clients of a virtual server come to an endpoint, by it or by its short cut, when these changes are made.
fn serves(known: &State, changes: &[Change], to: VirtualServerKey, endpoint: EndpointAddress) -> bool {
    let short_cut = known.short_cuts.get(&to);
    let target = short_cut.map(|at| VirtualServerKey { address: at.address, port: at.port, ..to });
    [Some(to), target].into_iter().flatten().any(|server| {
        let has =
            known.virtual_servers.get(&server).is_some_and(|it| it.real_servers.contains_key(&endpoint));
        let last = changes.iter().rev().find_map(|change| match change {
            Change::AddRealServer { key, address, .. } if (*key, *address) == (server, endpoint) => {
                Some(true)
            }
            Change::RemoveRealServer { key, address } if (*key, *address) == (server, endpoint) => {
                Some(false)
            }
            _ => None,
        });
        last.unwrap_or(has)
    })
}
