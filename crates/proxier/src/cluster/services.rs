//! Applies changes of Services.

use std::collections::BTreeSet;

use foldhash::HashSet;

use super::{Claim, Claimant, Cluster, Kind, Listener};
use crate::model::{Forwarding, Service, ServiceId, ServicePort};

impl Cluster {
    pub(super) fn apply_service(&mut self, service: Service) {
        let old = self.services.get(&service.id);
        if old == Some(&service) {
            return;
        }
        // Only claims that change touch other Services.
        let before = old.map(|old| self.claims_of(old)).unwrap_or_default();
        let after = self.claims_of(&service);
        self.unindex(&service.id);
        self.changed.insert(service.id.clone());
        self.release(&service.id, before.difference(&after));
        self.claim(&service.id, after.difference(&before));
        for address in service.vips() {
            self.on_address.add(address, service.id.clone());
        }
        if !service.source_ranges.is_empty() {
            self.filtered.insert(service.id.clone());
        }
        if service.options().forwarding != Forwarding::Masq {
            self.forwarded.insert(service.id.clone());
        }
        if service.ports.iter().any(|port| port.node_port.is_some()) || service.health_check_port.is_some() {
            self.with_node_port.insert(service.id.clone());
        }
        self.services.insert(service.id.clone(), service);
    }

    pub(super) fn remove_service(&mut self, id: &ServiceId) {
        let Some(old) = self.services.get(id) else { return };
        let claims = self.claims_of(old);
        self.unindex(id);
        self.changed.insert(id.clone());
        self.release(id, &claims);
    }

    /// Removes a Service from all indexes except the claims.
    fn unindex(&mut self, id: &ServiceId) {
        let Some(old) = self.services.remove(id) else { return };
        self.with_node_port.remove(id);
        self.filtered.remove(id);
        self.forwarded.remove(id);
        for address in old.vips() {
            self.on_address.remove(&address, id);
        }
    }

    pub(super) fn claim<'a>(&mut self, id: &ServiceId, claims: impl IntoIterator<Item = &'a (Claim, Claimant)>) {
        for (claim, claimant) in claims {
            let rivals = self.claims.add(*claim, claimant.clone());
            mark_rivals(&mut self.changed, id, rivals);
        }
    }

    pub(super) fn release<'a>(&mut self, id: &ServiceId, claims: impl IntoIterator<Item = &'a (Claim, Claimant)>) {
        for (claim, claimant) in claims {
            let rivals = self.claims.remove(claim, claimant);
            mark_rivals(&mut self.changed, id, rivals);
        }
    }

    pub(super) fn claims_of(&self, service: &Service) -> BTreeSet<(Claim, Claimant)> {
        let claimant =
            |kind, port: &ServicePort| Claimant { kind, created: service.created, port: service.port_id(port) };
        let listeners = self.listeners(service).all;
        let ports = service.ports.iter().filter(|_| !service.cluster_ips.is_empty());
        let node_ports = ports
            .filter_map(|port| Some((Claim::NodePort(port.protocol, port.node_port?), claimant(Kind::NodePort, port))));
        // No virtual server listens at a health check. One of another Service would answer in place of the node.
        let health_checks = service.ports.first().into_iter().flat_map(|port| {
            let mut keys = self.health_checks(service);
            if !keys.is_empty() {
                let own: HashSet<_> = listeners.iter().map(|listener| listener.key).collect();
                keys.retain(|(_, key)| !own.contains(key));
            }
            keys.into_iter().map(move |(kind, key)| (Claim::VirtualServer(key), claimant(kind, port)))
        });
        let served = listeners.iter().filter_map(|Listener { kind, port, key }| {
            Some((Claim::VirtualServer(*key), claimant(*kind, service.ports.get(*port)?)))
        });
        served.chain(node_ports).chain(health_checks).collect()
    }
}

fn mark_rivals(changed: &mut HashSet<ServiceId>, service: &ServiceId, rivals: &[Claimant]) {
    let others = rivals.iter().map(|rival| &rival.port.service).filter(|id| *id != service);
    changed.extend(others.cloned());
}
