//! Reports about annotations `kube-ipvs.io/…` in files. `proxier-kubernetes` tests their values.

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
    Folder::default().with_annotations(AnnotationPolicy { annotations, drain_cap })
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
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/forwarding: this value needs --annotations=all, and this node has --annotations=safe; it is ignored
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/max-drain-time: is longer than --drain-cap, 24h0m0s, which applies instead; it is ignored
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/scheduler: this value needs --annotations=all, and this node has --annotations=safe; it is ignored
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/udp-scheduling: this value needs --annotations=all, and this node has --annotations=safe; it is ignored
            Slice default/web-1 of default/web IPv4
              10.0.0.1 ready serving weight 5
        "#]],
    );
    check_with(
        Annotations::Off,
        &files,
        expect![[r#"
            Service default/web [10.96.0.1] [TCP 80 ""]
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/forwarding: this node allows no annotations (--annotations=off); it is ignored
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/hash-fallback: this node allows no annotations (--annotations=off); it is ignored
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/hash-on: this node allows no annotations (--annotations=off); it is ignored
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/local-endpoint-weight: this node allows no annotations (--annotations=off); it is ignored
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/max-drain-time: is longer than --drain-cap, 24h0m0s, which applies instead; it is ignored
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/node-weights: this node allows no annotations (--annotations=off); it is ignored
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/scheduler: this node allows no annotations (--annotations=off); it is ignored
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/udp-scheduling: this node allows no annotations (--annotations=off); it is ignored
            Slice default/web-1 of default/web IPv4
              10.0.0.1 ready serving
            problem: f.yaml:4:16: EndpointSlice default/web-1: metadata.annotations: annotation kube-ipvs.io/weight: this node allows no annotations (--annotations=off); it is ignored
        "#]],
    );
    check_with(
        Annotations::All,
        &files,
        expect![[r#"
            Service default/web [10.96.0.1] [TCP 80 ""] chooses scheduler: Some(Scheduler("fo")), hash_on: Some(Address), hash_fallback: Some(false), udp_scheduling: OneWayDatagram, forwarding: Gue(6080), local_weight: 10, node_weights: {"big-1": 4
            problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/max-drain-time: is longer than --drain-cap, 24h0m0s, which applies instead; it is ignored
            Slice default/web-1 of default/web IPv4
              10.0.0.1 ready serving weight 5
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
        problem: f.yaml:6:5: Service default/web: metadata.annotations: annotation kube-ipvs.io/scheduler: "fastest" is not a scheduler of IPVS: use one of rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, mh, fo, ovf, twos; it is ignored
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
            problem: f.yaml:4:16: EndpointSlice default/web-1: metadata.annotations: annotation kube-ipvs.io/scheduler: is unknown: endpoints can have only kube-ipvs.io/weight; it is ignored
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
