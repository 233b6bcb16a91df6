//! Invalid fields: kube-ipvs reports them, and other files are not affected.

use expect_test::{Expect, expect};

use super::*;

/// Checks the report about each broken file, alone and as the only change to a good file.
pub(super) fn check<T: AsRef<[u8]>>(files: impl IntoIterator<Item = T>, expected: Expect) {
    let said: String = files.into_iter().map(|file| what_is_said(file.as_ref())).collect();
    expected.assert_eq(&said);
}

fn what_is_said(content: &[u8]) -> String {
    let alone = read(content);
    assert_eq!(alone.events, []);
    assert_ne!(alone.problems, [], "{}", String::from_utf8_lossy(content));

    let mut folder = Folder::default();
    let other = GOOD.replace("web", "other").replace("10.96.0.1", "10.96.0.2");
    load(&mut folder, &[("f.yaml", GOOD), ("other.yaml", &other)]);
    let changes = folder.load([("f.yaml", Content::Bytes(content))]);
    assert_eq!(changes.events, [], "the last good content stays in force");
    assert_eq!(changes.problems, alone.problems);
    assert!(folder.load([("f.yaml", Content::Bytes(content))]).is_empty(), "the problem is reported once");
    assert!(load(&mut folder, &[("f.yaml", GOOD)]).is_empty(), "mended, all is as it was");
    let again = folder.load([("f.yaml", Content::Bytes(content))]);
    assert_eq!(again.problems, alone.problems, "broken again, it is reported again");
    render(&alone).replace("problem: ", "")
}

/// A Service whose spec starts on line 6.
fn service(spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n{spec}")
}

/// A Service whose spec starts with `ports:` and this one port.
pub(super) fn port(fields: &str) -> String {
    service(&format!("ports:\n- {fields}\n"))
}

/// A slice whose own fields start on line 7.
pub(super) fn slice(rest: &str) -> String {
    let label = "kubernetes.io/service-name: web";
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  labels:\n    {label}\n{rest}"
    )
}

#[test]
fn invalid_port_numbers_are_reported() {
    let values = ["70000", "0", "-1", "\"80\"", "http", "80.5", "", "1e30", "999999999999999999999", "true", "[80]"];
    check(
        values.map(|value| port(&format!("port: {value}"))),
        expect![[r#"
            f.yaml:7:11: Service default/web: spec.ports[0].port: 70000 is not a port: 1 to 65535
            f.yaml:7:11: Service default/web: spec.ports[0].port: 0 is not a port: 1 to 65535
            f.yaml:7:11: Service default/web: spec.ports[0].port: -1 is not a port: 1 to 65535
            f.yaml:7:11: Service default/web: spec.ports[0].port: "80" is not a port: 1 to 65535; write it without quotes
            f.yaml:7:11: Service default/web: spec.ports[0].port: "http" is not a port: 1 to 65535
            f.yaml:7:11: Service default/web: spec.ports[0].port: 80.5 is not a port: 1 to 65535
            f.yaml:7:9: Service default/web: spec.ports[0].port: the value is missing: it must be a port: 1 to 65535
            f.yaml:7:11: Service default/web: spec.ports[0].port: a number this large is not a port: 1 to 65535
            f.yaml:7:11: Service default/web: spec.ports[0].port: a number this large is not a port: 1 to 65535
            f.yaml:7:11: Service default/web: spec.ports[0].port: this is boolean `true`, not a port: 1 to 65535
            f.yaml:7:11: Service default/web: spec.ports[0].port: this is a list, not a port: 1 to 65535
        "#]],
    );
}

#[test]
fn ports_of_the_wrong_shape_are_reported() {
    let shapes = [
        "ports: 80",
        "ports:\n  port: 80",
        "ports: []",
        "ports:",
        "ports:\n- 80",
        "ports:\n- name: a\n  targetPort: 80",
    ];
    check(
        shapes.map(service),
        expect![[r#"
            f.yaml:6:10: Service default/web: spec.ports: this is integer `80`, not a list
            f.yaml:7:5: Service default/web: spec.ports: this is a mapping, not a list
            f.yaml:6:10: Service default/web: spec.ports: a Service needs at least one port
            f.yaml:6:8: Service default/web: spec.ports: a Service needs at least one port
            f.yaml:7:5: Service default/web: spec.ports[0]: this is integer `80`, not a mapping with fields such as `name: value`
            f.yaml:7:5: Service default/web: spec.ports[0]: missing field `port`
        "#]],
    );
    let ports: String = (1..=20_001).map(|port| format!("\n- {{name: p{port}, port: {port}}}")).collect();
    check(
        [service(&format!("ports:{ports}"))],
        expect![[r#"
            f.yaml:7:5: Service default/web: spec.ports: too many entries: at most 20000 are allowed
        "#]],
    );
}

#[test]
fn invalid_port_fields_are_reported() {
    let fields = [
        "{port: 80, protocol: tcp}",
        "{port: 80, protocol: 6}",
        "{port: 80, name: HTTP_port}",
        "{port: 80, name: [http]}",
        "{port: 80, nodePort: 30080}",
        "{port: 80, nodePort: 65536}",
    ];
    check(
        fields.map(port),
        expect![[r#"
            f.yaml:7:26: Service default/web: spec.ports[0].protocol: unknown protocol "tcp": use TCP, UDP or SCTP
            f.yaml:7:26: Service default/web: spec.ports[0].protocol: this is integer `6`, not a protocol: TCP, UDP or SCTP
            f.yaml:7:22: Service default/web: spec.ports[0].name: "HTTP_port" is not a valid name of a port: use at most 63 lower-case letters, digits and '-', without '-' at either end
            f.yaml:7:22: Service default/web: spec.ports[0].name: this is a list, not the name of a port
            f.yaml:7:26: Service default/web: spec.ports[0].nodePort: is only for Services of type NodePort or LoadBalancer: set spec.type
            f.yaml:7:26: Service default/web: spec.ports[0].nodePort: 65536 is not a node port: 1 to 65535
        "#]],
    );
}

#[test]
fn duplicate_ports_of_a_service_are_reported() {
    let pairs = [
        "- {name: a, port: 80}\n- {name: b, port: 80}",
        "- {name: a, port: 80}\n- {name: a, port: 81}",
        "- {name: a, port: 80}\n- port: 81",
        "- {name: a, port: 80, nodePort: 30000}\n- {name: b, port: 81, nodePort: 30000}",
    ];
    check(
        pairs.map(|ports| service(&format!("type: NodePort\nports:\n{ports}"))),
        expect![[r#"
            f.yaml:9:21: Service default/web: spec.ports[1].port: an earlier port is TCP 80 too
            f.yaml:9:12: Service default/web: spec.ports[1].name: an earlier port has the name "a" too
            f.yaml:9:5: Service default/web: spec.ports[1]: has no name: if a Service has several ports, each needs a name
            f.yaml:9:35: Service default/web: spec.ports[1].nodePort: an earlier port has the nodePort TCP 30000 too
        "#]],
    );
}

#[test]
fn invalid_words_in_a_service_are_reported() {
    let words = ["type: Nodeport", "type: 1", "sessionAffinity: ClientIp", "selector: web"];
    check(
        words.map(|word| service(&format!("{word}\nports:\n- port: 80"))),
        expect![[r#"
            f.yaml:6:9: Service default/web: spec.type: "Nodeport" is not a Service type: use ClusterIP, NodePort, LoadBalancer or ExternalName
            f.yaml:6:9: Service default/web: spec.type: this is integer `1`, not a Service type
            f.yaml:6:20: Service default/web: spec.sessionAffinity: "ClientIp" is not a session affinity: use None or ClientIP
            f.yaml:6:13: Service default/web: spec.selector: this is string "web", not a mapping with fields such as `name: value`
        "#]],
    );
}

#[test]
fn invalid_cluster_ips_are_reported() {
    let fields = [
        "clusterIP: 10.96.0",
        "clusterIP: 10.96.0.1/32",
        "clusterIP: none",
        "clusterIP: 127.0.0.1",
        "clusterIPs: 10.96.0.1",
        "clusterIPs: [10.96.0.1, 10.96.0.2]",
        "clusterIP: 10.96.0.2\nclusterIPs: [10.96.0.1]",
        "clusterIPs: [10.96.0.1, \"fd00::1\", 10.96.0.3]",
        "clusterIPs: [10.96.0.1, None]",
    ];
    check(
        fields.map(|field| service(&format!("{field}\nports:\n- port: 80"))),
        expect![[r#"
            f.yaml:6:14: Service default/web: spec.clusterIP: "10.96.0" is not an IP address
            f.yaml:6:14: Service default/web: spec.clusterIP: "10.96.0.1/32" is not an IP address: write 10.96.0.1 alone
            f.yaml:6:14: Service default/web: spec.clusterIP: "none" is not an IP address. For a headless Service, write "None" and no address
            f.yaml:6:14: Service default/web: spec.clusterIP: 127.0.0.1 is a loopback address (127.0.0.0/8, ::1): neither a Service nor an endpoint can have it
            f.yaml:6:15: Service default/web: spec.clusterIPs: this is string "10.96.0.1", not a list
            f.yaml:6:27: Service default/web: spec.clusterIPs[1]: has the same family as the first: use at most one of each
            f.yaml:6:14: Service default/web: spec.clusterIP: differs from the first of spec.clusterIPs
            f.yaml:6:15: Service default/web: spec.clusterIPs: too many entries: at most 2 are allowed
            f.yaml:6:27: Service default/web: spec.clusterIPs[1]: "None" is not an IP address. For a headless Service, write "None" and no address
        "#]],
    );
}

#[test]
fn session_affinity_timeouts_out_of_range_are_reported() {
    let with = |seconds: &str| {
        let config = format!("sessionAffinityConfig:\n  clientIP:\n    timeoutSeconds: {seconds}");
        service(&format!("sessionAffinity: ClientIP\n{config}\nports:\n- port: 80"))
    };
    check(
        ["-5", "0", "86401", "3h"].map(with),
        expect![[r#"
            f.yaml:9:23: Service default/web: spec.sessionAffinityConfig.clientIP.timeoutSeconds: -5 is not a timeout: 1 to 86400 seconds
            f.yaml:9:23: Service default/web: spec.sessionAffinityConfig.clientIP.timeoutSeconds: 0 is not a timeout: 1 to 86400 seconds
            f.yaml:9:23: Service default/web: spec.sessionAffinityConfig.clientIP.timeoutSeconds: 86401 is not a timeout: 1 to 86400 seconds
            f.yaml:9:23: Service default/web: spec.sessionAffinityConfig.clientIP.timeoutSeconds: "3h" is not a timeout: 1 to 86400 seconds
        "#]],
    );
}

#[test]
fn invalid_slice_addresses_are_reported() {
    let addresses = [
        "10.244.1",
        "fd00::1",
        "0.0.0.0",
        "127.0.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "\"::\"",
        "\"::1\"",
        "fe80::1",
        "ff02::1",
        "\"::ffff:127.0.0.1\"",
        "web.example.com",
    ];
    let with = |address| slice(&format!("addressType: IPv4\nendpoints:\n- addresses:\n  - {address}\n"));
    check(
        addresses.map(with),
        expect![[r#"
            f.yaml:10:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: "10.244.1" is not an IP address
            f.yaml:10:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: fd00::1 is not an IPv4 address, as the slice's addressType requires
            f.yaml:10:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: 0.0.0.0 is the unspecified address: neither a Service nor an endpoint can have it
            f.yaml:10:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: 127.0.0.1 is a loopback address (127.0.0.0/8, ::1): neither a Service nor an endpoint can have it
            f.yaml:10:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: 169.254.169.254 is a link-local address (169.254.0.0/16, fe80::/10): neither a Service nor an endpoint can have it
            f.yaml:10:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: 224.0.0.1 is a multicast address (224.0.0.0/4, ff00::/8): neither a Service nor an endpoint can have it
            f.yaml:10:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: 255.255.255.255 is the broadcast address: neither a Service nor an endpoint can have it
            f.yaml:10:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: :: is the unspecified address: neither a Service nor an endpoint can have it
            f.yaml:10:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: ::1 is a loopback address (127.0.0.0/8, ::1): neither a Service nor an endpoint can have it
            f.yaml:10:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: fe80::1 is a link-local address (169.254.0.0/16, fe80::/10): neither a Service nor an endpoint can have it
            f.yaml:10:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: ff02::1 is a multicast address (224.0.0.0/4, ff00::/8): neither a Service nor an endpoint can have it
            f.yaml:10:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: 127.0.0.1 is a loopback address (127.0.0.0/8, ::1): neither a Service nor an endpoint can have it
            f.yaml:10:5: EndpointSlice default/web-1: endpoints[0].addresses[0]: "web.example.com" is not an IP address
        "#]],
    );
    check(
        [slice("addressType: IPv6\nendpoints:\n- addresses: [\"::ffff:10.0.0.1\"]\n")],
        expect![[r#"
            f.yaml:9:15: EndpointSlice default/web-1: endpoints[0].addresses[0]: 10.0.0.1 is not an IPv6 address, as the slice's addressType requires
        "#]],
    );
}

#[test]
fn invalid_slice_fields_are_reported() {
    let rest = [
        "addressType: IPv4\nendpoints:\n- addresses: []\n",
        "addressType: IPv4\nendpoints:\n- addresses: [10.0.0.1]\n  conditions: {ready: maybe}\n",
        "addressType: IPv4\nendpoints:\n- addresses: [10.0.0.1]\n  nodeName: Node_1\n",
        "addressType: IPv4\nendpoints: 10.0.0.1\n",
        "addressType: ipv4\nendpoints: []\n",
        "endpoints: []\n",
        "addressType: IPv4\nports:\n- port: 80\n- port: 81\n",
    ];
    check(
        rest.map(slice),
        expect![[r#"
            f.yaml:9:14: EndpointSlice default/web-1: endpoints[0].addresses: an endpoint needs an address
            f.yaml:10:23: EndpointSlice default/web-1: endpoints[0].conditions.ready: this is string "maybe", not a boolean
            f.yaml:10:13: EndpointSlice default/web-1: endpoints[0].nodeName: "Node_1" is not a valid name: use 1 to 253 lower-case letters, digits, '-' and '.', without '-' or '.' at either end
            f.yaml:8:12: EndpointSlice default/web-1: endpoints: this is string "10.0.0.1", not a list
            f.yaml:7:14: EndpointSlice default/web-1: addressType: "ipv4" is not an address type: use IPv4, IPv6 or FQDN
            f.yaml:1:1: EndpointSlice default/web-1: addressType: is missing: use IPv4, IPv6 or FQDN
            f.yaml:10:3: EndpointSlice default/web-1: ports[1]: an earlier port has the name "" too
        "#]],
    );
    check(
        [slice("addressType: IPv4\n").replace("name: web\n", "name: Web!\n")],
        expect![[r#"
        f.yaml:6:5: EndpointSlice default/web-1: metadata.labels: label kubernetes.io/service-name: "Web!" is not the name of a Service
    "#]],
    );
    let numbers = ["0", "70000", "-1", "http"];
    check(
        numbers.map(|number| slice(&format!("addressType: IPv4\nports:\n- {{name: a, port: 80}}\n- port: {number}\n"))),
        expect![[r#"
            f.yaml:10:9: EndpointSlice default/web-1: ports[1].port: 0 is not a port: 1 to 65535
            f.yaml:10:9: EndpointSlice default/web-1: ports[1].port: 70000 is not a port: 1 to 65535
            f.yaml:10:9: EndpointSlice default/web-1: ports[1].port: -1 is not a port: 1 to 65535
            f.yaml:10:9: EndpointSlice default/web-1: ports[1].port: "http" is not a port: 1 to 65535
        "#]],
    );
}

#[test]
fn invalid_endpoints_are_reported() {
    let subsets = [
        "- addresses:\n  - ip: db.example.com\n  ports:\n  - port: 3306\n",
        "- addresses:\n  - ip: 127.0.0.1\n  ports:\n  - port: 3306\n",
        "- addresses:\n  - ip: 10.0.0.1\n  ports:\n  - name: mysql\n",
        "- addresses:\n  - hostname: db\n",
    ];
    let head = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: db}\nsubsets:\n";
    check(
        subsets.map(|subset| format!("{head}{subset}")),
        expect![[r#"
        f.yaml:6:9: Endpoints default/db: subsets[0].addresses[0].ip: "db.example.com" is not an IP address
        f.yaml:6:9: Endpoints default/db: subsets[0].addresses[0].ip: 127.0.0.1 is a loopback address (127.0.0.0/8, ::1): neither a Service nor an endpoint can have it
        f.yaml:8:5: Endpoints default/db: subsets[0].ports[0].port: is missing
        f.yaml:6:5: Endpoints default/db: subsets[0].addresses[0]: missing field `ip`
    "#]],
    );
}

#[test]
fn invalid_node_addresses_are_reported() {
    let head = "apiVersion: v1\nkind: Node\nmetadata: {name: node-1}\nstatus:\n  addresses:\n  ";
    check(
        ["- {type: InternalIP, address: node-1}\n", "- {address: 10.0.0.1}\n"].map(|a| format!("{head}{a}")),
        expect![[r#"
        f.yaml:6:33: Node node-1: status.addresses[0].address: "node-1" is not an IP address
        f.yaml:6:5: Node node-1: status.addresses[0]: missing field `type`
    "#]],
    );
}
