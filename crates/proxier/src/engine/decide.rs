//! Decides the next changes: compares the changed Services and the leftovers with the kernel's state.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use foldhash::HashMap;

use super::Engine;
use crate::{
    cluster::EndpointAddress,
    desired::{self, Desired, HealthCheck, SharedResource, Skipped},
    diff::Differ,
    model::{ServiceId, VirtualServerKey},
    plan::{Change, Plan},
    set::Element,
};

#[derive(Debug, Default)]
pub(super) struct Decision {
    pub(super) plan: Plan,
    pub(super) skipped: BTreeSet<Skipped>,
    pub(super) health_checks: Vec<(ServiceId, Option<HealthCheck>)>,
    pub(super) released: BTreeMap<VirtualServerKey, ServiceId>,
    /// Whether the engine read the kernel and compares all of it.
    pub(super) is_full: bool,
}

/// The parts of the state that a plan can touch. They can repeat.
#[derive(Debug, Default)]
pub(super) struct Scope {
    pub(super) keys: Vec<VirtualServerKey>,
    pub(super) shared: Vec<SharedResource>,
}

impl Scope {
    fn add(&mut self, desired: &Desired) {
        self.keys.extend(desired.virtual_servers.keys());
        self.shared.extend(&desired.shared);
    }

    /// Sorts the parts, so that the order of a plan does not depend on the order of events.
    fn sort(&mut self) {
        self.keys.sort_unstable();
        self.keys.dedup();
        self.shared.sort_unstable();
        self.shared.dedup();
    }
}

impl Engine {
    pub(super) fn decide(&mut self, leftovers: Scope, is_full: bool, now: Duration) -> Decision {
        let mut scope = leftovers;
        let (mut wanted, mut skipped) = (HashMap::default(), BTreeSet::new());
        let (mut health_checks, mut released, mut flows) = (Vec::new(), BTreeMap::new(), Vec::new());
        for id in self.cluster.drain_dirty() {
            let mut desired = desired::of_service(&self.cluster, &id);
            leave_out_foreign(&mut desired, &self.foreign);
            desired.cap_reasons(&id);
            scope.add(&desired);
            let old = self.contributions.replace(&id, &desired);
            let lost = old.keys.iter().filter(|key| !desired.virtual_servers.contains_key(key));
            released.extend(lost.map(|key| (*key, id.clone())));
            // The short circuit of these flows is paused, so only conntrack still has them.
            let continues = |(key, to): &(VirtualServerKey, EndpointAddress)| {
                let server = desired.virtual_servers.get(key);
                server.is_some_and(|it| [it.short_circuit, it.paused_short_circuit].contains(&Some(*to)))
            };
            let ended = old.paused.iter().filter(|paused| !continues(paused)).map(|(key, _)| *key);
            flows.extend(ended.map(|to| Change::DeleteFlows { to, endpoint: None, by_short_circuit: true }));
            scope.keys.extend(old.keys);
            scope.shared.extend(old.shared);
            desired.skipped.retain(|reason| !old.skipped.contains(reason));
            let health_check = desired.health_checks.get(&id).copied();
            if health_check != old.health_check {
                health_checks.push((id, health_check));
            }
            skipped.extend(desired.skipped);
            wanted.extend(desired.virtual_servers);
        }
        scope.sort();
        let Some(known) = &self.known else { return Default::default() };
        let mut differ = Differ {
            config: &self.cluster.config,
            known,
            foreign: &self.foreign,
            drains: &mut self.drains,
            now,
            keeps_ranges: !self.doubt.has_known(),
            changes: flows,
        };
        for key in scope.keys {
            differ.virtual_server(key, wanted.get(&key));
        }
        for shared in scope.shared {
            differ.shared(shared, self.contributions.need(shared));
        }
        differ.ranges(Element::ServiceRange, &known.service_ranges, self.cluster.service_ranges());
        differ.ranges(Element::PodSource, &known.pod_sources, self.cluster.pod_sources());
        differ.outside(self.cluster.pod_sources());
        differ.ranges(Element::RemotePod, &known.remote_pods, self.cluster.remote_pods());
        let mut changes = differ.changes;
        if is_full {
            self.pending_flow_deletes.plan(known, &mut changes);
        }
        Decision { plan: Plan::new(changes), skipped, health_checks, released, is_full }
    }
}

/// Leaves out virtual servers whose key another program has, and resources that only they needed. If the Service has
/// nothing else on an address, the address can be another host's, so the engine does not bind it.
fn leave_out_foreign(desired: &mut Desired, foreign: &BTreeSet<VirtualServerKey>) {
    let clashes: BTreeMap<_, _> = desired.virtual_servers.extract_if(.., |key, _| foreign.contains(key)).collect();
    if clashes.is_empty() {
        return;
    }
    let addresses: BTreeSet<IpAddr> = desired.virtual_servers.keys().map(|key| key.address).collect();
    desired.shared.retain(|shared| match shared {
        SharedResource::Vip(address) => addresses.contains(address),
        SharedResource::HealthCheck(check) => addresses.contains(&check.address),
        SharedResource::Hairpin(..) => true,
    });
    for (key, server) in &mut desired.virtual_servers {
        let at = |to: &EndpointAddress| VirtualServerKey { address: to.address, protocol: key.protocol, port: to.port };
        server.short_circuit = server.short_circuit.filter(|to| !clashes.contains_key(&at(to)));
    }
    let reasons = clashes.into_iter().map(|(key, server)| Skipped::ForeignVirtualServer { port: server.owner, key });
    desired.skipped.extend(reasons);
}
