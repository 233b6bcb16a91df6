//! Topology: Nodes with zones and pod CIDRs, hints of endpoints, and ServiceCIDRs.

use expect_test::{Expect, expect};

use super::{broken, *};

fn check<T: AsRef<str>>(files: impl IntoIterator<Item = T>, expected: Expect) {
    let said: String = files.into_iter().map(|file| render(&read(file.as_ref().as_bytes()))).collect();
    expected.assert_eq(&said);
}

/// A slice of one endpoint with these hints on line 10.
fn hints(hints: &str) -> String {
    broken::slice(&format!("addressType: IPv4\nendpoints:\n- addresses: [10.0.0.1]\n  hints: {hints}\n"))
}

/// A Node with these further fields from line 4.
fn node(rest: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: node-1}}\n{rest}\n")
}

/// A ServiceCIDR with these further fields from line 4.
fn cidr(rest: &str) -> String {
    format!("apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {{name: kubernetes}}\n{rest}\n")
}

#[test]
fn endpoint_hints_are_parsed_or_reported() {
    let good = [
        "{forZones: [{name: eu-1_a.B}, {name: b}], forNodes: [{name: node-1}]}",
        "{forNodes: [{name: node-1}, {name: node-2.example.com}]}",
        "{forZones: [], forNodes: null}",
        "{}",
        "null",
        // kube-ipvs accepts names that no zone and no Node can have. They attract no traffic.
        "{forZones: [{name: \"\"}], forNodes: [{name: Node_1}]}",
    ];
    check(
        good.map(hints),
        expect![[r#"
        Slice default/web-1 of default/web IPv4
          10.0.0.1 ready serving for zones ["eu-1_a.B", "b"] for nodes ["node-1"]
        Slice default/web-1 of default/web IPv4
          10.0.0.1 ready serving for nodes ["node-1", "node-2.example.com"]
        Slice default/web-1 of default/web IPv4
          10.0.0.1 ready serving
        Slice default/web-1 of default/web IPv4
          10.0.0.1 ready serving
        Slice default/web-1 of default/web IPv4
          10.0.0.1 ready serving
        Slice default/web-1 of default/web IPv4
          10.0.0.1 ready serving for zones [""] for nodes ["Node_1"]
    "#]],
    );
    let bad = [
        "{forZones: [a]}",
        "{forZones: a}",
        "{forZones: [{zone: a}]}",
        &format!("{{forZones: [{}]}}", "{name: a}, ".repeat(9)),
    ];
    broken::check(
        bad.map(hints),
        expect![[r#"
            f.yaml:10:22: EndpointSlice default/web-1: endpoints[0].hints.forZones[0]: this is string "a", not a mapping with fields such as `name: value`
            f.yaml:10:21: EndpointSlice default/web-1: endpoints[0].hints.forZones: this is string "a", not a list
            f.yaml:10:22: EndpointSlice default/web-1: endpoints[0].hints.forZones[0]: missing field `name`
            f.yaml:10:21: EndpointSlice default/web-1: endpoints[0].hints.forZones: too many entries: at most 8 are allowed
        "#]],
    );
}

#[test]
fn node_zone_addresses_and_pod_cidrs_are_parsed_or_reported() {
    let rest = [
        "spec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24, \"fd00:1::/64\"]}",
        "spec: {podCIDR: 10.244.1.5/24, providerID: a}",
        "spec: {podCIDR: null, podCIDRs: []}",
        "status: {addresses: [{type: ExternalIP, address: 192.0.2.1}, {type: InternalIP, address: 10.0.0.1}, \
         {type: ExternalIP, address: 10.0.0.1}, {type: Hostname, address: node-1}, {type: InternalDNS, address: a.b}]}",
    ];
    check(
        rest.map(node),
        expect![[r#"
        Node node-1 [] pods [10.244.1.0/24, fd00:1::/64]
        Node node-1 [] pods [10.244.1.0/24]
        Node node-1 []
        Node node-1 [10.0.0.1] addresses [192.0.2.1, 10.0.0.1]
    "#]],
    );
    let zones = ["topology.kubernetes.io/zone: eu-1a", "topology.kubernetes.io/zone: null", "zone: eu-1a"];
    let labelled = |label| node("").replace("{name: node-1}", &format!("{{name: node-1, labels: {{{label}}}}}"));
    check(
        zones.map(labelled),
        expect![[r#"
        Node node-1 [] zone eu-1a
        Node node-1 []
        Node node-1 []
    "#]],
    );
    let leaving = [
        node("spec: {taints: [{key: a, effect: NoSchedule}, {key: ToBeDeletedByClusterAutoscaler, value: \"1\"}]}"),
        node("spec: {taints: [{key: DeletionCandidateOfClusterAutoscaler}]}"),
        node("").replace("{name: node-1}", "{name: node-1, deletionTimestamp: \"2026-01-31T12:00:00Z\"}"),
        node("").replace("{name: node-1}", "{name: node-1, deletionTimestamp: null}"),
    ];
    check(
        leaving,
        expect![[r#"
        Node node-1 [] leaving
        Node node-1 []
        Node node-1 [] leaving
        Node node-1 []
    "#]],
    );
    let bad = [
        "spec: {podCIDR: 10.244.1.0}",
        "spec: {podCIDRs: 10.244.1.0/24}",
        "spec: {podCIDRs: [10.244.1.0/24, 10.244.2.0/24]}",
        "spec: {podCIDRs: [10.244.1.0/24, \"fd00:1::/64\", \"fd00:2::/64\"]}",
        "spec: {podCIDRs: [pods]}",
        "status: {addresses: [{type: ExternalIP, address: node-1}]}",
    ];
    broken::check(
        bad.map(node),
        expect![[r#"
            f.yaml:4:17: Node node-1: spec.podCIDR: "10.244.1.0" is not an address range: it has no prefix length. For this address alone, write 10.244.1.0/32
            f.yaml:4:18: Node node-1: spec.podCIDRs: this is string "10.244.1.0/24", not a list
            f.yaml:4:34: Node node-1: spec.podCIDRs[1]: has the same family as the first: use at most one of each
            f.yaml:4:18: Node node-1: spec.podCIDRs: too many entries: at most 2 are allowed
            f.yaml:4:19: Node node-1: spec.podCIDRs[0]: "pods" is not an address range: use a range such as 10.244.0.0/16 or fd00:10::/64
            f.yaml:4:50: Node node-1: status.addresses[0].address: "node-1" is not an IP address
        "#]],
    );
}

#[test]
fn service_cidrs_are_parsed_or_reported() {
    let good = [
        cidr("spec: {cidrs: [10.96.0.0/12]}\nstatus: {conditions: [{type: Ready}]}"),
        cidr("spec: {cidrs: [\"fd00::1/108\", 10.96.0.1/12]}"),
        cidr("spec: {cidrs: [10.96.0.0/12]}").replace("/v1", "/v1beta1"),
        "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDRList\nitems:\n- metadata: {name: a}\n  spec: {cidrs: [10.96.0.0/12]}\n".into(),
        // A foreign API group, which kube-ipvs ignores.
        cidr("spec: cidrs").replace("networking.k8s.io", "example.com"),
    ];
    check(
        good,
        expect![[r#"
            ServiceCIDR kubernetes [10.96.0.0/12]
            ServiceCIDR kubernetes [fd00::/108, 10.96.0.0/12]
            ServiceCIDR kubernetes [10.96.0.0/12]
            ServiceCIDR a [10.96.0.0/12]
            note: f.yaml: kube-ipvs ignores objects that a proxy does not use: ServiceCIDR
        "#]],
    );
    let bad = [
        cidr("spec: {cidrs: [10.96.0.0]}"),
        cidr("spec: {cidrs: [10.96.0.0/12, 10.128.0.0/12]}"),
        cidr("spec: {cidrs: [10.96.0.0/12, \"fd00::/108\", 10.128.0.0/12]}"),
        cidr("spec: {cidrs: []}"),
        cidr("spec: {}"),
        cidr("spec: null"),
        cidr("spec: {cidrs: [10.96.0.0/12]}").replace("/v1", "/v1alpha1"),
        cidr("spec: {cidrs: [10.96.0.0/12]}").replace("networking.k8s.io/", ""),
        cidr("spec: {cidrs: [10.96.0.0/12]}").replace("name: kubernetes", ""),
    ];
    broken::check(
        bad,
        expect![[r#"
            f.yaml:4:16: ServiceCIDR kubernetes: spec.cidrs[0]: "10.96.0.0" is not an address range: it has no prefix length. For this address alone, write 10.96.0.0/32
            f.yaml:4:30: ServiceCIDR kubernetes: spec.cidrs[1]: has the same family as the first: use at most one of each
            f.yaml:4:15: ServiceCIDR kubernetes: spec.cidrs: too many entries: at most 2 are allowed
            f.yaml:4:15: ServiceCIDR kubernetes: spec.cidrs: a ServiceCIDR needs a range, or one range of each family
            f.yaml:4:7: ServiceCIDR kubernetes: spec.cidrs: a ServiceCIDR needs a range, or one range of each family
            f.yaml:4:7: ServiceCIDR kubernetes: spec.cidrs: a ServiceCIDR needs a range, or one range of each family
            f.yaml:1:13: ServiceCIDR kubernetes: apiVersion: "networking.k8s.io/v1alpha1" is not supported: for ServiceCIDR, use networking.k8s.io/v1
            f.yaml:1:13: ServiceCIDR kubernetes: apiVersion: "v1" is not supported: for ServiceCIDR, use networking.k8s.io/v1
            f.yaml:3:11: ServiceCIDR: metadata.name: is missing
        "#]],
    );
}

#[test]
fn service_cidr_changes_emit_events() {
    let mut folder = Folder::default();
    let one = cidr("spec: {cidrs: [10.96.0.0/12]}");
    let other = cidr("spec: {cidrs: [10.96.0.0/12, \"fd00::/108\"]}");
    let mut said = String::new();
    for (name, text) in [
        ("b.yaml", Some(&one)),
        // The same content in another notation.
        ("b.yaml", Some(&one.replace("10.96.0.0", "10.100.0.0"))),
        ("b.yaml", Some(&other)),
        ("a.yaml", Some(&one)),
        ("a.yaml", None),
        ("b.yaml", None),
    ] {
        let content = text.map_or(Content::Gone, |text| Content::Bytes(text.as_bytes()));
        said += &render(&folder.load([(name, content)]));
        said += "--\n";
    }
    expect![[r#"
        ServiceCIDR kubernetes [10.96.0.0/12]
        --
        --
        ServiceCIDR kubernetes [10.96.0.0/12, fd00::/108]
        --
        ServiceCIDR kubernetes [10.96.0.0/12]
        problem: b.yaml: ServiceCIDR kubernetes: is also in a.yaml, which comes first and takes precedence
        --
        ServiceCIDR kubernetes [10.96.0.0/12, fd00::/108]
        --
        ServiceCIDR kubernetes is gone
        --
    "#]]
    .assert_eq(&said);
}
