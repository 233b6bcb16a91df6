//! Services with external addresses, and their traffic policies.

use expect_test::{Expect, expect};

use super::{broken, *};

/// A Service with one port and these further fields in its spec, which start on line 6.
fn service(spec: &str) -> String {
    with_metadata("", spec)
}

fn with_metadata(metadata: &str, spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n{metadata}spec:\n{spec}  clusterIP: 10.96.0.1\n  ports:\n  - port: 80\n"
    )
}

/// A Service of type LoadBalancer whose ingress entries start on line 14.
fn balanced(ingress: &[&str]) -> String {
    let entries: String = ingress.iter().map(|entry| format!("    - {entry}\n")).collect();
    format!("{}status:\n  conditions: []\n  loadBalancer:\n    ingress:\n{entries}", service("type: LoadBalancer"))
}

fn check<T: AsRef<str>>(files: impl IntoIterator<Item = T>, expected: Expect) {
    let said: String = files.into_iter().map(|file| render(&read(file.as_ref().as_bytes()))).collect();
    expected.assert_eq(&said);
}

#[test]
fn service_with_every_external_field_is_parsed() {
    check(
        [service(
            "type: LoadBalancer\nexternalIPs: [198.51.100.1, \"2001:db8::1\"]\nexternalTrafficPolicy: Local\n\
             internalTrafficPolicy: Local\nloadBalancerSourceRanges: [203.0.113.0/24]\nhealthCheckNodePort: 30000\n\
             allocateLoadBalancerNodePorts: false\ntrafficDistribution: PreferClose\nloadBalancerClass: a.b/c\n\
             publishNotReadyAddresses: true\nloadBalancerIP: 192.0.2.9",
        ) + "status: {loadBalancer: {ingress: [{ip: 192.0.2.1, ports: [{port: 80, protocol: TCP}]}]}}\n"],
        expect![[r#"
            Service default/web [10.96.0.1] [TCP 80 ""] external [198.51.100.1, 2001:db8::1] balancer [192.0.2.1] from [203.0.113.0/24] health checks 30000 internal policy Local external policy Local
        "#]],
    );
}

#[test]
fn external_ips_are_parsed_without_duplicates() {
    let specs = [
        // Duplicates, one of them in another notation.
        "externalIPs: [198.51.100.1, 198.51.100.2, 198.51.100.1, \"::ffff:198.51.100.2\"]",
        "externalIPs: [\"2001:db8::1\"]",
        "externalIPs: []",
        "externalIPs: null",
        "type: NodePort\nexternalIPs: [198.51.100.1]",
        "type: ExternalName\nexternalIPs: [198.51.100.1]",
    ];
    check(
        specs.map(service),
        expect![[r#"
        Service default/web [10.96.0.1] [TCP 80 ""] external [198.51.100.1, 198.51.100.2]
        Service default/web [10.96.0.1] [TCP 80 ""] external [2001:db8::1]
        Service default/web [10.96.0.1] [TCP 80 ""]
        Service default/web [10.96.0.1] [TCP 80 ""]
        Service default/web [10.96.0.1] [TCP 80 ""] external [198.51.100.1]
        Service default/web []
    "#]],
    );
    // The engine decides about an external IP without a ClusterIP of its family.
    let headless = service("externalIPs: [198.51.100.1]").replace("10.96.0.1", "None");
    let other_family = service("externalIPs: [198.51.100.1]").replace("10.96.0.1", "\"fd00::1\"");
    check(
        [headless, other_family],
        expect![[r#"
        Service default/web [] [TCP 80 ""] external [198.51.100.1]
        Service default/web [fd00::1] [TCP 80 ""] external [198.51.100.1]
    "#]],
    );
}

#[test]
fn invalid_external_ips_are_reported_with_their_place() {
    let many: Vec<String> = (1..=101).map(|n| format!("198.51.100.{n}")).collect();
    let specs = [
        "externalIPs: 198.51.100.1",
        "externalIPs: [198.51.100.1, 198.51.100]",
        "externalIPs: [198.51.100.1/32]",
        "externalIPs: [None]",
        "externalIPs: [\"\"]",
        "externalIPs: [127.0.0.1]",
        "externalIPs: [0.0.0.0]",
        "externalIPs: [224.0.0.1]",
        "externalIPs: [\"fe80::1\"]",
        &format!("externalIPs: [{}]", many.join(", ")),
    ];
    broken::check(
        specs.map(service),
        expect![[r#"
        f.yaml:6:16: Service default/web: spec.externalIPs: this is string "198.51.100.1", not a list
        f.yaml:6:31: Service default/web: spec.externalIPs[1]: "198.51.100" is not an IP address
        f.yaml:6:17: Service default/web: spec.externalIPs[0]: "198.51.100.1/32" is not an IP address: write 198.51.100.1 alone
        f.yaml:6:17: Service default/web: spec.externalIPs[0]: "None" is not an IP address
        f.yaml:6:17: Service default/web: spec.externalIPs[0]: "" is not an IP address
        f.yaml:6:17: Service default/web: spec.externalIPs[0]: 127.0.0.1 is a loopback address (127.0.0.0/8, ::1): neither a Service nor an endpoint can have it
        f.yaml:6:17: Service default/web: spec.externalIPs[0]: 0.0.0.0 is the unspecified address: neither a Service nor an endpoint can have it
        f.yaml:6:17: Service default/web: spec.externalIPs[0]: 224.0.0.1 is a multicast address (224.0.0.0/4, ff00::/8): neither a Service nor an endpoint can have it
        f.yaml:6:17: Service default/web: spec.externalIPs[0]: fe80::1 is a link-local address (169.254.0.0/16, fe80::/10): neither a Service nor an endpoint can have it
        f.yaml:6:16: Service default/web: spec.externalIPs: too many entries: at most 100 are allowed
    "#]],
    );
}

#[test]
fn external_traffic_policy_without_external_traffic_is_ignored() {
    let specs = [
        "externalTrafficPolicy: Cluster\ninternalTrafficPolicy: Cluster",
        "externalTrafficPolicy: null\ninternalTrafficPolicy: \"\"",
        "type: NodePort\nexternalTrafficPolicy: Local",
        "type: LoadBalancer\nexternalTrafficPolicy: Local",
        "externalIPs: [198.51.100.1]\nexternalTrafficPolicy: Local",
        // Without an external address the policy has no effect.
        "externalTrafficPolicy: Local",
        "internalTrafficPolicy: Local",
        "type: ExternalName\ninternalTrafficPolicy: Local\nexternalTrafficPolicy: Local",
    ];
    check(
        specs.map(service),
        expect![[r#"
        Service default/web [10.96.0.1] [TCP 80 ""]
        Service default/web [10.96.0.1] [TCP 80 ""]
        Service default/web [10.96.0.1] [TCP 80 ""] external policy Local
        Service default/web [10.96.0.1] [TCP 80 ""] external policy Local
        Service default/web [10.96.0.1] [TCP 80 ""] external [198.51.100.1] external policy Local
        Service default/web [10.96.0.1] [TCP 80 ""]
        Service default/web [10.96.0.1] [TCP 80 ""] internal policy Local
        Service default/web []
    "#]],
    );
    let specs = [
        "externalTrafficPolicy: local",
        "externalTrafficPolicy: 1",
        "internalTrafficPolicy: OnlyLocal",
        "internalTrafficPolicy: [Local]",
    ];
    broken::check(
        specs.map(service),
        expect![[r#"
            f.yaml:6:26: Service default/web: spec.externalTrafficPolicy: "local" is not a traffic policy: use Cluster or Local
            f.yaml:6:26: Service default/web: spec.externalTrafficPolicy: this is integer `1`, not a traffic policy
            f.yaml:6:26: Service default/web: spec.internalTrafficPolicy: "OnlyLocal" is not a traffic policy: use Cluster or Local
            f.yaml:6:26: Service default/web: spec.internalTrafficPolicy: this is a list, not a traffic policy
        "#]],
    );
}

#[test]
fn load_balancer_source_ranges_are_parsed() {
    let specs = [
        "type: LoadBalancer\nloadBalancerSourceRanges: [10.1.2.3/8, 10.0.0.0/8, \" 203.0.113.7/32 \", \"2001:db8::1/32\"]",
        "type: LoadBalancer\nloadBalancerSourceRanges: [0.0.0.0/0]",
        "type: LoadBalancer\nloadBalancerSourceRanges: []",
        "type: NodePort\nloadBalancerSourceRanges: [10.0.0.0/8]",
    ];
    check(
        specs.map(service),
        expect![[r#"
        Service default/web [10.96.0.1] [TCP 80 ""] from [10.0.0.0/8, 203.0.113.7/32, 2001:db8::/32]
        Service default/web [10.96.0.1] [TCP 80 ""] from [0.0.0.0/0]
        Service default/web [10.96.0.1] [TCP 80 ""]
        Service default/web [10.96.0.1] [TCP 80 ""]
    "#]],
    );
    let specs = [
        "loadBalancerSourceRanges: 10.0.0.0/8",
        "loadBalancerSourceRanges: [10.0.0.0/8, 203.0.113.7]",
        "loadBalancerSourceRanges: [10.0.0.0/33]",
        "loadBalancerSourceRanges: [\"fd00::1\"]",
        "loadBalancerSourceRanges: [\"10.0.0.0/8,10.1.0.0/16\"]",
        "loadBalancerSourceRanges: [office]",
        "loadBalancerSourceRanges:\n- ",
    ];
    broken::check(
        specs.map(|spec| service(&format!("type: LoadBalancer\n{spec}"))),
        expect![[r#"
            f.yaml:7:29: Service default/web: spec.loadBalancerSourceRanges: this is string "10.0.0.0/8", not a list
            f.yaml:7:42: Service default/web: spec.loadBalancerSourceRanges[1]: "203.0.113.7" is not an address range: it has no prefix length. For this address alone, write 203.0.113.7/32
            f.yaml:7:30: Service default/web: spec.loadBalancerSourceRanges[0]: "10.0.0.0/33" is not an address range: use a range such as 10.244.0.0/16 or fd00:10::/64
            f.yaml:7:30: Service default/web: spec.loadBalancerSourceRanges[0]: "fd00::1" is not an address range: it has no prefix length. For this address alone, write fd00::1/128
            f.yaml:7:30: Service default/web: spec.loadBalancerSourceRanges[0]: "10.0.0.0/8,10.1.0.0/16" is not an address range: use a range such as 10.244.0.0/16 or fd00:10::/64
            f.yaml:7:30: Service default/web: spec.loadBalancerSourceRanges[0]: "office" is not an address range: use a range such as 10.244.0.0/16 or fd00:10::/64
            f.yaml:8:5: Service default/web: spec.loadBalancerSourceRanges[0]: this is null, not an address range
        "#]],
    );
}

#[test]
fn source_ranges_annotation_counts_without_the_spec_field() {
    let with = |value: &str, spec: &str| {
        let key = "service.beta.kubernetes.io/load-balancer-source-ranges";
        with_metadata(&format!("  annotations:\n    {key}: {value}\n"), spec)
    };
    let files = [
        with("10.1.2.3/8, 203.0.113.7/32", "type: LoadBalancer"),
        with("\" \"", "type: LoadBalancer"),
        with("null", "type: LoadBalancer"),
        with("10.0.0.0/8", "type: LoadBalancer\nloadBalancerSourceRanges: [192.0.2.0/24]"),
        with("10.0.0.0/8", "type: ClusterIP"),
        with("10.0.0.0/8\n    other: \"1\"\n    another: \"true\"", "type: LoadBalancer"),
    ];
    check(
        files,
        expect![[r#"
            Service default/web [10.96.0.1] [TCP 80 ""] from [10.0.0.0/8, 203.0.113.7/32]
            Service default/web [10.96.0.1] [TCP 80 ""]
            Service default/web [10.96.0.1] [TCP 80 ""]
            Service default/web [10.96.0.1] [TCP 80 ""] from [192.0.2.0/24]
            Service default/web [10.96.0.1] [TCP 80 ""]
            Service default/web [10.96.0.1] [TCP 80 ""] from [10.0.0.0/8]
        "#]],
    );
    let many = vec!["10.0.0.0/8"; 1001].join(",");
    let values = ["10.0.0.1", "10.0.0.0/8,", "anyone", "[10.0.0.0/8]", &many];
    broken::check(
        values.map(|value| with(value, "type: LoadBalancer")),
        expect![[r#"
            f.yaml:6:5: Service default/web: metadata.annotations: annotation service.beta.kubernetes.io/load-balancer-source-ranges: "10.0.0.1" is not an address range: it has no prefix length. For this address alone, write 10.0.0.1/32
            f.yaml:6:5: Service default/web: metadata.annotations: annotation service.beta.kubernetes.io/load-balancer-source-ranges: "" is not an address range: use a range such as 10.244.0.0/16 or fd00:10::/64
            f.yaml:6:5: Service default/web: metadata.annotations: annotation service.beta.kubernetes.io/load-balancer-source-ranges: "anyone" is not an address range: use a range such as 10.244.0.0/16 or fd00:10::/64
            f.yaml:6:5: Service default/web: metadata.annotations.service.beta.kubernetes.io/load-balancer-source-ranges: this is a list, not a string
            f.yaml:6:5: Service default/web: metadata.annotations: annotation service.beta.kubernetes.io/load-balancer-source-ranges: too many entries: at most 1000 are allowed
        "#]],
    );
}

#[test]
fn load_balancer_ips_of_the_status_are_parsed() {
    let files = [
        balanced(&["{ip: 192.0.2.1}", "{ip: 192.0.2.2, ipMode: VIP}", "{ip: 192.0.2.3, ipMode: Proxy}"]),
        balanced(&["{hostname: lb.example.com}", "{hostname: a, ip: \"\"}", "{ip: 192.0.2.1, ipMode: null}"]),
        balanced(&["{ip: 192.0.2.1}", "{ip: \"2001:db8::1\"}", "{ip: 192.0.2.1}"]),
        balanced(&["{ip: 192.0.2.1}"]).replace("LoadBalancer", "NodePort"),
        service("type: LoadBalancer") + "status: {loadBalancer: {}}\n",
        service("type: LoadBalancer") + "status: {loadBalancer: null}\n",
    ];
    check(
        files,
        expect![[r#"
        Service default/web [10.96.0.1] [TCP 80 ""] balancer [192.0.2.1, 192.0.2.2]
        Service default/web [10.96.0.1] [TCP 80 ""] balancer [192.0.2.1]
        Service default/web [10.96.0.1] [TCP 80 ""] balancer [192.0.2.1, 2001:db8::1]
        Service default/web [10.96.0.1] [TCP 80 ""]
        Service default/web [10.96.0.1] [TCP 80 ""]
        Service default/web [10.96.0.1] [TCP 80 ""]
    "#]],
    );
}

#[test]
fn invalid_load_balancer_ips_are_reported_with_their_place() {
    let entries = [
        "{ip: lb.example.com}",
        "{ip: 192.0.2.1/32}",
        "{ip: 127.0.0.1}",
        "{ip: 192.0.2.1, ipMode: vip}",
        "{ip: 192.0.2.1, ipMode: NAT}",
        "192.0.2.1",
    ];
    broken::check(
        entries.map(|entry| balanced(&["{ip: 192.0.2.9}", entry])),
        expect![[r#"
            f.yaml:15:12: Service default/web: status.loadBalancer.ingress[1].ip: "lb.example.com" is not an IP address
            f.yaml:15:12: Service default/web: status.loadBalancer.ingress[1].ip: "192.0.2.1/32" is not an IP address: write 192.0.2.1 alone
            f.yaml:15:12: Service default/web: status.loadBalancer.ingress[1].ip: 127.0.0.1 is a loopback address (127.0.0.0/8, ::1): neither a Service nor an endpoint can have it
            f.yaml:15:31: Service default/web: status.loadBalancer.ingress[1].ipMode: "vip" is not an ipMode: use VIP or Proxy
            f.yaml:15:31: Service default/web: status.loadBalancer.ingress[1].ipMode: "NAT" is not an ipMode: use VIP or Proxy
            f.yaml:15:7: Service default/web: status.loadBalancer.ingress[1]: this is string "192.0.2.1", not a mapping with fields such as `name: value`
        "#]],
    );
}

#[test]
fn exposure_changes_emit_events_only_if_they_matter() {
    let mut folder = Folder::default();
    let mut said = String::new();
    for text in [
        service("type: LoadBalancer"),
        balanced(&["{ip: 192.0.2.1}"]),
        balanced(&["{ip: 192.0.2.1}", "{hostname: lb.example.com}"]),
        balanced(&["{ip: 192.0.2.1, ipMode: Proxy}"]),
        service("type: LoadBalancer\nexternalTrafficPolicy: Local"),
        service("externalTrafficPolicy: Local"),
    ] {
        said += &render(&load(&mut folder, &[("f.yaml", &text)]));
        said += "--\n";
    }
    expect![[r#"
        Service default/web [10.96.0.1] [TCP 80 ""]
        --
        Service default/web [10.96.0.1] [TCP 80 ""] balancer [192.0.2.1]
        --
        --
        Service default/web [10.96.0.1] [TCP 80 ""]
        --
        Service default/web [10.96.0.1] [TCP 80 ""] external policy Local
        --
        Service default/web [10.96.0.1] [TCP 80 ""]
        --
    "#]]
    .assert_eq(&said);
}
