//! The annotations `kube-ipvs.io/…`, with which users choose options that Kubernetes has no field for.
//!
//! An annotation that is invalid, or that the policy does not allow, counts as absent. The remarks have the reason.

use std::{collections::BTreeMap, fmt::Display, sync::Arc};

use ipvs_netlink::Scheduler;
use proxier::model::{Forwarding, HashOn, PortNumber, ServiceOptions, UdpScheduling, Weight};

use crate::{
    AnnotationPolicy, Annotations, Invalid, Reasons,
    meta::Meta,
    name::is_subdomain,
    parse_scheduler,
    remarks::{cut, quoted},
};

const PREFIX: &str = "kube-ipvs.io/";
/// The only annotation of EndpointSlices and of Endpoints.
const WEIGHT: &str = "weight";
const MAX_NODE_WEIGHTS: usize = 1000;
/// The longest value that is a word or a duration.
const MAX_NAME: usize = 64;
/// The schedulers that any Service can choose: kube-proxy's own examples, whose modules the kernel loads without harm.
const SAFE_SCHEDULERS: [Scheduler; 6] =
    [Scheduler::RR, Scheduler::WRR, Scheduler::LC, Scheduler::WLC, Scheduler::SH, Scheduler::MH];

/// The options that a Service chooses, if any. Ignored annotations are added to `ignored`.
pub(crate) fn options(meta: &Meta, policy: &AnnotationPolicy, ignored: &mut Reasons) -> Option<Box<ServiceOptions>> {
    let mut options: Option<Box<ServiceOptions>> = None;
    for (name, value) in meta.annotations_of(PREFIX) {
        let outcome = choose(options.get_or_insert_default(), policy, name, value.trim());
        ignored.extend(outcome.err().map(|message| invalid(name, message)));
    }
    options.filter(|options| **options != ServiceOptions::DEFAULT)
}

/// The weight that a slice gives its endpoints. Ignored annotations are added to `ignored`.
pub(crate) fn weight(meta: &Meta, policy: &AnnotationPolicy, ignored: &mut Reasons) -> Weight {
    let mut weight = 1;
    for (name, value) in meta.annotations_of(PREFIX) {
        let outcome = match name {
            WEIGHT => parse_weight(value.trim()).and_then(|parsed| policy.set(&mut weight, parsed, Annotations::Safe)),
            _ => Err(format!("is unknown: endpoints can have only {PREFIX}{WEIGHT}")),
        };
        ignored.extend(outcome.err().map(|message| invalid(name, message)));
    }
    weight
}

fn invalid(name: &str, message: impl Display) -> Invalid {
    let name = cut(name);
    Invalid::new("metadata.annotations", format!("annotation {PREFIX}{name}: {message}; it is ignored"))
}

/// Sets the option that the annotation chooses. `Annotations` is the least value of `--annotations` that allows it.
fn choose(options: &mut ServiceOptions, policy: &AnnotationPolicy, name: &str, value: &str) -> Result<(), String> {
    match name {
        "scheduler" if value.is_empty() => Err("is empty: name a scheduler".into()),
        "scheduler" => {
            let scheduler = parse_scheduler(short(value)?)?;
            let needed = if SAFE_SCHEDULERS.contains(&scheduler) { Annotations::Safe } else { Annotations::All };
            policy.set(&mut options.scheduler, Some(scheduler), needed)
        }
        "hash-on" => {
            const WORDS: [(&str, HashOn); 2] =
                [("address", HashOn::Address), ("address-and-port", HashOn::AddressAndPort)];
            policy.set(&mut options.hash_on, Some(one_of(&WORDS, value)?), Annotations::Safe)
        }
        "hash-fallback" => {
            let fallback = one_of(&[("true", true), ("false", false)], value)?;
            policy.set(&mut options.hash_fallback, Some(fallback), Annotations::Safe)
        }
        "udp-scheduling" => {
            const WORDS: [(&str, UdpScheduling); 3] = [
                ("flow", UdpScheduling::Flow),
                ("datagram", UdpScheduling::Datagram),
                ("one-way-datagram", UdpScheduling::OneWayDatagram),
            ];
            policy.set(&mut options.udp_scheduling, one_of(&WORDS, value)?, Annotations::All)
        }
        "forwarding" => policy.set(&mut options.forwarding, parse_forwarding(value)?, Annotations::All),
        "local-endpoint-weight" => policy.set(&mut options.local_weight, parse_weight(value)?, Annotations::Safe),
        "node-weights" => policy.set(&mut options.node_weights, parse_node_weights(value)?, Annotations::Safe),
        "max-drain-time" => {
            let time = policy.capped(short(value)?.parse()?)?;
            policy.set(&mut options.max_drain_time, Some(time), Annotations::Safe)
        }
        WEIGHT => Err("is for EndpointSlices and Endpoints: in a Service, use local-endpoint-weight or \
                       node-weights"
            .into()),
        _ => Err("is unknown: a Service can have scheduler, hash-on, hash-fallback, udp-scheduling, forwarding, \
                  local-endpoint-weight, node-weights and max-drain-time"
            .into()),
    }
}

/// A value that is short enough for parsers to quote it.
fn short(value: &str) -> Result<&str, String> {
    if value.len() > MAX_NAME { Err(format!("{} is too long", quoted(value))) } else { Ok(value) }
}

fn one_of<T: Copy>(words: &[(&str, T)], value: &str) -> Result<T, String> {
    words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("{} is not one of {}", quoted(value), allowed.join(", "))
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
    gue().map_or_else(|| one_of(&WORDS, value).map_err(|error| format!("{error}, or gue:PORT such as gue:6080")), Ok)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::expect;
    use proxier::model::Event;
    use serde_json::json;

    use super::*;
    use crate::{Annotations, Kind, Object};

    /// The options that a Service with only this annotation gets, or why it is ignored. The drain cap is a day.
    fn outcome(annotations: Annotations, line: &str) -> String {
        let policy = AnnotationPolicy { annotations, drain_cap: Duration::from_secs(24 * 3600) };
        let (name, value) = line.split_once(':').unwrap();
        let key = format!("{PREFIX}{name}");
        let metadata = json!({"name": "web", "annotations": { key: value }});
        let service = json!({"metadata": metadata, "spec": {"ports": [{"port": 80}]}});
        let (object, remarks) = Object::read(Kind::Service, &service.to_string(), &policy).unwrap();
        let Some(Event::ServiceApplied(service)) = object.event else { unreachable!() };
        let ignored: String = remarks.into_messages().map(|remark| remark.message).collect();
        match ignored.strip_prefix("annotation kube-ipvs.io/").and_then(|reason| reason.strip_suffix("; it is ignored"))
        {
            Some(reason) => format!("ignored: {reason}"),
            None => format!("{name}: {}", chosen(service.options())),
        }
    }

    fn outcomes(annotations: Annotations, lines: &str) -> String {
        trimmed(lines).map(|line| outcome(annotations, line) + "\n").collect()
    }

    fn trimmed(lines: &str) -> impl Iterator<Item = &str> {
        lines.trim().lines().map(str::trim)
    }

    /// The fields that differ from the default.
    fn chosen(options: &ServiceOptions) -> String {
        let default = format!("{:?}", ServiceOptions::DEFAULT);
        let default: Vec<&str> = default.split_inclusive(", ").collect();
        let all = format!("{options:?}");
        let chosen: String = all.split_inclusive(", ").filter(|field| !default.contains(field)).collect();
        let chosen = chosen.strip_suffix(" }").or(chosen.strip_suffix(", ")).unwrap_or("the default");
        chosen.trim_start_matches("ServiceOptions { ").to_owned()
    }

    const VALID: &str = "
        scheduler: rr
        scheduler: wrr
        scheduler: lc
        scheduler: wlc
        scheduler: sh
        scheduler: mh
        scheduler: lblc
        scheduler: lblcr
        scheduler: dh
        scheduler: sed
        scheduler: nq
        scheduler: fo
        scheduler: ovf
        scheduler: twos
        hash-on: address
        hash-on: address-and-port
        hash-fallback: true
        hash-fallback: false
        udp-scheduling: flow
        udp-scheduling: datagram
        udp-scheduling: one-way-datagram
        forwarding: masq
        forwarding: direct
        forwarding: ipip
        forwarding: gre
        forwarding: gue:6080
        local-endpoint-weight: 1
        local-endpoint-weight: 10
        node-weights: big-1=4, big-2=65535,small.example.com = 0
        max-drain-time: 0s
        max-drain-time: 1m30s
        max-drain-time: 24h
        max-drain-time: 48h
    ";

    #[test]
    fn valid_value_is_chosen_if_the_policy_allows_it() {
        expect![[r#"
            scheduler: scheduler: Some(Scheduler("rr"))
            scheduler: scheduler: Some(Scheduler("wrr"))
            scheduler: scheduler: Some(Scheduler("lc"))
            scheduler: scheduler: Some(Scheduler("wlc"))
            scheduler: scheduler: Some(Scheduler("sh"))
            scheduler: scheduler: Some(Scheduler("mh"))
            scheduler: scheduler: Some(Scheduler("lblc"))
            scheduler: scheduler: Some(Scheduler("lblcr"))
            scheduler: scheduler: Some(Scheduler("dh"))
            scheduler: scheduler: Some(Scheduler("sed"))
            scheduler: scheduler: Some(Scheduler("nq"))
            scheduler: scheduler: Some(Scheduler("fo"))
            scheduler: scheduler: Some(Scheduler("ovf"))
            scheduler: scheduler: Some(Scheduler("twos"))
            hash-on: hash_on: Some(Address)
            hash-on: hash_on: Some(AddressAndPort)
            hash-fallback: hash_fallback: Some(true)
            hash-fallback: hash_fallback: Some(false)
            udp-scheduling: the default
            udp-scheduling: udp_scheduling: Datagram
            udp-scheduling: udp_scheduling: OneWayDatagram
            forwarding: the default
            forwarding: forwarding: Direct
            forwarding: forwarding: Ipip
            forwarding: forwarding: Gre
            forwarding: forwarding: Gue(6080)
            local-endpoint-weight: the default
            local-endpoint-weight: local_weight: 10
            node-weights: node_weights: {"big-1": 4, "big-2": 65535, "small.example.com": 0}
            max-drain-time: max_drain_time: Some(0ns)
            max-drain-time: max_drain_time: Some(90s)
            max-drain-time: max_drain_time: Some(86400s)
            ignored: max-drain-time: is longer than --drain-cap, 24h0m0s, which applies instead
        "#]]
        .assert_eq(&outcomes(Annotations::All, VALID));
    }

    #[test]
    fn value_that_needs_all_annotations_is_ignored_by_default() {
        let needs_all = |line: &&str| outcome(Annotations::Safe, line).contains("this value needs --annotations=all");
        expect![[r#"
            scheduler: lblc
            scheduler: lblcr
            scheduler: dh
            scheduler: sed
            scheduler: nq
            scheduler: fo
            scheduler: ovf
            scheduler: twos
            udp-scheduling: datagram
            udp-scheduling: one-way-datagram
            forwarding: direct
            forwarding: ipip
            forwarding: gre
            forwarding: gue:6080"#]]
        .assert_eq(&trimmed(VALID).filter(needs_all).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn only_default_values_are_allowed_with_annotations_off() {
        let is_allowed = |line: &&str| !outcome(Annotations::Off, line).starts_with("ignored");
        expect![[r#"
            udp-scheduling: flow
            forwarding: masq
            local-endpoint-weight: 1"#]]
        .assert_eq(&trimmed(VALID).filter(is_allowed).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn invalid_value_is_ignored() {
        let lines = "
            scheduler: fastest
            scheduler:
            scheduler: WRR
            hash-on: port
            hash-fallback: yes
            udp-scheduling: packet
            forwarding: tunnel
            forwarding: gue
            forwarding: gue:0
            forwarding: gue:65536
            local-endpoint-weight: -1
            local-endpoint-weight: +1
            local-endpoint-weight: 65536
            local-endpoint-weight: heavy
            local-endpoint-weight:
            node-weights: node-1
            node-weights: node-1=a
            node-weights: Node_1=1
            node-weights: node-1=1,node-1=2
            node-weights:
            node-weights: node-1=1,
            max-drain-time: 30
            max-drain-time: -1s
            max-drain-time: forever
            weight: 5
            schedular: wrr
        ";
        expect![[r#"
            ignored: scheduler: "fastest" is not a scheduler of IPVS: use one of rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, mh, fo, ovf, twos
            ignored: scheduler: is empty: name a scheduler
            ignored: scheduler: "WRR" is not a scheduler of IPVS: use one of rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, mh, fo, ovf, twos
            ignored: hash-on: "port" is not one of address, address-and-port
            ignored: hash-fallback: "yes" is not one of true, false
            ignored: udp-scheduling: "packet" is not one of flow, datagram, one-way-datagram
            ignored: forwarding: "tunnel" is not one of masq, direct, ipip, gre, or gue:PORT such as gue:6080
            ignored: forwarding: "gue" is not one of masq, direct, ipip, gre, or gue:PORT such as gue:6080
            ignored: forwarding: "gue:0" is not one of masq, direct, ipip, gre, or gue:PORT such as gue:6080
            ignored: forwarding: "gue:65536" is not one of masq, direct, ipip, gre, or gue:PORT such as gue:6080
            ignored: local-endpoint-weight: "-1" is not a weight: 0 to 65535
            ignored: local-endpoint-weight: "+1" is not a weight: 0 to 65535
            ignored: local-endpoint-weight: "65536" is not a weight: 0 to 65535
            ignored: local-endpoint-weight: "heavy" is not a weight: 0 to 65535
            ignored: local-endpoint-weight: "" is not a weight: 0 to 65535
            ignored: node-weights: "node-1" is not NODE=WEIGHT, as in "node-1=5,node-2=1"
            ignored: node-weights: "a" is not a weight: 0 to 65535
            ignored: node-weights: "Node_1" is not the name of a Node
            ignored: node-weights: Node node-1 has two weights
            ignored: node-weights: "" is not NODE=WEIGHT, as in "node-1=5,node-2=1"
            ignored: node-weights: "" is not NODE=WEIGHT, as in "node-1=5,node-2=1"
            ignored: max-drain-time: "30" has no unit: use ns, us, ms, s, m or h, as in 30s
            ignored: max-drain-time: "-1s" is negative: a duration is 0 or more
            ignored: max-drain-time: "forever" is not a duration: use numbers with a unit, such as 30s, 1m30s, 1.5h or 500ms
            ignored: weight: is for EndpointSlices and Endpoints: in a Service, use local-endpoint-weight or node-weights
            ignored: schedular: is unknown: a Service can have scheduler, hash-on, hash-fallback, udp-scheduling, forwarding, local-endpoint-weight, node-weights and max-drain-time
        "#]].assert_eq(&outcomes(Annotations::All, lines));
    }
}
