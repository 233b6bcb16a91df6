use std::{net::IpAddr, sync::Arc};

use proxier::model::{self, Conditions, Family, ServiceId, SliceId, Weight};
use serde::Deserialize;

use super::{
    Address, Bounded, FirstOf, HEADLESS, Invalid, Meta, SERVICE_PROXY_NAME, Subdomain, annotations,
    endpoint_slice::EndpointPort,
};

/// How many addresses of a subset are mirrored, as in Kubernetes.
pub const MAX_MIRRORED: usize = 1000;

/// Endpoints (`v1`), the older form of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Endpoints {
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
    ports: Bounded<EndpointPort, 100>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointAddress {
    ip: Address,
    node_name: Option<Subdomain>,
}

/// What Endpoints say, in the shape of slices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvertedEndpoints {
    /// Namespace and name, those of the Service.
    pub service: ServiceId,
    /// What Kubernetes' mirroring controller would make of them if the Service wants them.
    pub slices: Vec<model::EndpointSlice>,
    /// The subsets with more than [`MAX_MIRRORED`] addresses: the rest is left out.
    pub cut: Vec<Invalid>,
}

impl Endpoints {
    /// The annotations that cannot be followed, and are not: what to report.
    pub fn ignored_annotations(&self) -> Vec<Invalid> {
        self.metadata.as_ref().map(|meta| annotations::weight(meta).1).unwrap_or_default()
    }
}

impl TryFrom<Endpoints> for ConvertedEndpoints {
    type Error = Invalid;

    fn try_from(Endpoints { metadata, subsets }: Endpoints) -> Result<Self, Invalid> {
        let meta = metadata.unwrap_or_default();
        let name = meta.label_name()?;
        let service = ServiceId { namespace: meta.namespace(), name: name.0.clone() };
        let (weight, _) = annotations::weight(&meta);
        let mut slices = Vec::new();
        let mut cut = Vec::new();
        for (index, subset) in subsets.iter().enumerate() {
            let endpoints = subset.endpoints(index, weight, &mut cut)?;
            let ports = subset.ports(index)?;
            for family in Family::ALL {
                let of_family = endpoints.iter().filter(|endpoint| Family::of(endpoint.address) == family);
                let endpoints: Vec<_> = of_family.cloned().collect();
                if !endpoints.is_empty() {
                    let id = mirror_id(&service, index, family);
                    let (service, ports) = (service.clone(), ports.clone());
                    slices.push(model::EndpointSlice { id, service, family, ports, endpoints });
                }
            }
        }
        if !is_mirrored(&meta) {
            slices.clear();
        }
        Ok(Self { service, slices, cut })
    }
}

/// Names the slice that stands for a part of some Endpoints. No real slice has a colon in its name.
fn mirror_id(service: &ServiceId, subset: usize, family: Family) -> SliceId {
    let family = if family == Family::V4 { "ipv4" } else { "ipv6" };
    let name = format!("{}:endpoints-{subset}-{family}", service.name);
    SliceId { namespace: service.namespace.clone(), name: name.into() }
}

/// What keeps Endpoints from being mirrored whatever their Service says. The last two labels would be copied to
/// the slice, where they keep every proxy like this one away.
fn is_mirrored(meta: &Meta) -> bool {
    meta.label("endpointslice.kubernetes.io/skip-mirror") != Some("true")
        && meta.annotation("control-plane.alpha.kubernetes.io/leader").is_none()
        && meta.label(HEADLESS).is_none()
        && meta.label(SERVICE_PROXY_NAME).is_none()
}

impl Subset {
    /// The first [`MAX_MIRRORED`] addresses, the ready ones before the others.
    fn endpoints(
        &self,
        index: usize,
        weight: Weight,
        cut: &mut Vec<Invalid>,
    ) -> Result<Vec<model::Endpoint>, Invalid> {
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
        // Sorted by address, so that looking for one that is listed twice stays cheap. The order of endpoints
        // means nothing; a ready one stands before its not-ready double and wins.
        endpoints.sort_by_key(|endpoint| endpoint.address);
        endpoints.dedup_by_key(|endpoint| endpoint.address);
        if left_out > 0 {
            let message =
                format!("more than {MAX_MIRRORED} addresses: {left_out} are left out, as in Kubernetes");
            cut.push(Invalid::new(format!("subsets[{index}]"), message));
        }
        Ok(endpoints)
    }

    fn ports(&self, index: usize) -> Result<Vec<model::EndpointPort>, Invalid> {
        let port = |(position, port): (usize, &EndpointPort)| {
            let missing = || Invalid::new(format!("subsets[{index}].ports[{position}].port"), "is missing");
            port.to_model().ok_or_else(missing)
        };
        self.ports.iter().enumerate().map(port).collect()
    }
}

impl EndpointAddress {
    fn address(&self, field: impl FnOnce() -> String) -> Result<IpAddr, Invalid> {
        self.ip.usable().map_err(|message| Invalid::new(field(), message))
    }
}
