use std::{collections::HashSet, sync::Arc};

use proxier::model::{self, Event, Family, ServiceId, SliceId, Weight};
use serde::{Deserialize, Deserializer};

use crate::{
    AnnotationPolicy, Invalid, Kind, Object, Reasons, Remarks, annotations,
    list::Bounded,
    meta::Meta,
    name::{PortName, Subdomain, is_label},
    remarks::quoted,
    scalar::{Address, AnyPort, Protocol, text},
};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The time of the Service or pod change that led to the slice's latest change.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The API's limit for ports of a slice.
pub(crate) const MAX_PORTS: usize = 20_000;

/// An EndpointSlice (`discovery.k8s.io/v1`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointSlice {
    #[serde(default)]
    metadata: Option<Meta>,
    address_type: Option<AddressType>,
    #[serde(default)]
    ports: Bounded<EndpointPort, MAX_PORTS>,
    #[serde(default)]
    endpoints: Bounded<Endpoint, 1000>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AddressType {
    Ip(Family),
    Fqdn,
}

impl<'de> Deserialize<'de> for AddressType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "an address type", |name| match name {
            "IPv4" => Ok(Self::Ip(Family::V4)),
            "IPv6" => Ok(Self::Ip(Family::V6)),
            "FQDN" => Ok(Self::Fqdn),
            _ => Err(format!("{} is not an address type: use IPv4, IPv6 or FQDN", quoted(name))),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct EndpointPort {
    pub(crate) name: Option<PortName>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) port: Option<AnyPort>,
}

impl EndpointPort {
    fn name(&self) -> Arc<str> {
        self.name.clone().map(|name| name.0).unwrap_or_default()
    }

    /// The port, or why it is invalid. `None` if it has no number: that means all ports, which a proxy cannot serve.
    pub(crate) fn to_model(&self) -> Option<Result<model::EndpointPort, String>> {
        let port =
            |port| model::EndpointPort { name: self.name(), protocol: self.protocol.unwrap_or_default().0, port };
        Some(self.port?.usable().map(port))
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    #[serde(default)]
    addresses: Bounded<Address, 100>,
    conditions: Option<Conditions>,
    node_name: Option<Subdomain>,
    hints: Option<Hints>,
}

/// At most 8 of each, as in the API.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hints {
    #[serde(default)]
    for_zones: Bounded<Hint, 8>,
    #[serde(default)]
    for_nodes: Bounded<Hint, 8>,
}

/// The name of a zone or of a Node. The API server accepts names that no zone or Node can have, such as an empty one.
/// Such a hint routes no traffic.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Hint {
    name: Box<str>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

impl EndpointSlice {
    /// Adds parts of the slice that have no effect to `remarks`. An error names the violated rule.
    pub(crate) fn convert(self, policy: &AnnotationPolicy, remarks: &mut Remarks) -> Result<Object, Invalid> {
        let meta = self.metadata.unwrap_or_default();
        let key = meta.key(Kind::EndpointSlice)?;
        let trigger_time = meta.annotation(TRIGGER_TIME).and_then(|time| time.parse().ok());
        let id = SliceId { namespace: key.namespace.clone(), name: key.name.clone() };
        let object = Object { trigger_time, ..Object::new(key) };
        let Some(address_type) = self.address_type else {
            return Err(Invalid::new("addressType", "is missing: use IPv4, IPv6 or FQDN"));
        };
        let AddressType::Ip(family) = address_type else { return Ok(object) };
        let service = meta.label(SERVICE_NAME).unwrap_or_default();
        if service.is_empty() {
            return Ok(object);
        }
        if !is_label(service) {
            let message = format!("label {SERVICE_NAME}: {} is not the name of a Service", quoted(service));
            remarks.left_out.extend([Invalid::new("metadata.labels", message)]);
            return Ok(object);
        }
        if meta.is_foreign() {
            return Ok(object);
        }
        let weight = annotations::weight(&meta, policy, &mut remarks.ignored);
        let left_out = &mut remarks.left_out;
        let ports = ports(&self.ports, left_out)?;
        let endpoints = self.endpoints.iter().enumerate();
        let endpoints = endpoints.filter_map(|(index, endpoint)| endpoint.to_model(index, family, weight, left_out));
        let endpoints = endpoints.collect();
        let service = ServiceId { namespace: id.namespace.clone(), name: service.into() };
        let slice = model::EndpointSlice { id, service, family, ports, endpoints };
        Ok(Object { event: Some(Event::SliceApplied(slice)), ..object })
    }
}

fn ports(entries: &[EndpointPort], left_out: &mut Reasons) -> Result<Vec<model::EndpointPort>, Invalid> {
    let mut names = HashSet::with_capacity(entries.len());
    let mut ports = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let name = entry.name();
        if !names.insert(name.clone()) {
            let message = format!("an earlier port has the name {name:?} too");
            return Err(Invalid::new(format!("ports[{index}]"), message));
        }
        match entry.to_model() {
            Some(Ok(port)) => ports.push(port),
            Some(Err(message)) => {
                left_out.extend([Invalid::new(format!("ports[{index}].port"), message)]);
            }
            None => {}
        }
    }
    Ok(ports)
}

impl Endpoint {
    /// Uses the first address, as kube-proxy does: the API does not define which of several addresses to use. `None` if
    /// that address is left out.
    fn to_model(
        &self,
        index: usize,
        family: Family,
        weight: Weight,
        left_out: &mut Reasons,
    ) -> Option<model::Endpoint> {
        let of_family = |address: &Address| match address.usable() {
            Ok(ip) if Family::of(ip) != family => {
                Err(format!("{ip} is not an {family} address, as the slice's addressType requires"))
            }
            outcome => outcome,
        };
        let mut addresses = self.addresses.iter().enumerate().map(|(position, address)| {
            of_family(address).map_err(|message| {
                left_out.extend([Invalid::new(format!("endpoints[{index}].addresses[{position}]"), message)]);
            })
        });
        let first = addresses.next();
        addresses.for_each(drop);
        let Some(address) = first else {
            let field = format!("endpoints[{index}].addresses");
            left_out.extend([Invalid::new(field, "an endpoint needs an address")]);
            return None;
        };
        let address = address.ok()?;
        // The API defines that unknown conditions count as good.
        let conditions = self.conditions.unwrap_or_default();
        Some(model::Endpoint {
            address,
            conditions: model::Conditions {
                ready: conditions.ready.unwrap_or(true),
                serving: conditions.serving.unwrap_or(true),
                terminating: conditions.terminating.unwrap_or(false),
            },
            node: self.node_name.clone().map(|name| name.0),
            hints: self.hints.as_ref().map(Hints::to_model).unwrap_or_default(),
            weight,
        })
    }
}

impl Hints {
    fn to_model(&self) -> model::Hints {
        model::Hints::new(
            self.for_zones.iter().map(|hint| (&*hint.name).into()).collect(),
            self.for_nodes.iter().map(|hint| (&*hint.name).into()).collect(),
        )
    }
}
