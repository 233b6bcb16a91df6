//! Annotations `kube-ipvs.io/…`. kube-ipvs reports an invalid annotation and ignores only that one.

use std::time::Duration;

use expect_test::{Expect, expect};
use proxier_kubernetes::{AnnotationPolicy, Annotations};

use super::*;

fn check<T: AsRef<str>>(files: impl IntoIterator<Item = T>, expected: Expect) {
    check_with(Annotations::All, files, expected);
}

fn check_with<T: AsRef<str>>(annotations: Annotations, files: impl IntoIterator<Item = T>, expected: Expect) {
    let read = |file: T| render(&load(&mut folder(annotations), &[("f.yaml", file.as_ref())]));
    expected.assert_eq(&files.into_iter().map(read).collect::<String>());
}

/// A folder with a drain cap of a day.
fn folder(annotations: Annotations) -> Folder {
    let drain_cap = Duration::from_secs(24 * 3600);
    Folder::new().with_annotations(AnnotationPolicy { annotations, drain_cap })
}

/// A Service with these annotations, which start on line 6, and one foreign annotation.
fn service(annotations: &[&str]) -> String {
    let annotations: String = annotations.iter().map(|annotation| format!("    kube-ipvs.io/{annotation}\n")).collect();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  annotations:\n{annotations}    example.com/a: b\n\
         spec: {{clusterIP: 10.96.0.1, ports: [{{port: 80}}]}}\n"
    )
}

fn slice(annotation: &str) -> String {
    let annotations = format!("metadata:\n  annotations: {{kube-ipvs.io/{annotation}}}\n");
    broken::slice("addressType: IPv4\nendpoints:\n- addresses: [10.0.0.1]\n").replace("metadata:\n", &annotations)
}

#[test]
fn service_with_every_annotation_is_parsed() {
    check(
        [service(&[
            "scheduler: mh",
            "hash-on: address",
            "hash-fallback: \"false\"",
            "udp-scheduling: one-way-datagram",
            "forwarding: gue:6080",
            "local-endpoint-weight: \"10\"",
            "node-weights: big-1=4, big-2=65535,small.example.com = 0",
            "max-drain-time: 1m30s",
        ])],
        expect![[r#"
            Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("mh")), hash_on: Some(Address), hash_fallback: Some(false), udp_scheduling: OneWayDatagram, forwarding: Gue(6080), local_weight: 10, node_weights: {"big-1": 4, "big-2": 65535, "small.example.com": 0}, max_drain_time: Some(90s)
        "#]],
    );
}

#[test]
fn every_annotation_value_is_parsed() {
    let values = [
        "scheduler: rr",
        "scheduler: wrr",
        "scheduler: lc",
        "scheduler: wlc",
        "scheduler: lblc",
        "scheduler: lblcr",
        "scheduler: sh",
        "scheduler: mh",
        "scheduler: dh",
        "scheduler: sed",
        "scheduler: nq",
        "scheduler: fo",
        "scheduler: ovf",
        "scheduler: twos",
        "hash-on: address-and-port",
        "hash-fallback: \"true\"",
        "udp-scheduling: datagram",
        "forwarding: direct",
        "forwarding: ipip",
        "forwarding: gre",
        "max-drain-time: 0s",
        "max-drain-time: 24h",
    ];
    check(
        values.map(|value| service(&[value])),
        expect![[r#"
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("rr"))
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("wrr"))
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("lc"))
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("wlc"))
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("lblc"))
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("lblcr"))
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("sh"))
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("mh"))
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("dh"))
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("sed"))
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("nq"))
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("fo"))
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("ovf"))
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("twos"))
        Service default/web [10.96.0.1] [TCP 80 ""] chooses hash_on: Some(AddressAndPort)
        Service default/web [10.96.0.1] [TCP 80 ""] chooses hash_fallback: Some(true)
        Service default/web [10.96.0.1] [TCP 80 ""] chooses udp_scheduling: Datagram
        Service default/web [10.96.0.1] [TCP 80 ""] chooses forwarding: Direct
        Service default/web [10.96.0.1] [TCP 80 ""] chooses forwarding: Ipip
        Service default/web [10.96.0.1] [TCP 80 ""] chooses forwarding: Gre
        Service default/web [10.96.0.1] [TCP 80 ""] chooses max_drain_time: Some(0ns)
        Service default/web [10.96.0.1] [TCP 80 ""] chooses max_drain_time: Some(86400s)
    "#]],
    );
}

#[test]
fn annotation_that_sets_the_default_counts_as_absent() {
    check(
        ["forwarding: masq", "udp-scheduling: flow", "local-endpoint-weight: \"1\""].map(|value| service(&[value])),
        expect![[r#"
            Service default/web [10.96.0.1] [TCP 80 ""]
            Service default/web [10.96.0.1] [TCP 80 ""]
            Service default/web [10.96.0.1] [TCP 80 ""]
        "#]],
    );
}

#[test]
fn invalid_annotation_is_reported_and_ignored() {
    let values = [
        "scheduler: fastest",
        "scheduler: \"\"",
        "scheduler: WRR",
        "hash-on: port",
        "hash-fallback: \"yes\"",
        "udp-scheduling: packet",
        "forwarding: tunnel",
        "forwarding: gue",
        "forwarding: gue:0",
        "forwarding: gue:65536",
        "local-endpoint-weight: \"-1\"",
        "local-endpoint-weight: \"+1\"",
        "local-endpoint-weight: \"65536\"",
        "local-endpoint-weight: heavy",
        "local-endpoint-weight:",
        "node-weights: node-1",
        "node-weights: node-1=a",
        "node-weights: Node_1=1",
        "node-weights: node-1=1,node-1=2",
        "node-weights: \"\"",
        "node-weights: node-1=1,",
        "max-drain-time: \"30\"",
        "max-drain-time: -1s",
        "max-drain-time: forever",
        "weight: \"5\"",
        "schedular: wrr",
    ];
    check(
        values.map(|value| service(&[value])),
        expect![[r#"
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/scheduler: "fastest" is not a scheduler of IPVS: allowed are rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, mh, fo, ovf, twos; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/scheduler: names no scheduler; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/scheduler: "WRR" is not a scheduler of IPVS: allowed are rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, mh, fo, ovf, twos; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/hash-on: "port" is none of address, address-and-port; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/hash-fallback: "yes" is none of true, false; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/udp-scheduling: "packet" is none of flow, datagram, one-way-datagram; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/forwarding: "tunnel" is none of masq, direct, ipip, gre, gue:PORT such as gue:6080; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/forwarding: "gue" is none of masq, direct, ipip, gre, gue:PORT such as gue:6080; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/forwarding: "gue:0" is none of masq, direct, ipip, gre, gue:PORT such as gue:6080; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/forwarding: "gue:65536" is none of masq, direct, ipip, gre, gue:PORT such as gue:6080; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/local-endpoint-weight: "-1" is not a weight: 0 to 65535; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/local-endpoint-weight: "+1" is not a weight: 0 to 65535; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/local-endpoint-weight: "65536" is not a weight: 0 to 65535; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/local-endpoint-weight: "heavy" is not a weight: 0 to 65535; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/local-endpoint-weight: "" is not a weight: 0 to 65535; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/node-weights: "node-1" is not NODE=WEIGHT, as in "node-1=5,node-2=1"; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/node-weights: "a" is not a weight: 0 to 65535; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/node-weights: "Node_1" is not the name of a Node; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/node-weights: Node node-1 has two weights; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/node-weights: "" is not NODE=WEIGHT, as in "node-1=5,node-2=1"; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/node-weights: "" is not NODE=WEIGHT, as in "node-1=5,node-2=1"; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/max-drain-time: "30" has no unit: allowed are ns, us, ms, s, m and h, as in 30s; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/max-drain-time: "-1s" is negative: a duration is 0 or more; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/max-drain-time: "forever" is not a duration: allowed are numbers with a unit, such as 30s, 1m30s, 1.5h or 500ms; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/weight: is for EndpointSlices and Endpoints; Services have local-endpoint-weight and node-weights; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/schedular: is nothing that a Service can have: allowed are scheduler, hash-on, hash-fallback, udp-scheduling, forwarding, local-endpoint-weight, node-weights and max-drain-time; it is ignored
        "#]],
    );
}

/// By default a Service chooses only for its own traffic. The operator must allow choices that involve the kernel or
/// other hosts.
#[test]
fn annotation_the_operator_disallows_is_reported_and_ignored() {
    let service = service(&[
        "scheduler: fo",
        "hash-on: address",
        "hash-fallback: \"false\"",
        "udp-scheduling: one-way-datagram",
        "forwarding: gue:6080",
        "local-endpoint-weight: \"10\"",
        "node-weights: big-1=4",
        "max-drain-time: 48h",
    ]);
    let files = [service, slice("weight: \"5\"")];
    check_with(
        Annotations::Safe,
        &files,
        expect![[r#"
        Service default/web [10.96.0.1] [TCP 80 ""] chooses hash_on: Some(Address), hash_fallback: Some(false), local_weight: 10, node_weights: {"big-1": 4
        problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/max-drain-time: is longer than --drain-cap, 24h0m0s, which counts instead; it is ignored
        problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/scheduler: this node allows it only with --annotations=all, and has safe; it is ignored
        problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/forwarding: this node allows it only with --annotations=all, and has safe; it is ignored
        problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/udp-scheduling: this node allows it only with --annotations=all, and has safe; it is ignored
        Slice default/web-1 of default/web IPv4
          10.0.0.1 ready serving weight 5
    "#]],
    );
    check_with(
        Annotations::Off,
        &files,
        expect![[r#"
        Service default/web [10.96.0.1] [TCP 80 ""]
        problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/max-drain-time: is longer than --drain-cap, 24h0m0s, which counts instead; it is ignored
        problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/scheduler: no annotation counts on this node (--annotations=off); it is ignored
        problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/forwarding: no annotation counts on this node (--annotations=off); it is ignored
        problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/udp-scheduling: no annotation counts on this node (--annotations=off); it is ignored
        problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/hash-on: no annotation counts on this node (--annotations=off); it is ignored
        problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/hash-fallback: no annotation counts on this node (--annotations=off); it is ignored
        problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/local-endpoint-weight: no annotation counts on this node (--annotations=off); it is ignored
        problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/node-weights: no annotation counts on this node (--annotations=off); it is ignored
        Slice default/web-1 of default/web IPv4
          10.0.0.1 ready serving
        problem: f.yaml:4:16: EndpointSlice default/web-1: metadata.annotations: annotation kube-ipvs.io/weight: no annotation counts on this node (--annotations=off); it is ignored
    "#]],
    );
    check_with(
        Annotations::All,
        &files,
        expect![[r#"
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("fo")), hash_on: Some(Address), hash_fallback: Some(false), udp_scheduling: OneWayDatagram, forwarding: Gue(6080), local_weight: 10, node_weights: {"big-1": 4
        problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/max-drain-time: is longer than --drain-cap, 24h0m0s, which counts instead; it is ignored
        Slice default/web-1 of default/web IPv4
          10.0.0.1 ready serving weight 5
    "#]],
    );
    let safe = ["rr", "wrr", "lc", "wlc", "sh", "mh"].map(|name| self::service(&[&format!("scheduler: {name}")]));
    check_with(
        Annotations::Safe,
        safe,
        expect![[r#"
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("rr"))
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("wrr"))
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("lc"))
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("wlc"))
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("sh"))
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("mh"))
    "#]],
    );
}

/// An object of the API's maximum size costs no more lines than one with a few mistakes.
#[test]
fn report_about_many_invalid_annotations_is_bounded() {
    let names: Vec<String> = (0..14_000).map(|number| format!("a{number:05}: \"\"")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let many = render(&read(service(&names).as_bytes()));
    assert_eq!(many.lines().count(), 1 + 10 + 1, "{many}");
    assert!(many.ends_with("metadata.annotations: and 13990 more\n"), "{many}");
    let long = format!("scheduler: {}", "x".repeat(1 << 18));
    let said = render(&read(service(&[&long]).as_bytes()));
    assert!(said.contains(&format!("\"{}\"… is too long", "x".repeat(64))) && said.len() < 1000, "{said}");
}

/// Valid annotations count beside an invalid one, and a corrected one takes effect.
#[test]
fn valid_annotation_counts_beside_an_invalid_one() {
    let mut folder = folder(Annotations::All);
    let mixed = service(&["scheduler: fastest", "max-drain-time: 30s"]);
    let mended = service(&["scheduler: wrr", "max-drain-time: 30s"]);
    let said: String =
        [&mixed, &mixed, &mended].map(|text| render(&load(&mut folder, &[("f.yaml", text)]))).join("-\n");
    expect![[r#"
        Service default/web [10.96.0.1] [TCP 80 ""] chooses max_drain_time: Some(30s)
        problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/scheduler: "fastest" is not a scheduler of IPVS: allowed are rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, mh, fo, ovf, twos; it is ignored
        -
        -
        Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("wrr")), max_drain_time: Some(30s)
    "#]]
    .assert_eq(&said);
}

#[test]
fn weight_annotation_of_slices_and_endpoints_is_parsed() {
    let endpoints = "apiVersion: v1\nkind: Endpoints\nmetadata:\n  name: web\n  annotations: {kube-ipvs.io/weight: \"3\"}\n\
        subsets:\n- addresses: [{ip: 10.0.0.1}]\n  ports: [{port: 80}]\n";
    check(
        [
            slice("weight: \"5\""),
            slice("weight: \"0\""),
            slice("weight: \"1\""),
            slice("weight: \"70000\""),
            slice("scheduler: wrr"),
            format!("{GOOD}---\n{endpoints}"),
            format!("{GOOD}---\n{}", endpoints.replace("\"3\"", "three")),
        ],
        expect![[r#"
            Slice default/web-1 of default/web IPv4
              10.0.0.1 ready serving weight 5
            Slice default/web-1 of default/web IPv4
              10.0.0.1 ready serving weight 0
            Slice default/web-1 of default/web IPv4
              10.0.0.1 ready serving
            Slice default/web-1 of default/web IPv4
              10.0.0.1 ready serving
            problem: f.yaml:4:16: EndpointSlice default/web-1: metadata.annotations: annotation kube-ipvs.io/weight: "70000" is not a weight: 0 to 65535; it is ignored
            Slice default/web-1 of default/web IPv4
              10.0.0.1 ready serving
            problem: f.yaml:4:16: EndpointSlice default/web-1: metadata.annotations: annotation kube-ipvs.io/scheduler: is nothing that endpoints can have: only kube-ipvs.io/weight; it is ignored
            Service default/web [10.96.0.1] [TCP 80 ""]
            Slice default/web-1 of default/web IPv4 [TCP 8080 ""]
              10.244.1.1 ready serving
            Slice default/web:endpoints-0-ipv4 of default/web IPv4 [TCP 80 ""]
              10.0.0.1 ready serving weight 3
            Service default/web [10.96.0.1] [TCP 80 ""]
            Slice default/web-1 of default/web IPv4 [TCP 8080 ""]
              10.244.1.1 ready serving
            Slice default/web:endpoints-0-ipv4 of default/web IPv4 [TCP 80 ""]
              10.0.0.1 ready serving
            problem: f.yaml:17:16: Endpoints default/web: metadata.annotations: annotation kube-ipvs.io/weight: "three" is not a weight: 0 to 65535; it is ignored
        "#]],
    );
}

#[test]
fn ignored_annotations_keep_no_object_from_being_followed() {
    let one = |number: usize| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, annotations: {{kube-ipvs.io/nothing: x}}}}\n\
             spec: {{clusterIP: 10.96.0.{number}, ports: [{{port: 80}}]}}\n"
        )
    };
    let changes = read((1..=30).map(one).collect::<Vec<_>>().join("---\n").as_bytes());
    assert_eq!((changes.events.len(), changes.problems.len()), (30, 20));
}
