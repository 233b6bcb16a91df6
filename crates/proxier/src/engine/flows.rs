use std::collections::BTreeSet;

use foldhash::HashMap;

use crate::{cluster::EndpointAddress, model::VirtualServerKey, plan::Change, state::State};

/// Flows that conntrack failed to delete. No list of the kernel's state shows them, so the engine keeps them until the
/// deletion succeeds.
#[derive(Debug, Default)]
pub(super) struct PendingFlowDeletes(BTreeSet<(VirtualServerKey, Option<EndpointAddress>, bool)>);

impl PendingFlowDeletes {
    pub(super) fn note(&mut self, change: &Change) {
        if let Change::DeleteFlows { to, endpoint, by_short_circuit } = change {
            self.0.insert((*to, *endpoint, *by_short_circuit));
        }
    }

    /// Forgets earlier failed deletions of flows that `change` has deleted. Clients can have new flows by then.
    pub(super) fn done(&mut self, change: &Change) {
        if let Change::DeleteFlows { to, endpoint, by_short_circuit } = change {
            self.0.retain(|(other, of, by)| {
                to != other || endpoint.is_some() && endpoint != of || *by_short_circuit && !by
            });
        }
    }

    /// Adds the deletions to a plan again, except for flows whose endpoint has come back.
    pub(super) fn plan(&mut self, known: &State, changes: &mut Vec<Change>) {
        if self.0.is_empty() {
            return;
        }
        let after = real_servers(changes);
        for (to, endpoint, by_short_circuit) in std::mem::take(&mut self.0) {
            let deletion = Change::DeleteFlows { to, endpoint, by_short_circuit };
            if !endpoint.is_some_and(|endpoint| serves(known, &after, to, endpoint)) && !changes.contains(&deletion) {
                changes.push(deletion);
            }
        }
    }
}

/// The real servers that changes add (true) or remove (false).
fn real_servers(changes: &[Change]) -> HashMap<(VirtualServerKey, EndpointAddress), bool> {
    let is_added = changes.iter().filter_map(|change| match change {
        Change::AddRealServer { key, address, .. } => Some(((*key, *address), true)),
        Change::RemoveRealServer { key, address } => Some(((*key, *address), false)),
        _ => None,
    });
    is_added.collect()
}

/// Whether a virtual server leads clients to an endpoint, directly or by its short circuit, once `after` is applied.
fn serves(
    known: &State,
    after: &HashMap<(VirtualServerKey, EndpointAddress), bool>,
    to: VirtualServerKey,
    endpoint: EndpointAddress,
) -> bool {
    let short_circuit = known.short_circuits.get(&to);
    let target = short_circuit.map(|at| VirtualServerKey { address: at.address, port: at.port, ..to });
    [Some(to), target].into_iter().flatten().any(|server| {
        let has = known.virtual_servers.get(&server).is_some_and(|it| it.real_servers.contains_key(&endpoint));
        after.get(&(server, endpoint)).copied().unwrap_or(has)
    })
}
