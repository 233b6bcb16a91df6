//! The model cluster: its pods, and the controllers that write their objects to the API server.

use std::{collections::BTreeMap, net::IpAddr};

use proxier::model::Family;
use serde_json::{Value, json};

use super::{
    api::{Api, Logged},
    objects::{
        Content, Endpoint, OWN_NODE, PodState, Port, Service, Shape, Slice, Stored, Which, pod_ip, service_name,
    },
};

/// The number of names that Services can have.
pub(super) const SERVICES: u8 = 6;
/// The number of pods that a Service can have.
pub(super) const PODS: u8 = 4;

/// One pod. Its generation tells it from earlier pods with the same name and address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PodId {
    service: u8,
    pod: u8,
    generation: u32,
}

#[derive(Debug, Clone, Copy)]
struct Pod {
    generation: u32,
    is_local: bool,
    state: PodState,
}

#[derive(Debug, Default)]
pub(super) struct Cluster {
    pub(super) api: Api,
    pods: BTreeMap<(u8, u8), Pod>,
    generations: u32,
    /// The number of slices, for each family, that the controllers write for a Service.
    parts: BTreeMap<u8, u8>,
    ports: BTreeMap<u8, Vec<Port>>,
}

impl Cluster {
    pub(super) fn new() -> Self {
        let mut cluster = Self::default();
        cluster.put_node(0, false);
        cluster
    }

    pub(super) fn put_service(&mut self, shape: &Shape, created: i64) {
        let mut shape = shape.clone();
        shape.name %= SERVICES;
        shape.ports.dedup();
        let (first, name) = (shape.ports.first().copied(), shape.name());
        let Some(first) = first else { return };
        if shape.ports[1..].contains(&first) {
            shape.ports.truncate(1);
        }
        let old = self.service(&name);
        let service = match old {
            // The API server keeps the ClusterIP and the creation time of an existing Service.
            Some(old) => Service { shape, ip: old.ip, created: old.created },
            None => Service { ip: self.free_ip(shape.ip), shape, created },
        };
        self.ports.insert(service.shape.name, service.shape.ports.clone());
        let json = service.shape.json(service.ip, service.created);
        let number = service.shape.name;
        self.put(Which::Services, name, &json, Some(Content::Service(service)));
        self.write_slices(number);
    }

    /// The stored Service. If it is invalid, its last valid version.
    fn service(&self, name: &str) -> Option<Service> {
        let of = |stored: &Stored| match &stored.content {
            Some(Content::Service(service)) => Some(service.clone()),
            _ => None,
        };
        let past = || {
            self.api.log.iter().rev().find_map(|((which, other), logged)| match logged {
                Logged::Applied(stored) if *which == Which::Services && other == name => of(stored),
                _ => None,
            })
        };
        of(self.api.get(Which::Services, name)?).or_else(past)
    }

    fn free_ip(&self, asked: u8) -> u8 {
        let names = self.api.list(Which::Services).map(|((_, name), _)| name.clone());
        let taken: Vec<u8> = names.filter_map(|name| Some(self.service(&name)?.ip)).collect();
        (0..).map(|more| asked % SERVICES + more + 1).find(|ip| !taken.contains(ip)).unwrap_or_default()
    }

    pub(super) fn delete_service(&mut self, service: u8) {
        self.api.delete(Which::Services, &service_name(service % SERVICES));
    }

    pub(super) fn put_pod(&mut self, service: u8, pod: u8, is_local: bool, state: PodState) {
        use PodState::{Stopping, Terminating};
        let (service, pod) = (service % SERVICES, pod % PODS);
        self.generations += 1;
        let new = Pod { generation: self.generations, is_local, state };
        let known = self.pods.entry((service, pod)).or_insert(new);
        // A terminating pod does not become ready again, and a pod stays on its node.
        known.state = match (known.state, state) {
            (Stopping, _) | (Terminating, Stopping) => Stopping,
            (Terminating, _) => Terminating,
            (_, state) => state,
        };
        self.write_slices(service);
    }

    pub(super) fn remove_pod(&mut self, service: u8, pod: u8) {
        let (service, pod) = (service % SERVICES, pod % PODS);
        if self.pods.remove(&(service, pod)).is_some() {
            self.write_slices(service);
        }
    }

    pub(super) fn pod_at(&self, address: IpAddr) -> Option<PodId> {
        let at =
            |(service, pod): &(u8, u8)| Family::ALL.iter().any(|family| pod_ip(*family, *service, *pod) == address);
        let ((service, pod), found) = self.pods.iter().find(|(id, _)| at(id))?;
        Some(PodId { service: *service, pod: *pod, generation: found.generation })
    }

    pub(super) fn lives(&self, PodId { service, pod, generation }: PodId) -> bool {
        self.pods.get(&(service, pod)).is_some_and(|pod| pod.generation == generation)
    }

    pub(super) fn spread_slices(&mut self, service: u8, parts: u8) {
        let service = service % SERVICES;
        self.parts.insert(service, parts % 3);
        self.write_slices(service);
    }

    pub(super) fn delete_slices(&mut self, service: u8) {
        let prefix = format!("{}-", service_name(service % SERVICES));
        let names = self.api.list(Which::Slices).map(|((_, name), _)| name.clone());
        let doomed: Vec<String> = names.filter(|name| name.starts_with(&prefix)).collect();
        doomed.iter().for_each(|name| self.api.delete(Which::Slices, name));
    }

    pub(super) fn write_slices(&mut self, service: u8) {
        let Some(ports) = self.ports.get(&service).cloned() else { return };
        let parts = self.parts.get(&service).copied().unwrap_or(1);
        for family in Family::ALL {
            for part in 0..2 {
                let name = format!("{}-{}-{part}", service_name(service), family.to_string().to_lowercase());
                if part >= parts {
                    self.api.delete(Which::Slices, &name);
                    continue;
                }
                let own = self.pods.iter().filter(|((of, pod), _)| *of == service && pod % parts == part);
                let endpoints = own.filter_map(|((_, pod), it)| endpoint(pod_ip(family, service, *pod), it)).collect();
                let slice = Slice { service, family, ports: ports.clone(), endpoints };
                let json = slice.json(&name);
                self.put(Which::Slices, name, &json, Some(Content::Slice(slice)));
            }
        }
    }

    pub(super) fn spoil(&mut self, which: Which, service: u8) {
        let service = service_name(service % SERVICES);
        let is_meant = |name: &str| name == service || name.starts_with(&format!("{service}-"));
        let found = self.api.list(which).find(|((_, name), _)| is_meant(name));
        let Some((name, text)) = found.map(|((_, name), object)| (name.clone(), object.text.clone())) else { return };
        let mut json = serde_json::from_str::<Value>(&text).unwrap();
        match which {
            Which::Services => json["spec"]["type"] = "Wormhole".into(),
            Which::Slices => json["addressType"] = "Wormhole".into(),
            Which::Node | Which::Cidrs => return,
        }
        self.put(which, name, &json, None);
    }

    /// Corrects all invalid objects, and writes all slices.
    pub(super) fn repair(&mut self) {
        for number in 0..SERVICES {
            if let Some(service) = self.service(&service_name(number)) {
                self.put_service(&service.shape, service.created);
            }
            self.write_slices(number);
        }
    }

    pub(super) fn put_node(&mut self, pods: u8, is_leaving: bool) {
        let range = format!("10.244.{}.0/24", pods % 3);
        let mut json = json!({
            "metadata": {"name": OWN_NODE},
            "spec": {"podCIDR": range, "podCIDRs": [range]},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}]},
        });
        if is_leaving {
            json["spec"]["taints"] = json!([{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]);
        }
        self.put(Which::Node, OWN_NODE.into(), &json, Some(Content::Other));
    }

    pub(super) fn put_cidr(&mut self, number: u8) {
        let ranges = ["10.96.0.0/24", "10.96.0.0/16", "fd00:96::/112"];
        let number = number % 3;
        let name = format!("range-{number}");
        let json = json!({"metadata": {"name": name}, "spec": {"cidrs": [ranges[usize::from(number)]]}});
        self.put(Which::Cidrs, name, &json, Some(Content::Other));
    }

    fn put(&mut self, which: Which, name: String, json: &Value, content: Option<Content>) {
        self.api.put(which, name, Stored { text: json.to_string().into(), content });
    }
}

fn endpoint(address: IpAddr, pod: &Pod) -> Option<Endpoint> {
    let (ready, serving, terminating) = match pod.state {
        PodState::Ready => (true, true, false),
        PodState::NotReady => (false, false, false),
        PodState::Terminating => (false, true, true),
        PodState::Stopping => (false, false, true),
        PodState::Unselected => return None,
    };
    Some(Endpoint { address, ready, serving, terminating, is_local: pod.is_local })
}
