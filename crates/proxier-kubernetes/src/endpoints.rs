use std::{net::IpAddr, sync::Arc};

use proxier::model::{self, Conditions, Family, ServiceId, SliceId, Weight};
use serde::Deserialize;

use crate::{
    AnnotationPolicy, Invalid, Kind, Object, Reasons, Remarks, annotations,
    endpoint_slice::{EndpointPort, MAX_PORTS},
    list::{Bounded, FirstOf},
    meta::Meta,
    name::Subdomain,
    scalar::Address,
};

/// How many addresses of a subset Kubernetes mirrors.
const MAX_MIRRORED: usize = 1000;

/// Endpoints (`v1`), the predecessor of EndpointSlices.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Endpoints {
    #[serde(default)]
    metadata: Option<Meta>,
    #[serde(default)]
    subsets: Bounded<Subset, 1000>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subset {
    #[serde(default)]
    addresses: FirstOf<EndpointAddress, MAX_MIRRORED>,
    #[serde(default)]
    not_ready_addresses: FirstOf<EndpointAddress, MAX_MIRRORED>,
    #[serde(default)]
    ports: Bounded<EndpointPort, MAX_PORTS>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointAddress {
    ip: Address,
    node_name: Option<Subdomain>,
}

impl Endpoints {
    /// Converts Endpoints into slices. Parts that have no effect are added to `remarks`. An error names the violated
    /// rule.
    pub(crate) fn convert(self, policy: &AnnotationPolicy, remarks: &mut Remarks) -> Result<Object, Invalid> {
        let meta = self.metadata.unwrap_or_default();
        let mut object = Object::new(meta.key(Kind::Endpoints)?);
        // Endpoints of a leader-election lock have no Service, even if a Service has their name.
        if !is_mirrored(&meta) {
            return Ok(object);
        }
        let service = ServiceId { namespace: object.key.namespace.clone(), name: object.key.name.clone() };
        let weight = annotations::weight(&meta, policy, &mut remarks.ignored);
        for (index, subset) in self.subsets.iter().enumerate() {
            let endpoints = subset.endpoints(index, weight, &mut remarks.ignored)?;
            let ports = subset.ports(index)?;
            for family in Family::ALL {
                let of_family = endpoints.iter().filter(|endpoint| Family::of(endpoint.address) == family);
                let endpoints: Vec<_> = of_family.cloned().collect();
                if !endpoints.is_empty() {
                    let id = mirror_id(&service, index, family);
                    let (service, ports) = (service.clone(), ports.clone());
                    object.mirrored.push(model::EndpointSlice { id, service, family, ports, endpoints });
                }
            }
        }
        Ok(object)
    }
}

/// The name of a mirrored slice. No real slice has a colon in its name.
fn mirror_id(service: &ServiceId, subset: usize, family: Family) -> SliceId {
    let family = if family == Family::V4 { "ipv4" } else { "ipv6" };
    let name = format!("{}:endpoints-{subset}-{family}", service.name);
    SliceId { namespace: service.namespace.clone(), name: name.into() }
}

/// Whether Kubernetes mirrors these Endpoints if their Service allows it. Mirroring would copy foreign labels to the
/// slice, and these labels exclude the slice from this proxy.
fn is_mirrored(meta: &Meta) -> bool {
    meta.label("endpointslice.kubernetes.io/skip-mirror") != Some("true")
        && meta.annotation("control-plane.alpha.kubernetes.io/leader").is_none()
        && !meta.is_foreign()
}

impl Subset {
    /// The first [`MAX_MIRRORED`] addresses, the ready ones first.
    fn endpoints(&self, index: usize, weight: Weight, ignored: &mut Reasons) -> Result<Vec<model::Endpoint>, Invalid> {
        let lists = [
            (&self.addresses, "addresses", Conditions::READY),
            (&self.not_ready_addresses, "notReadyAddresses", Conditions::NOT_READY),
        ];
        let mut endpoints: Vec<model::Endpoint> = Vec::new();
        let mut left_out = 0;
        for (list, field, conditions) in lists {
            left_out += list.more;
            for (position, entry) in list.entries.iter().enumerate() {
                let address = entry.address(|| format!("subsets[{index}].{field}[{position}].ip"))?;
                if endpoints.len() == MAX_MIRRORED {
                    left_out += 1;
                } else {
                    let node: Option<Arc<str>> = entry.node_name.clone().map(|name| name.0);
                    endpoints.push(model::Endpoint {
                        address,
                        conditions,
                        node,
                        hints: model::Hints::default(),
                        weight,
                    });
                }
            }
        }
        // Sorted by address, so that the search for duplicates stays cheap. The order of endpoints has no meaning. A
        // ready endpoint comes before its not-ready duplicate and wins.
        endpoints.sort_by_key(|endpoint| endpoint.address);
        endpoints.dedup_by_key(|endpoint| endpoint.address);
        if left_out > 0 {
            let message = format!("more than {MAX_MIRRORED} addresses: {left_out} are left out, as in Kubernetes");
            ignored.extend([Invalid::new(format!("subsets[{index}]"), message)]);
        }
        Ok(endpoints)
    }

    fn ports(&self, index: usize) -> Result<Vec<model::EndpointPort>, Invalid> {
        let port = |(position, port): (usize, &EndpointPort)| {
            let port = port.to_model().unwrap_or_else(|| Err("is missing".into()));
            port.map_err(|message| Invalid::new(format!("subsets[{index}].ports[{position}].port"), message))
        };
        self.ports.iter().enumerate().map(port).collect()
    }
}

impl EndpointAddress {
    fn address(&self, field: impl FnOnce() -> String) -> Result<IpAddr, Invalid> {
        self.ip.usable().map_err(|message| Invalid::new(field(), message))
    }
}
