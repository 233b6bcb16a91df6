//! The objects of a shape as an API server has them.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::{
    network::{Host, NODE, NODE_ADDRESS, POD_NETWORK},
    shape::Shape,
    world::{PORT, SLICE, away, vip},
};

/// How many Services the client asks until all count as served.
const SAMPLE: u32 = 100;

impl Shape {
    /// A small shape with some of the same Services.
    pub(super) fn few(self) -> Self {
        Self { services: self.services.min(10), ..self }
    }

    /// The Service whose one endpoint moves. It is in the middle, so that no order of the Services prefers it.
    fn probed(self) -> u32 {
        self.services / 2
    }

    /// The probed Service, and then Services evenly spread over all, with the first and the last.
    pub(super) fn sample(self) -> Vec<SocketAddr> {
        let count = SAMPLE.min(self.services);
        let spread = (0..count).map(|number| number * (self.services - 1) / (count - 1).max(1));
        [self.probed()].into_iter().chain(spread).map(|number| SocketAddr::new(vip(number).into(), 80)).collect()
    }

    pub(super) fn objects(self) -> Vec<Value> {
        let slices = move |number| match number == self.probed() {
            true => vec![self.probed_slice(Host::Old)],
            false => self.slices_of(number),
        };
        let services = (0..self.services).flat_map(|number| [service(number)].into_iter().chain(slices(number)));
        [node()].into_iter().chain(services).collect()
    }

    /// The EndpointSlice of the probed Service, with its endpoint on this host.
    pub(super) fn probed_slice(self, host: Host) -> Value {
        let number = self.probed();
        let address = match host {
            Host::Old => self.pod(number, 0),
            Host::New => away(number),
        };
        slice(number, 0, vec![address.into()])
    }

    fn slices_of(self, number: u32) -> Vec<Value> {
        let addresses: Vec<IpAddr> = (0..self.endpoints).map(|index| self.pod(number, index).into()).collect();
        let slices = addresses.chunks(SLICE as usize).zip(0..);
        slices.map(|(addresses, index)| slice(number, index, addresses.to_vec())).collect()
    }
}

fn node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "uid": NODE},
        "spec": {"podCIDR": POD_NETWORK, "podCIDRs": [POD_NETWORK]},
        "status": {"addresses": [{"type": "InternalIP", "address": NODE_ADDRESS}]},
    })
}

fn service(number: u32) -> Value {
    let name = format!("service-{number}");
    let address = vip(number);
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": PORT}],
        },
    })
}

fn slice(number: u32, index: u32, addresses: Vec<IpAddr>) -> Value {
    let name = format!("service-{number}-{index}");
    let endpoint = |(address, index): (IpAddr, u32)| {
        json!({
            "addresses": [address],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("node-{}", (number + index) % 100),
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": "default", "uid": name,
            "labels": {"kubernetes.io/service-name": format!("service-{number}")},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": PORT}],
        "endpoints": addresses.into_iter().zip(0..).map(endpoint).collect::<Vec<Value>>(),
    })
}
