//! The objects of the model cluster: as JSON for the daemon, and as data for the reference model.

use std::{net::IpAddr, rc::Rc};

use ipnet::IpNet;
use proxier::model::{Family, PortNumber, Protocol};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::source::kubernetes::resource::Resource;

pub(super) const OWN_NODE: &str = "node-1";

/// A collection of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Which {
    Services,
    Slices,
    Node,
    Cidrs,
}

impl Which {
    pub(super) const ALL: [Self; 4] = [Self::Services, Self::Slices, Self::Node, Self::Cidrs];

    pub(super) fn resource(self) -> Resource {
        match self {
            Self::Services => Resource::Services,
            Self::Slices => Resource::EndpointSlices,
            Self::Node => Resource::OwnNode,
            Self::Cidrs => Resource::ServiceCidrs,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Transport {
    Tcp,
    Udp,
    Sctp,
}

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
            Transport::Sctp => Self::Sctp,
        }
    }
}

/// A port of a Service: its protocol and number.
pub(super) type Port = (Transport, u16);

pub(super) fn port_name((transport, number): Port) -> String {
    format!("{}-{number}", Protocol::from(transport).to_string().to_lowercase())
}

/// The port on which the pods serve a port of a Service.
pub(super) fn target((_, number): Port) -> PortNumber {
    PortNumber::new(number + 8000).unwrap()
}

/// A Service as a user writes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Shape {
    pub(super) name: u8,
    pub(super) ports: Vec<Port>,
    /// The number of the ClusterIP that it asks for. If that is taken, the API server allocates another one.
    pub(super) ip: u8,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) v6: bool,
    /// The number of its external IP.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) external: Option<u8>,
    /// The number of its load-balancer IP.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) balancer: Option<u8>,
    /// The source ranges of its load-balancer IP: bits of [`RANGES`].
    #[serde(skip_serializing_if = "is_default")]
    pub(super) ranges: u8,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) node_ports: bool,
    /// The timeout of its session affinity in seconds. 0: no affinity.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) affinity: u32,
    /// `externalTrafficPolicy: Local`
    #[serde(skip_serializing_if = "is_default")]
    pub(super) local: bool,
    /// `internalTrafficPolicy: Local`
    #[serde(skip_serializing_if = "is_default")]
    pub(super) local_inside: bool,
    /// Whether it chooses the scheduler `sh`.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) hashed: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Some ranges overlap, and some are adjacent.
pub(super) const RANGES: [&str; 4] = ["198.18.0.0/30", "198.18.0.4/30", "198.18.0.0/28", "10.244.0.0/16"];

impl Shape {
    pub(super) fn name(&self) -> String {
        service_name(self.name)
    }

    pub(super) fn families(&self) -> Vec<Family> {
        if self.v6 { Family::ALL.to_vec() } else { vec![Family::V4] }
    }

    pub(super) fn source_ranges(&self) -> Vec<IpNet> {
        let chosen = RANGES.iter().zip(0..).filter(|(_, bit)| self.ranges & 1 << bit != 0);
        chosen.map(|(range, _)| range.parse().unwrap()).collect()
    }

    pub(super) fn node_port(&self, port: Port) -> PortNumber {
        let index = self.ports.iter().position(|other| *other == port).unwrap_or_default() as u16;
        PortNumber::new(30_000 + u16::from(self.name) * 10 + index).unwrap()
    }

    pub(super) fn json(&self, ip: u8, created: i64) -> Value {
        let ips: Vec<IpAddr> = self.families().into_iter().map(|family| cluster_ip(family, ip)).collect();
        let kind = match (self.balancer, self.node_ports) {
            (Some(_), _) => "LoadBalancer",
            (None, true) => "NodePort",
            (None, false) => "ClusterIP",
        };
        let port = |port: &Port| {
            let (transport, number) = *port;
            let mut entry = json!({
                "name": port_name(*port),
                "protocol": Protocol::from(transport).to_string(),
                "port": number,
            });
            if self.node_ports {
                entry["nodePort"] = self.node_port(*port).get().into();
            }
            entry
        };
        let policy = |is_local| if is_local { "Local" } else { "Cluster" };
        let mut object = json!({
            "metadata": {
                "name": self.name(),
                "namespace": "default",
                "creationTimestamp": jiff::Timestamp::from_second(created).unwrap().to_string(),
            },
            "spec": {
                "type": kind,
                "clusterIP": ips[0],
                "clusterIPs": ips,
                "ports": self.ports.iter().map(port).collect::<Vec<_>>(),
                "externalIPs": self.external.map(external_ip).into_iter().collect::<Vec<_>>(),
                "internalTrafficPolicy": policy(self.local_inside),
                "externalTrafficPolicy": policy(self.local),
            },
        });
        if self.hashed {
            object["metadata"]["annotations"] = json!({"kube-ipvs.io/scheduler": "sh"});
        }
        if self.affinity > 0 {
            object["spec"]["sessionAffinity"] = "ClientIP".into();
            object["spec"]["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": self.affinity}});
        }
        if let Some(number) = self.balancer {
            let ranges: Vec<String> = self.source_ranges().iter().map(ToString::to_string).collect();
            object["spec"]["loadBalancerSourceRanges"] = json!(ranges);
            object["status"] = json!({"loadBalancer": {"ingress": [{"ip": balancer_ip(number)}]}});
            if self.local {
                object["spec"]["healthCheckNodePort"] = (32_000 + u16::from(self.name)).into();
            }
        }
        object
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PodState {
    Ready,
    NotReady,
    /// It terminates, and still serves.
    Terminating,
    /// It terminates, and does not serve any more.
    Stopping,
    /// Its labels have changed, so no slice lists it. It still runs.
    Unselected,
}

pub(super) fn service_name(number: u8) -> String {
    char::from(b'a' + number % 26).to_string()
}

pub(super) fn cluster_ip(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => [10, 96, 0, number].into(),
        Family::V6 => [0xfd00, 0x96, 0, 0, 0, 0, 0, u16::from(number)].into(),
    }
}

pub(super) fn external_ip(number: u8) -> IpAddr {
    [203, 0, 113, number].into()
}

pub(super) fn balancer_ip(number: u8) -> IpAddr {
    [198, 51, 100, number].into()
}

/// The node's own address.
pub(super) fn host_ip(family: Family) -> IpAddr {
    match family {
        Family::V4 => [192, 168, 0, 1].into(),
        Family::V6 => [0xfd01, 0, 0, 0, 0, 0, 0, 1].into(),
    }
}

pub(super) fn pod_ip(family: Family, service: u8, pod: u8) -> IpAddr {
    match family {
        Family::V4 => [10, 244, service, pod + 10].into(),
        Family::V6 => [0xfd02, 0, 0, 0, 0, 0, u16::from(service), u16::from(pod) + 10].into(),
    }
}

/// An object as the API server stores it. `content` is `None` if the object is invalid.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stored {
    pub(super) text: Rc<str>,
    pub(super) content: Option<Content>,
}

/// The parts of an object that the reference model uses.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    Service(Service),
    Slice(Slice),
    Other,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Service {
    pub(super) shape: Shape,
    pub(super) ip: u8,
    pub(super) created: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slice {
    pub(super) service: u8,
    pub(super) family: Family,
    pub(super) ports: Vec<Port>,
    pub(super) endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Endpoint {
    pub(super) address: IpAddr,
    pub(super) ready: bool,
    pub(super) serving: bool,
    pub(super) terminating: bool,
    pub(super) is_local: bool,
}

impl Endpoint {
    fn json(&self) -> Value {
        json!({
            "addresses": [self.address],
            "conditions": {"ready": self.ready, "serving": self.serving, "terminating": self.terminating},
            "nodeName": if self.is_local { OWN_NODE } else { "node-2" },
        })
    }
}

impl Slice {
    pub(super) fn json(&self, name: &str) -> Value {
        let port = |port: &Port| {
            json!({
                "name": port_name(*port),
                "protocol": Protocol::from(port.0).to_string(),
                "port": target(*port),
            })
        };
        json!({
            "metadata": {
                "name": name,
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": service_name(self.service)},
            },
            "addressType": self.family.to_string(),
            "ports": self.ports.iter().map(port).collect::<Vec<_>>(),
            "endpoints": self.endpoints.iter().map(Endpoint::json).collect::<Vec<_>>(),
        })
    }
}
