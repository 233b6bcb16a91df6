use std::collections::BTreeSet;

use proxier::model::{self, Event};
use serde::Deserialize;

use crate::{
    Invalid, Kind, Object, Remarks,
    list::Bounded,
    meta::Meta,
    scalar::{Range, not_an_address, one_of_each_family, parse_ip},
};

const ZONE: &str = "topology.kubernetes.io/zone";

/// The cluster autoscaler sets this taint on Nodes that it is about to delete.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
/// Limits for taints and addresses of a Node. An object of 1.5 MB has no room for more. The API has no limit, and an
/// agent can publish all VIPs of a large cluster.
const MAX_TAINTS: usize = 50_000;
const MAX_ADDRESSES: usize = 50_000;

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Node {
    #[serde(default)]
    metadata: Option<Meta>,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<Range>,
    #[serde(default, rename = "podCIDRs")]
    pod_cidrs: Bounded<Range, 2>,
    #[serde(default)]
    taints: Bounded<Taint, MAX_TAINTS>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Taint {
    #[serde(default)]
    key: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
struct Status {
    #[serde(default)]
    addresses: Bounded<NodeAddress, MAX_ADDRESSES>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct NodeAddress {
    r#type: String,
    address: String,
}

impl Node {
    /// Adds invalid addresses to `remarks`: the API server does not validate them. An error names the violated rule.
    pub(crate) fn convert(self, remarks: &mut Remarks) -> Result<Object, Invalid> {
        let Self { metadata, spec, status } = self;
        let meta = metadata.unwrap_or_default();
        let key = meta.key(Kind::Node)?;
        let mut internal_ips = Vec::new();
        let mut addresses = Vec::new();
        let mut seen = BTreeSet::new();
        for (index, entry) in status.unwrap_or_default().addresses.iter().enumerate() {
            // Addresses of other types are names.
            if !matches!(&*entry.r#type, "InternalIP" | "ExternalIP") {
                continue;
            }
            let Some(ip) = parse_ip(&entry.address) else {
                let field = format!("status.addresses[{index}].address");
                remarks.left_out.extend([Invalid::new(field, not_an_address(&entry.address))]);
                continue;
            };
            let ip = ip.to_canonical();
            if entry.r#type == "InternalIP" {
                internal_ips.push(ip);
            }
            if seen.insert(ip) {
                addresses.push(ip);
            }
        }
        // An empty name means no zone.
        let zone = meta.label(ZONE).filter(|zone| !zone.is_empty()).map(Into::into);
        let spec = spec.unwrap_or_default();
        let leaving = meta.is_being_deleted() || spec.taints.iter().any(|taint| taint.key == TO_BE_DELETED);
        let (name, pod_cidrs) = ((*key.name).into(), spec.pod_cidrs()?);
        let node = model::Node { name, internal_ips, addresses, zone, pod_cidrs, leaving };
        Ok(Object { event: Some(Event::NodeApplied(node)), ..Object::new(key) })
    }
}

impl Spec {
    /// `podCIDR` is the older field, for one family only.
    fn pod_cidrs(&self) -> Result<Vec<ipnet::IpNet>, Invalid> {
        let ranges = one_of_each_family(&self.pod_cidrs, "spec.podCIDRs")?;
        Ok(if ranges.is_empty() { self.pod_cidr.iter().map(|range| range.0).collect() } else { ranges })
    }
}
