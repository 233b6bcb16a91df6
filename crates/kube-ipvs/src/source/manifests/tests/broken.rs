//! Manifests that cannot be followed: what is said, and that nothing else suffers.

use std::time::{Duration, Instant};

use expect_test::{Expect, expect};

use super::*;

/// Checks what is said of a broken file, alone and as the only change to a good one.
fn check_bytes(content: &[u8], expected: Expect) {
    let alone = read(content);
    assert_eq!(alone.events, []);
    assert_eq!(alone.notes, []);
    let said: Vec<String> = alone.problems.iter().map(ToString::to_string).collect();
    expected.assert_eq(&said.join("\n"));

    let mut folder = Folder::new();
    let other = GOOD.replace("web", "other").replace("10.96.0.1", "10.96.0.2");
    load(&mut folder, &[("f.yaml", GOOD), ("other.yaml", &other)]);
    let changes = folder.load([("f.yaml", Content::Bytes(content))]);
    assert_eq!(changes.events, [], "the last good content stays in force");
    assert_eq!(changes.problems, alone.problems);
    assert!(folder.load([("f.yaml", Content::Bytes(content))]).is_empty(), "it is said once");
    assert_eq!(folder.problems().len(), alone.problems.len());
    assert!(load(&mut folder, &[("f.yaml", GOOD)]).is_empty(), "mended, all is as it was");
    assert_eq!(folder.problems(), Vec::<&super::super::Problem>::new());
}

fn check(content: &str, expected: Expect) {
    check_bytes(content.as_bytes(), expected);
}

/// A Service on lines that are easy to count: `spec:` is line 5.
fn service(spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n{spec}")
}

fn slice(rest: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  labels:\n    \
         kubernetes.io/service-name: web\n{rest}"
    )
}

#[test]
fn ports() {
    check(&service("ports:\n- port: 70000"), expect!["f.yaml:7:11: Service default/web: spec.ports[0].port: 70000 is not a port: 1 to 65535"]);
    check(&service("ports:\n- port: 0"), expect!["f.yaml:7:11: Service default/web: spec.ports[0].port: 0 is not a port: 1 to 65535"]);
    check(&service("ports:\n- port: -1"), expect!["f.yaml:7:11: Service default/web: spec.ports[0].port: -1 is not a port: 1 to 65535"]);
    check(&service("ports:\n- port: \"80\""), expect![[r#"f.yaml:7:11: Service default/web: spec.ports[0].port: "80" is not a port: 1 to 65535, written without quotes"#]]);
    check(&service("ports:\n- port: http"), expect![[r#"f.yaml:7:11: Service default/web: spec.ports[0].port: "http" is not a port: 1 to 65535"#]]);
    check(&service("ports:\n- port: 80.5"), expect!["f.yaml:7:11: Service default/web: spec.ports[0].port: 80.5 is not a port: 1 to 65535"]);
    check(&service("ports:\n- port:"), expect!["f.yaml:7:9: Service default/web: spec.ports[0].port: there is no value here: wanted is a port: 1 to 65535"]);
    check(&service("ports:\n- port: 99999999999999999999999"), expect!["f.yaml:7:11: Service default/web: spec.ports[0].port: 100000000000000000000000 is not a port: 1 to 65535"]);
    check(&service("ports:\n- name: http\n  targetPort: 80"), expect!["f.yaml:8:5: Service default/web: spec.ports[0]: missing field `port`"]);
    check(&service("ports: 80"), expect!["f.yaml:6:3: Service default/web: spec.ports: invalid type: integer `80`, expected a list"]);
    check(&service("ports:\n  port: 80"), expect!["f.yaml:7:5: Service default/web: spec.ports: invalid type: map, expected a list"]);
    check(&service("ports: []"), expect!["f.yaml:6:10: Service default/web: spec.ports: a Service has at least one port"]);
    check(&service("ports:\n- 80"), expect!["f.yaml:7:5: Service default/web: spec.ports[0]: expected mapping start"]);
    check(&service("type: NodePort\nports:\n- port: 80\n  nodePort: 65536"), expect!["f.yaml:9:15: Service default/web: spec.ports[0].nodePort: 65536 is not a node port: 1 to 65535"]);
    check(&service("ports:\n- port: 80\n  nodePort: 30080"), expect!["f.yaml:8:15: Service default/web: spec.ports[0].nodePort: is for Services of type NodePort or LoadBalancer only: set spec.type"]);
    check(&service(&format!("ports:{}", "\n- port: 80".repeat(101))), expect!["f.yaml:7:5: Service default/web: spec.ports: too many entries: at most 100 are allowed"]);
}

#[test]
fn doubles_within_a_service() {
    check(&service("ports:\n- {name: a, port: 80}\n- {name: b, port: 80}"), expect!["f.yaml:8:21: Service default/web: spec.ports[1].port: TCP 80 is an earlier port too"]);
    check(&service("ports:\n- {name: a, port: 80}\n- {name: a, port: 81}"), expect![[r#"f.yaml:8:12: Service default/web: spec.ports[1].name: "a" is the name of an earlier port too"#]]);
    check(&service("ports:\n- port: 80\n- port: 81"), expect!["f.yaml:7:5: Service default/web: spec.ports[0]: has no name: where there are several ports each needs one"]);
    check(
        &service(
            "type: NodePort\nports:\n- {name: a, port: 80, nodePort: 30000}\n- {name: b, port: 81, nodePort: 30000}",
        ),
        expect!["f.yaml:9:35: Service default/web: spec.ports[1].nodePort: TCP 30000 is an earlier port's nodePort too"],
    );
}

#[test]
fn words() {
    check(&service("ports:\n- port: 80\n  protocol: tcp"), expect![[r#"f.yaml:8:15: Service default/web: spec.ports[0].protocol: unknown protocol "tcp": a Service has TCP, UDP or SCTP"#]]);
    check(&service("type: Nodeport\nports:\n- port: 80"), expect![[r#"f.yaml:6:9: Service default/web: spec.type: "Nodeport" is not a type of Service: ClusterIP, NodePort, LoadBalancer or ExternalName"#]]);
    check(&service("sessionAffinity: ClientIp\nports:\n- port: 80"), expect![[r#"f.yaml:6:20: Service default/web: spec.sessionAffinity: "ClientIp" is not an affinity: None or ClientIP"#]]);
    check(&service("ports:\n- port: 80\n  name: HTTP_port"), expect![[r#"f.yaml:8:11: Service default/web: spec.ports[0].name: "HTTP_port" is not the name of a port: lower-case letters, digits and '-', at most 63, with '-' at neither end"#]]);
    check(&service("ports:\n- port: 80\n  name: [http]"), expect!["f.yaml:8:11: Service default/web: spec.ports[0].name: expected string scalar"]);
}

#[test]
fn cluster_ips() {
    check(&service("clusterIP: 10.96.0\nports:\n- port: 80"), expect![[r#"f.yaml:6:14: Service default/web: spec.clusterIP: "10.96.0" is not an IP address; or "None""#]]);
    check(&service("clusterIP: 10.96.0.1/32\nports:\n- port: 80"), expect![[r#"f.yaml:6:14: Service default/web: spec.clusterIP: "10.96.0.1/32" is not an IP address: write 10.96.0.1 alone; or "None""#]]);
    check(&service("clusterIP: none\nports:\n- port: 80"), expect![[r#"f.yaml:6:14: Service default/web: spec.clusterIP: "none" is not an IP address; or "None""#]]);
    check(&service("clusterIP: 127.0.0.1\nports:\n- port: 80"), expect!["f.yaml:6:14: Service default/web: spec.clusterIP: 127.0.0.1 is a loopback address (127.0.0.0/8, ::1): neither a Service nor an endpoint can have it"]);
    check(&service("clusterIPs: [10.96.0.1, 10.96.0.2]\nports:\n- port: 80"), expect!["f.yaml:6:27: Service default/web: spec.clusterIPs[1]: is of the same family as the first: at most one of each"]);
    check(&service("clusterIP: 10.96.0.2\nclusterIPs: [10.96.0.1]\nports:\n- port: 80"), expect!["f.yaml:6:14: Service default/web: spec.clusterIP: is another than the first of spec.clusterIPs"]);
    check(&service("clusterIPs: [10.96.0.1, \"fd00::1\", 10.96.0.3]\nports:\n- port: 80"), expect!["f.yaml:6:15: Service default/web: spec.clusterIPs: too many entries: at most 2 are allowed"]);
}

#[test]
fn affinity() {
    let with = |seconds: &str| {
        service(&format!(
            "sessionAffinity: ClientIP\nsessionAffinityConfig:\n  clientIP:\n    timeoutSeconds: {seconds}\nports:\n- port: 80"
        ))
    };
    check(&with("-5"), expect!["f.yaml:9:23: Service default/web: spec.sessionAffinityConfig.clientIP.timeoutSeconds: -5 is not a time-out: 1 to 86400 seconds"]);
    check(&with("0"), expect!["f.yaml:9:23: Service default/web: spec.sessionAffinityConfig.clientIP.timeoutSeconds: 0 is not a time-out: 1 to 86400 seconds"]);
    check(&with("86401"), expect!["f.yaml:9:23: Service default/web: spec.sessionAffinityConfig.clientIP.timeoutSeconds: 86401 is not a time-out: 1 to 86400 seconds"]);
    check(&with("3h"), expect![[r#"f.yaml:9:23: Service default/web: spec.sessionAffinityConfig.clientIP.timeoutSeconds: "3h" is not a time-out: 1 to 86400 seconds"#]]);
}

#[test]
fn endpoints_of_slices() {
    let with = |address: &str| {
        slice(&format!("addressType: IPv4\nports:\n- port: 80\nendpoints:\n- addresses:\n  - {address}\n"))
    };
    check(&with("10.244.1"), expect![[r#"f.yaml:12:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: "10.244.1" is not an IP address"#]]);
    check(&with("fd00::1"), expect!["f.yaml:12:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: fd00::1 is not of the slice's addressType, IPv4"]);
    check(&with("0.0.0.0"), expect!["f.yaml:12:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: 0.0.0.0 is the unspecified address: neither a Service nor an endpoint can have it"]);
    check(&with("127.0.0.1"), expect!["f.yaml:12:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: 127.0.0.1 is a loopback address (127.0.0.0/8, ::1): neither a Service nor an endpoint can have it"]);
    check(&with("169.254.169.254"), expect!["f.yaml:12:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: 169.254.169.254 is a link-local address (169.254.0.0/16, fe80::/10): neither a Service nor an endpoint can have it"]);
    check(&with("224.0.0.1"), expect!["f.yaml:12:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: 224.0.0.1 is a multicast address (224.0.0.0/4, ff00::/8): neither a Service nor an endpoint can have it"]);
    check(&with("\"::1\""), expect!["f.yaml:12:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: ::1 is a loopback address (127.0.0.0/8, ::1): neither a Service nor an endpoint can have it"]);
    check(&with("fe80::1"), expect!["f.yaml:12:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: fe80::1 is a link-local address (169.254.0.0/16, fe80::/10): neither a Service nor an endpoint can have it"]);
    check(&slice("addressType: IPv4\nendpoints:\n- addresses: []\n"), expect!["f.yaml:9:14: EndpointSlice default/web-1: endpoints[0].addresses: an endpoint has an address"]);
    check(
        &slice("addressType: IPv4\nendpoints:\n- addresses: [10.0.0.1]\n  conditions: {ready: maybe}\n"),
        expect!["f.yaml:10:23: EndpointSlice default/web-1: endpoints[0].conditions.ready: invalid boolean"],
    );
    check(&slice("addressType: ipv4\nendpoints: []\n"), expect![[r#"f.yaml:7:14: EndpointSlice default/web-1: addressType: "ipv4" is not a type of address: IPv4, IPv6 or FQDN"#]]);
    check(&slice("endpoints: []\n"), expect!["f.yaml:1:1: EndpointSlice default/web-1: addressType: is missing: IPv4, IPv6 or FQDN"]);
    check(&slice("addressType: IPv4\nports:\n- port: 80\n- port: 81\n"), expect![[r#"f.yaml:10:3: EndpointSlice default/web-1: ports[1]: "" is the name of an earlier port too"#]]);
}

#[test]
fn hand_made_endpoints() {
    let with =
        |subset: &str| format!("apiVersion: v1\nkind: Endpoints\nmetadata: {{name: db}}\nsubsets:\n{subset}");
    check(&with("- addresses:\n  - ip: db.example.com\n  ports:\n  - port: 3306\n"), expect![[r#"f.yaml:6:9: Endpoints default/db: subsets[0].addresses[0].ip: "db.example.com" is not an IP address"#]]);
    check(&with("- addresses:\n  - ip: 127.0.0.1\n  ports:\n  - port: 3306\n"), expect!["f.yaml:6:9: Endpoints default/db: subsets[0].addresses[0].ip: 127.0.0.1 is a loopback address (127.0.0.0/8, ::1): neither a Service nor an endpoint can have it"]);
    check(&with("- addresses:\n  - ip: 10.0.0.1\n  ports:\n  - name: mysql\n"), expect!["f.yaml:8:5: Endpoints default/db: subsets[0].ports[0].port: is missing"]);
    check(&with("- addresses:\n  - hostname: db\n"), expect!["f.yaml:6:5: Endpoints default/db: subsets[0].addresses[0]: missing field `ip`"]);
}

#[test]
fn what_it_is() {
    check("kind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n", expect!["f.yaml:1:1: Service default/web: apiVersion: is missing"]);
    check("apiVersion: v1\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n", expect!["f.yaml:1:1: kind: is missing"]);
    check("apiVersion: v2\nkind: Service\nmetadata: {name: web}\n", expect![[r#"f.yaml:1:13: Service default/web: apiVersion: "v2" is not supported: Service is of v1"#]]);
    check(
        "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\nmetadata: {name: web-1}\n",
        expect![[r#"f.yaml:1:13: EndpointSlice default/web-1: apiVersion: "discovery.k8s.io/v1beta1" is not supported: EndpointSlice is of discovery.k8s.io/v1"#]],
    );
    check("apiVersion: v1\nkind: EndpointSlice\nmetadata: {name: web-1}\n", expect![[r#"f.yaml:1:13: EndpointSlice default/web-1: apiVersion: "v1" is not supported: EndpointSlice is of discovery.k8s.io/v1"#]]);
    check("apiVersion: v1\nkind: Service\nspec: {ports: [{port: 80}]}\n", expect!["f.yaml:1:1: Service: metadata.name: is missing"]);
    check("apiVersion: v1\nkind: Service\nmetadata: {name: web}\n", expect!["f.yaml:1:1: Service default/web: spec: is missing"]);
    check(
        "apiVersion: v1\nkind: Service\nmetadata: {generateName: web-}\nspec: {ports: [{port: 80}]}\n",
        expect!["f.yaml:3:26: Service: metadata.generateName: is not supported here: only an API server can generate names; give metadata.name"],
    );
    check("apiVersion: v1\nkind: Service\nmetadata: {name: Web}\nspec: {ports: [{port: 80}]}\n", expect![[r#"f.yaml:3:18: Service default/Web: metadata.name: "Web" is not a name: 1 to 253 lower-case letters, digits, '-' and '.', with '-' and '.' at neither end"#]]);
    check(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: a/b}\nspec: {ports: [{port: 80}]}\n",
        expect![[r#"f.yaml:3:34: Service a/b/web: metadata.namespace: "a/b" is not a name: 1 to 63 lower-case letters, digits and '-', with '-' at neither end"#]],
    );
    check(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, creationTimestamp: yesterday}\nspec: {ports: [{port: 80}]}\n",
        expect![[r#"f.yaml:3:42: Service default/web: metadata.creationTimestamp: "yesterday" is not a time such as 2026-01-31T12:00:00Z"#]],
    );
    check("- apiVersion: v1\n  kind: Service\n", expect!["f.yaml: invalid type: sequence, expected a Kubernetes object: fields such as apiVersion, kind and metadata"]);
    check("just words\n", expect![[r#"f.yaml: invalid type: string "just words", expected a Kubernetes object: fields such as apiVersion, kind and metadata"#]]);
    check(&format!("{GOOD}---\n{}", service("clusterIP: 10.96.0.9\nports:\n- port: 80")), expect!["f.yaml:16:9: Service default/web: metadata.name: this object stands in this file already"]);
}

#[test]
fn lists() {
    check(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: web}\n  spec:\n    ports:\n    - port: 0\n",
        expect!["f.yaml:9:13: Service default/web: items[0].spec.ports[0].port: 0 is not a port: 1 to 65535"],
    );
    check("apiVersion: v1\nkind: List\nitems:\n- kind: Service\n  metadata: {name: web}\n", expect!["f.yaml:4:3: Service default/web: items[0].apiVersion: is missing"]);
    check(
        "apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: web}\n  spec: {clusterIP: 1.2.3, ports: [{port: 80}]}\n",
        expect![[r#"f.yaml:5:21: items[0].spec.clusterIP: "1.2.3" is not an IP address; or "None""#]],
    );
    check("apiVersion: v1\nkind: List\nitems: Service\n", expect![[r#"f.yaml:3:1: List: invalid type: string "Service", expected a list"#]]);
}

#[test]
fn syntax() {
    check("apiVersion: v1\nkind: Service\nmetadata:\n\tname: web\n", expect!["f.yaml:4:2: Service: tabs disallowed within this context (block indentation)"]);
    check(
        "apiVersion: v1\nkind: Service\nmetadata: {name: \"web}\nspec:\n  ports:\n  - port: 80\n",
        expect!["f.yaml:3:18: Service: metadata: unclosed quote"],
    );
    check(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports:\n  - port: 80\n    port: 81\n",
        expect!["f.yaml:7:5: Service default/web: spec.ports[0].?: duplicate mapping key `port` is not allowed here"],
    );
    check("apiVersion: v1\nkind: Service\nkind: Service\nmetadata: {name: web}\n", expect!["f.yaml:3:1: Service: duplicate mapping key `kind` is not allowed here"]);
    check(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports:\n - port: 80\n",
        expect!["f.yaml:6:2: Service default/web: ?: while parsing a block mapping, did not find expected key"],
    );
    check("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: *nowhere}\n", expect!["f.yaml:4:15: Service default/web: spec: reference to unknown value"]);
    check(
        "{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"web\"}, \"spec\": {\"ports\": [{\"po",
        expect!["f.yaml:1:90: unclosed quote"],
    );
    check(&format!("{GOOD}---\n{GOOD}---\napiVersion: v1\nkind: [\n"), expect![[r#"
        f.yaml:15:18: Service default/web: metadata.name: this object stands in this file already
        f.yaml:20:18: EndpointSlice default/web-1: metadata.name: this object stands in this file already
        f.yaml:26:7: expected string scalar"#]]);
}

#[test]
fn not_text() {
    check_bytes(b"\x7fELF\x02\x01\x01\0\0\0\0", expect!["f.yaml: is not a text file: it holds NUL bytes"]);
    check_bytes(b"apiVersion: v1\nkind: Service\nmetadata: {name: caf\xe9}\n", expect!["f.yaml:3:21: is not UTF-8 text: byte 0xe9 cannot stand here"]);
}

#[test]
fn bombs() {
    let mut bomb = String::from(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\na0: &a0 [x, x, x, x, x, x, x, x, x]\n",
    );
    for level in 1..=9 {
        let alias = format!("*a{}", level - 1);
        let _ = writeln!(bomb, "a{level}: &a{level} [{}]", [alias.as_str(); 9].join(", "));
    }
    bomb += "spec: {ports: [{port: 80}]}\n";
    check(&bomb, expect!["f.yaml:9:10: Service default/web: a5[0][2][0][5][4]: YAML document too large or too complex: limits breached: RecordedAnchorEvents { recorded_anchor_events: 100001 }"]);
    check(&format!("apiVersion: v1\nkind: Service\nspec: {}\n", "[".repeat(100_000)), expect!["f.yaml:3:262: Service: recursion limit exceeded"]);
    let deep: String = (0..2000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    check(&format!("{deep}apiVersion: v1\nkind: Service\n"), expect!["f.yaml:65:65: YAML document too large or too complex: limits breached: Depth { depth: 65 }"]);
}

#[test]
fn a_million_endpoints_are_refused_fast() {
    let head = slice("addressType: IPv4\nports: [{port: 80}]\nendpoints:\n");
    let content = head + &"- addresses: [10.244.1.1]\n".repeat(1_000_000);
    let start = Instant::now();
    let changes = read(content.as_bytes());
    let spent = start.elapsed();
    expect![[r#"
        problem: f.yaml:10:3: EndpointSlice default/web-1: endpoints: too many entries: at most 1000 are allowed
    "#]].assert_eq(&render(&changes));
    assert!(spent < Duration::from_secs(2), "{spent:?}");
}
