//! How a Service is reached from outside of the cluster.

use std::net::IpAddr;

use ipnet::IpNet;
use proxier::model;
use serde::{Deserialize, Deserializer};

use super::{
    Bounded, Invalid,
    scalar::{Address, Range, not_an_address, parse_range, text},
};

/// How many external IPs and how many load-balancer IPs a Service can have. The API has no limit.
pub(super) const MAX_OUTER_IPS: usize = 100;
/// How many ranges of clients a Service can have. The API has no limit.
pub(super) const MAX_SOURCE_RANGES: usize = 1000;
/// The annotation that stood for `spec.loadBalancerSourceRanges` before there was that field.
pub(super) const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// `Cluster` or `Local`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TrafficPolicy(pub(super) model::TrafficPolicy);

impl<'de> Deserialize<'de> for TrafficPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a traffic policy", |name| match name {
            "Cluster" | "" => Ok(Self(model::TrafficPolicy::Cluster)),
            "Local" => Ok(Self(model::TrafficPolicy::Local)),
            _ => Err(format!("{name:?} is not a traffic policy: Cluster or Local")),
        })
    }
}

/// A Service's `status`: what its load balancer says.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    load_balancer: Option<LoadBalancer>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
struct LoadBalancer {
    #[serde(default)]
    ingress: Bounded<Ingress, MAX_OUTER_IPS>,
}

/// An entry without `ip` has a host name only: whatever it resolves to is not known here.
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
            _ => Err(format!("{name:?} is not an ipMode: VIP or Proxy")),
        })
    }
}

impl Status {
    /// The addresses at which packets for the Service arrive as the client sent them. Where `ipMode` is `Proxy` the
    /// load balancer sends them on to a node port or to a pod, and its address is not for the nodes to take.
    pub(super) fn load_balancer_ips(&self) -> Result<Vec<IpAddr>, Invalid> {
        let entries = self.load_balancer.iter().flat_map(|balancer| balancer.ingress.iter()).enumerate();
        let vips = entries.filter_map(|(index, entry)| {
            let ip = entry.ip.as_ref().filter(|ip| **ip != Address::Text("".into()))?;
            let is_vip = entry.ip_mode != Some(IpMode::Proxy);
            is_vip.then(|| (format!("status.loadBalancer.ingress[{index}].ip"), ip))
        });
        distinct_ips(vips)
    }
}

/// `spec.externalIPs`.
pub(super) fn external_ips(entries: &[Address]) -> Result<Vec<IpAddr>, Invalid> {
    let fields = entries.iter().enumerate();
    distinct_ips(fields.map(|(index, entry)| (format!("spec.externalIPs[{index}]"), entry)))
}

fn distinct_ips<'a>(entries: impl Iterator<Item = (String, &'a Address)>) -> Result<Vec<IpAddr>, Invalid> {
    let mut ips = Vec::new();
    for (field, entry) in entries {
        match entry {
            Address::Ip(ip) if ips.contains(ip) => {}
            Address::Ip(ip) => ips.push(*ip),
            Address::Text(text) => return Err(Invalid::new(field, not_an_address(text))),
        }
    }
    Ok(ips)
}

/// `spec.loadBalancerSourceRanges`, or else those of the annotation [`SOURCE_RANGES`].
pub(super) fn source_ranges(spec: &[Range], annotation: Option<&str>) -> Result<Vec<IpNet>, Invalid> {
    let mut ranges: Vec<IpNet> = spec.iter().map(|range| range.0).collect();
    if ranges.is_empty() {
        let invalid = |message: String| {
            Invalid::new("metadata.annotations", format!("annotation {SOURCE_RANGES}: {message}"))
        };
        let text = annotation.unwrap_or_default();
        // Kubernetes takes one that is blank as not set, and of others refuses blank items.
        let items = text.split(',').filter(|_| !text.trim().is_empty());
        ranges = items.map(|item| parse_range(item).map_err(invalid)).collect::<Result<_, _>>()?;
        if ranges.len() > MAX_SOURCE_RANGES {
            return Err(invalid(format!("too many entries: at most {MAX_SOURCE_RANGES} are allowed")));
        }
    }
    let mut distinct = Vec::with_capacity(ranges.len());
    for range in ranges {
        if !distinct.contains(&range) {
            distinct.push(range);
        }
    }
    Ok(distinct)
}
