//! The addresses of a Service outside of the cluster, and the clients that can use them.

use std::{collections::HashSet, net::IpAddr};

use ipnet::IpNet;
use proxier::model;
use serde::{Deserialize, Deserializer};

use crate::{
    Invalid, Reasons,
    list::FirstOf,
    remarks::quoted,
    scalar::{Address, Range, parse_range, text},
};

/// Limit for external IPs and for load-balancer IPs of a Service. The API has no limit.
pub(crate) const MAX_OUTER_IPS: usize = 100;
/// Limit for source ranges of a Service. The API has no limit.
pub(crate) const MAX_SOURCE_RANGES: usize = 1000;
/// The predecessor of the field `spec.loadBalancerSourceRanges`.
pub(crate) const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TrafficPolicy(pub(crate) model::TrafficPolicy);

impl<'de> Deserialize<'de> for TrafficPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a traffic policy", |name| match name {
            "Cluster" | "" => Ok(Self(model::TrafficPolicy::Cluster)),
            "Local" => Ok(Self(model::TrafficPolicy::Local)),
            _ => Err(format!("{} is not a traffic policy: use Cluster or Local", quoted(name))),
        })
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    load_balancer: Option<LoadBalancer>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
struct LoadBalancer {
    #[serde(default)]
    ingress: FirstOf<Ingress, MAX_OUTER_IPS>,
}

/// An entry without `ip` has only a host name, which this crate does not resolve.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ingress {
    ip: Option<Address>,
    ip_mode: Option<IpMode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IpMode {
    Vip,
    Proxy,
}

impl<'de> Deserialize<'de> for IpMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "an ipMode", |name| match name {
            "VIP" => Ok(Self::Vip),
            "Proxy" => Ok(Self::Proxy),
            _ => Err(format!("{} is not an ipMode: use VIP or Proxy", quoted(name))),
        })
    }
}

impl Status {
    /// The addresses at which packets arrive as the client sent them. With `ipMode` `Proxy` the load balancer forwards
    /// packets to a node port or a pod, so the nodes must not claim its address.
    pub(crate) fn load_balancer_ips(self, left_out: &mut Reasons) -> Vec<IpAddr> {
        let ingress = self.load_balancer.unwrap_or_default().ingress;
        left_out.extend(ingress.cut("status.loadBalancer.ingress"));
        let vips = ingress.entries.iter().enumerate().filter_map(|(index, entry)| {
            let ip = entry.ip.as_ref().filter(|ip| **ip != Address::Text("".into()))?;
            let is_vip = entry.ip_mode != Some(IpMode::Proxy);
            is_vip.then(|| (format!("status.loadBalancer.ingress[{index}].ip"), ip))
        });
        distinct_ips(vips, left_out)
    }
}

pub(crate) fn external_ips(list: &FirstOf<Address, MAX_OUTER_IPS>, left_out: &mut Reasons) -> Vec<IpAddr> {
    left_out.extend(list.cut("spec.externalIPs"));
    let fields = list.entries.iter().enumerate();
    distinct_ips(fields.map(|(index, entry)| (format!("spec.externalIPs[{index}]"), entry)), left_out)
}

fn distinct_ips<'a>(entries: impl Iterator<Item = (String, &'a Address)>, left_out: &mut Reasons) -> Vec<IpAddr> {
    let mut ips = Vec::new();
    for (field, entry) in entries {
        match entry.usable() {
            Ok(ip) if ips.contains(&ip) => {}
            Ok(ip) => ips.push(ip),
            Err(message) => left_out.extend([Invalid::new(field, message)]),
        }
    }
    ips
}

/// `spec.loadBalancerSourceRanges`, or else the ranges of the annotation [`SOURCE_RANGES`]. A range that is left out
/// only lets fewer clients in.
pub(crate) fn source_ranges(
    spec: &FirstOf<Range, MAX_SOURCE_RANGES>,
    annotation: Option<&str>,
    left_out: &mut Reasons,
) -> Result<Vec<IpNet>, Invalid> {
    left_out.extend(spec.cut("spec.loadBalancerSourceRanges"));
    let mut ranges: Vec<IpNet> = spec.entries.iter().map(|range| range.0).collect();
    if ranges.is_empty() {
        let invalid =
            |message: String| Invalid::new("metadata.annotations", format!("annotation {SOURCE_RANGES}: {message}"));
        let text = annotation.unwrap_or_default();
        // Kubernetes treats a blank annotation as unset, and rejects blank items in others.
        let items = text.split(',').filter(|_| !text.trim().is_empty());
        ranges = items.map(|item| parse_range(item).map_err(invalid)).collect::<Result<_, _>>()?;
        if ranges.len() > MAX_SOURCE_RANGES {
            ranges.truncate(MAX_SOURCE_RANGES);
            left_out.extend([invalid(format!("too many entries: at most {MAX_SOURCE_RANGES} are allowed"))]);
        }
    }
    let mut seen = HashSet::new();
    ranges.retain(|range| seen.insert(*range));
    Ok(ranges)
}
