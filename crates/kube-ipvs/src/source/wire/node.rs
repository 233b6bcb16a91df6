use std::net::IpAddr;

use proxier::model;
use serde::Deserialize;

use super::{Bounded, Invalid, Meta, scalar::not_an_address};

/// A Node (`v1`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Node {
    #[serde(default)]
    metadata: Option<Meta>,
    status: Option<Status>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
struct Status {
    #[serde(default)]
    addresses: Bounded<NodeAddress, 1000>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct NodeAddress {
    r#type: String,
    address: String,
}

impl TryFrom<Node> for model::Node {
    type Error = Invalid;

    fn try_from(Node { metadata, status }: Node) -> Result<Self, Invalid> {
        let name = (**metadata.unwrap_or_default().name()?).into();
        let mut internal_ips = Vec::new();
        for (index, entry) in status.unwrap_or_default().addresses.iter().enumerate() {
            if entry.r#type == "InternalIP" {
                let ip: IpAddr = entry.address.parse().map_err(|_| {
                    Invalid::new(format!("status.addresses[{index}].address"), not_an_address(&entry.address))
                })?;
                internal_ips.push(ip.to_canonical());
            }
        }
        Ok(Self { name, addresses: internal_ips.clone(), internal_ips, zone: None, pod_cidrs: Vec::new() })
    }
}
