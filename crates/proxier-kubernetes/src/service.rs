use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    num::NonZeroU32,
};

use proxier::model::{self, Affinity, Event, ServiceId};
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use crate::{
    AnnotationPolicy, Invalid, Kind, Object, Reasons, Remarks, annotations,
    exposure::{MAX_OUTER_IPS, MAX_SOURCE_RANGES, SOURCE_RANGES, Status, TrafficPolicy, external_ips, source_ranges},
    list::{Bounded, FirstOf},
    meta::Meta,
    name::PortName,
    remarks::quoted,
    scalar::{Address, NodePort, Port, Protocol, Range, Seconds, text},
};

/// Limit for ports of a Service, equal to that of the slices, which have to follow it. The API has no limit.
const MAX_PORTS: usize = 20_000;

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Service {
    #[serde(default)]
    metadata: Option<Meta>,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    r#type: Option<Type>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<Address>,
    #[serde(default, rename = "clusterIPs")]
    cluster_ips: Bounded<Address, 2>,
    selector: Option<BTreeMap<String, IgnoredAny>>,
    #[serde(default)]
    ports: FirstOf<ServicePort, MAX_PORTS>,
    session_affinity: Option<SessionAffinity>,
    session_affinity_config: Option<AffinityConfig>,
    #[serde(default, rename = "externalIPs")]
    external_ips: FirstOf<Address, MAX_OUTER_IPS>,
    #[serde(default)]
    load_balancer_source_ranges: FirstOf<Range, MAX_SOURCE_RANGES>,
    internal_traffic_policy: Option<TrafficPolicy>,
    external_traffic_policy: Option<TrafficPolicy>,
    health_check_node_port: Option<NodePort>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServicePort {
    name: Option<PortName>,
    protocol: Option<Protocol>,
    port: Port,
    node_port: Option<NodePort>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

impl<'de> Deserialize<'de> for Type {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a Service type", |name| match name {
            "ClusterIP" | "" => Ok(Self::ClusterIp),
            "NodePort" => Ok(Self::NodePort),
            "LoadBalancer" => Ok(Self::LoadBalancer),
            "ExternalName" => Ok(Self::ExternalName),
            _ => Err(format!(
                "{} is not a Service type: use ClusterIP, NodePort, LoadBalancer or ExternalName",
                quoted(name)
            )),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SessionAffinity {
    None,
    ClientIp,
}

impl<'de> Deserialize<'de> for SessionAffinity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a session affinity", |name| match name {
            "None" | "" => Ok(Self::None),
            "ClientIP" => Ok(Self::ClientIp),
            _ => Err(format!("{} is not a session affinity: use None or ClientIP", quoted(name))),
        })
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AffinityConfig {
    #[serde(rename = "clientIP")]
    client_ip: Option<ClientIpConfig>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientIpConfig {
    timeout_seconds: Option<Seconds>,
}

/// The API's default: three hours.
const DEFAULT_TIMEOUT: Seconds = Seconds(NonZeroU32::new(10_800).unwrap());

impl Service {
    /// Adds parts of the Service that have no effect to `remarks`. An error names the violated rule.
    pub(crate) fn convert(self, policy: &AnnotationPolicy, remarks: &mut Remarks) -> Result<Object, Invalid> {
        let Self { metadata, spec, status } = self;
        let meta = metadata.unwrap_or_default();
        let options = annotations::options(&meta, policy, &mut remarks.ignored);
        let left_out = &mut remarks.left_out;
        let key = meta.key(Kind::Service)?;
        let Some(spec) = spec else {
            return Err(Invalid::new("spec", "is missing"));
        };
        let is_external_name = spec.r#type == Some(Type::ExternalName);
        let cluster_ips = if is_external_name { Cluster::Unset } else { spec.cluster_ips(left_out)? };
        if spec.ports.entries.is_empty() && !is_external_name && !matches!(cluster_ips, Cluster::Headless) {
            return Err(Invalid::new("spec.ports", "a Service needs at least one port"));
        }
        left_out.extend(spec.ports.cut("spec.ports"));
        let ports = if is_external_name { Vec::new() } else { spec.ports()? };
        let lacks_cluster_ip = !is_external_name && matches!(cluster_ips, Cluster::Unset);
        let mut service = model::Service {
            created: meta.created(),
            cluster_ips: cluster_ips.into_vec(),
            ports,
            affinity: spec.affinity(),
            options,
            ..model::Service::new(ServiceId { namespace: key.namespace.clone(), name: key.name.clone() })
        };
        if !is_external_name {
            service.external_ips = external_ips(&spec.external_ips, left_out);
            service.internal_policy = spec.internal_traffic_policy.unwrap_or_default().0;
        }
        if spec.r#type == Some(Type::LoadBalancer) {
            service.load_balancer_ips = status.unwrap_or_default().load_balancer_ips(left_out);
            let annotation = meta.annotation(SOURCE_RANGES);
            service.source_ranges = source_ranges(&spec.load_balancer_source_ranges, annotation, left_out)?;
            service.health_check_port = spec.health_check_node_port.and_then(|port| port.0);
        }
        // Kubernetes calls these Services externally accessible. For others the policy has no meaning.
        if spec.has_node_ports() || !service.external_ips.is_empty() {
            service.external_policy = spec.external_traffic_policy.unwrap_or_default().0;
        }
        let selects_pods = spec.selector.is_some_and(|selector| !selector.is_empty());
        let event = (!meta.is_foreign()).then_some(Event::ServiceApplied(service));
        Ok(Object { event, selects_pods, lacks_cluster_ip, ..Object::new(key) })
    }
}

/// The combined meaning of `clusterIP` and `clusterIPs`.
enum Cluster {
    /// No API server has allocated an address.
    Unset,
    Headless,
    /// One address, or one of each family.
    Ips(Vec<IpAddr>),
}

impl Cluster {
    fn into_vec(self) -> Vec<IpAddr> {
        match self {
            Self::Ips(ips) => ips,
            Self::Unset | Self::Headless => Vec::new(),
        }
    }
}

impl Spec {
    fn cluster_ips(&self, left_out: &mut Reasons) -> Result<Cluster, Invalid> {
        let single = self.cluster_ip.as_ref().filter(|address| !is_text(address, ""));
        let Some(first) = self.cluster_ips.first() else {
            return match single {
                None => Ok(Cluster::Unset),
                Some(address) if is_text(address, "None") => Ok(Cluster::Headless),
                Some(address) => {
                    let ip = address_of(address, "spec.clusterIP", left_out)?;
                    Ok(Cluster::Ips(ip.into_iter().collect()))
                }
            };
        };
        if single.is_some_and(|single| single != first) {
            return Err(Invalid::new("spec.clusterIP", "differs from the first of spec.clusterIPs"));
        }
        if self.cluster_ips.len() == 1 && is_text(first, "None") {
            return Ok(Cluster::Headless);
        }
        let mut ips = Vec::with_capacity(2);
        for (index, address) in self.cluster_ips.iter().enumerate() {
            let field = format!("spec.clusterIPs[{index}]");
            let Some(ip) = address_of(address, &field, left_out)? else { continue };
            if ips.iter().any(|other: &IpAddr| other.is_ipv4() == ip.is_ipv4()) {
                return Err(Invalid::new(field, "has the same family as the first: use at most one of each"));
            }
            ips.push(ip);
        }
        Ok(Cluster::Ips(ips))
    }

    fn has_node_ports(&self) -> bool {
        matches!(self.r#type, Some(Type::NodePort | Type::LoadBalancer))
    }

    fn ports(&self) -> Result<Vec<model::ServicePort>, Invalid> {
        let entries = &self.ports.entries;
        let mut ports = Vec::with_capacity(entries.len());
        let (mut names, mut numbers, mut node_ports) = (HashSet::new(), HashSet::new(), HashSet::new());
        for (index, entry) in entries.iter().enumerate() {
            let invalid =
                |field: &str, message: String| Err(Invalid::new(format!("spec.ports[{index}]{field}"), message));
            let port = model::ServicePort {
                name: entry.name.clone().map(|name| name.0).unwrap_or_default(),
                protocol: entry.protocol.unwrap_or_default().0,
                port: entry.port.0,
                node_port: entry.node_port.and_then(|port| port.0),
            };
            let model::ServicePort { name, protocol, port: number, .. } = &port;
            if name.is_empty() && entries.len() > 1 {
                return invalid("", "has no name: if a Service has several ports, each needs a name".into());
            }
            if !names.insert(name.clone()) {
                return invalid(".name", format!("an earlier port has the name {name:?} too"));
            }
            if !numbers.insert((*protocol, *number)) {
                return invalid(".port", format!("an earlier port is {protocol} {number} too"));
            }
            if let Some(node_port) = port.node_port {
                if !self.has_node_ports() {
                    return invalid(
                        ".nodePort",
                        "is only for Services of type NodePort or LoadBalancer: set spec.type".into(),
                    );
                }
                if !node_ports.insert((*protocol, node_port)) {
                    let message = format!("an earlier port has the nodePort {protocol} {node_port} too");
                    return invalid(".nodePort", message);
                }
            }
            ports.push(port);
        }
        Ok(ports)
    }

    fn affinity(&self) -> Affinity {
        if self.session_affinity != Some(SessionAffinity::ClientIp) {
            return Affinity::None;
        }
        let config = self.session_affinity_config.clone().unwrap_or_default();
        Affinity::ClientIp(config.client_ip.unwrap_or_default().timeout_seconds.unwrap_or(DEFAULT_TIMEOUT).0)
    }
}

fn is_text(address: &Address, wanted: &str) -> bool {
    matches!(address, Address::Text(text) if **text == *wanted)
}

/// `None` if the ClusterIP is left out.
fn address_of(address: &Address, field: &str, left_out: &mut Reasons) -> Result<Option<IpAddr>, Invalid> {
    match (address, address.usable()) {
        (_, Ok(ip)) => Ok(Some(ip)),
        (Address::Text(text), _) if text.eq_ignore_ascii_case("none") => Err(Invalid::new(
            field,
            format!("{} is not an IP address. For a headless Service, write \"None\" and no address", quoted(text)),
        )),
        (Address::Text(_), Err(message)) => Err(Invalid::new(field, message)),
        (_, Err(message)) => {
            left_out.extend([Invalid::new(field, message)]);
            Ok(None)
        }
    }
}
