//! The annotations `kube-ipvs.io/…`, with which users choose options that Kubernetes has no field for.
//!
//! An annotation that is invalid, or that the policy does not allow, counts as absent. The remarks have the reason.

use std::{collections::BTreeMap, fmt::Display, sync::Arc};

use proxier::model::{Forwarding, HashOn, PortNumber, ServiceOptions, UdpScheduling, Weight};

use crate::{
    AnnotationPolicy, Invalid, Reasons,
    meta::Meta,
    name::is_subdomain,
    parse_go_duration, parse_scheduler,
    remarks::{cut, quoted},
};

const PREFIX: &str = "kube-ipvs.io/";
/// The only annotation of EndpointSlices and of Endpoints.
pub(crate) const WEIGHT: &str = "weight";
const MAX_NODE_WEIGHTS: usize = 1000;
/// The longest value that is a word or a duration.
const MAX_NAME: usize = 64;

/// The options that a Service chooses, if any. Ignored annotations are added to `ignored`.
pub(crate) fn options(meta: &Meta, policy: &AnnotationPolicy, ignored: &mut Reasons) -> Option<Box<ServiceOptions>> {
    let mut options: Option<Box<ServiceOptions>> = None;
    for (name, value) in meta.annotations_of(PREFIX) {
        let outcome = choose(options.get_or_insert_default(), name, value.trim());
        ignored.extend(outcome.err().map(|message| invalid(name, message)));
    }
    if let Some(options) = &mut options {
        policy.restrict(options, ignored);
    }
    options.filter(|options| **options != ServiceOptions::DEFAULT)
}

/// The weight that a slice gives its endpoints. Ignored annotations are added to `ignored`.
pub(crate) fn weight(meta: &Meta, policy: &AnnotationPolicy, ignored: &mut Reasons) -> Weight {
    let mut weight = 1;
    for (name, value) in meta.annotations_of(PREFIX) {
        let outcome = match name {
            WEIGHT => parse_weight(value.trim()).map(|parsed| weight = parsed),
            _ => Err(format!("is nothing that endpoints can have: only {PREFIX}{WEIGHT}")),
        };
        ignored.extend(outcome.err().map(|message| invalid(name, message)));
    }
    policy.restrict_weight(&mut weight, ignored);
    weight
}

pub(crate) fn invalid(name: &str, message: impl Display) -> Invalid {
    let name = cut(name);
    Invalid::new("metadata.annotations", format!("annotation {PREFIX}{name}: {message}; it is ignored"))
}

fn choose(options: &mut ServiceOptions, name: &str, value: &str) -> Result<(), String> {
    match name {
        "scheduler" if value.is_empty() => return Err("names no scheduler".into()),
        "scheduler" => options.scheduler = Some(parse_scheduler(short(value)?)?),
        "hash-on" => {
            const WORDS: [(&str, HashOn); 2] =
                [("address", HashOn::Address), ("address-and-port", HashOn::AddressAndPort)];
            options.hash_on = Some(one_of(&WORDS, value)?);
        }
        "hash-fallback" => options.hash_fallback = Some(one_of(&[("true", true), ("false", false)], value)?),
        "udp-scheduling" => {
            const WORDS: [(&str, UdpScheduling); 3] = [
                ("flow", UdpScheduling::Flow),
                ("datagram", UdpScheduling::Datagram),
                ("one-way-datagram", UdpScheduling::OneWayDatagram),
            ];
            options.udp_scheduling = one_of(&WORDS, value)?;
        }
        "forwarding" => options.forwarding = parse_forwarding(value)?,
        "local-endpoint-weight" => options.local_weight = parse_weight(value)?,
        "node-weights" => options.node_weights = parse_node_weights(value)?,
        "max-drain-time" => options.max_drain_time = Some(parse_go_duration(short(value)?)?),
        WEIGHT => {
            return Err("is for EndpointSlices and Endpoints; Services have \
                        local-endpoint-weight and node-weights"
                .into());
        }
        _ => {
            return Err("is nothing that a Service can have: allowed are scheduler, hash-on, hash-fallback, \
                        udp-scheduling, forwarding, local-endpoint-weight, node-weights and max-drain-time"
                .into());
        }
    }
    Ok(())
}

/// A value that is short enough for parsers to quote it.
fn short(value: &str) -> Result<&str, String> {
    if value.len() > MAX_NAME { Err(format!("{} is too long", quoted(value))) } else { Ok(value) }
}

fn one_of<T: Copy>(words: &[(&str, T)], value: &str) -> Result<T, String> {
    words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("{} is none of {}", quoted(value), allowed.join(", "))
    })
}

fn parse_forwarding(value: &str) -> Result<Forwarding, String> {
    const WORDS: [(&str, Forwarding); 4] = [
        ("masq", Forwarding::Masq),
        ("direct", Forwarding::Direct),
        ("ipip", Forwarding::Ipip),
        ("gre", Forwarding::Gre),
    ];
    let gue = || value.strip_prefix("gue:")?.parse::<PortNumber>().ok().map(Forwarding::Gue);
    gue().map_or_else(|| one_of(&WORDS, value).map_err(|error| format!("{error}, gue:PORT such as gue:6080")), Ok)
}

fn parse_weight(value: &str) -> Result<Weight, String> {
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    let weight = value.parse().ok().filter(|_| is_number);
    weight.ok_or_else(|| format!("{} is not a weight: 0 to 65535", quoted(value)))
}

/// Parses `big-1=4, big-2=4`.
fn parse_node_weights(value: &str) -> Result<BTreeMap<Arc<str>, Weight>, String> {
    let mut weights = BTreeMap::new();
    for entry in value.split(',') {
        let (node, weight) = entry
            .split_once('=')
            .ok_or_else(|| format!("{} is not NODE=WEIGHT, as in \"node-1=5,node-2=1\"", quoted(entry)))?;
        let node = node.trim();
        if !is_subdomain(node) {
            return Err(format!("{} is not the name of a Node", quoted(node)));
        }
        if weights.len() == MAX_NODE_WEIGHTS {
            return Err(format!("too many entries: at most {MAX_NODE_WEIGHTS} are allowed"));
        }
        if weights.insert(node.into(), parse_weight(weight.trim())?).is_some() {
            return Err(format!("Node {} has two weights", cut(node)));
        }
    }
    Ok(weights)
}
