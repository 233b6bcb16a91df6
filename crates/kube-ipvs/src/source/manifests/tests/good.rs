//! Valid manifests, and the variants that the API allows.

use expect_test::{Expect, expect};

use super::*;

fn check(content: &str, expected: Expect) {
    expected.assert_eq(&render(&read(content.as_bytes())));
}

#[test]
fn file_without_objects_is_noted() {
    check(
        "",
        expect![[r#"
            problem: f.yaml: is empty. To remove its objects, remove the file
        "#]],
    );
    check(
        "# nothing yet\n",
        expect![[r#"
            note: f.yaml: has no objects
        "#]],
    );
    check(
        "---\n---\n# nothing\n...\n",
        expect![[r#"
            note: f.yaml: has no objects
        "#]],
    );
    check(
        "null\n---\n~\n",
        expect![[r#"
            note: f.yaml: has no objects
        "#]],
    );
}

#[test]
fn foreign_kinds_are_ignored_with_a_note() {
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n  ports: none\n";
    let knative = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: web}\nspec: {template: {}}\n";
    check(
        &format!("{GOOD}---\n{deployment}---\n{deployment}---\n{knative}"),
        expect![[r#"
            Service default/web [10.96.0.1] [TCP 80 ""]
            Slice default/web-1 of default/web IPv4 [TCP 8080 ""]
              10.244.1.1 ready serving
            note: f.yaml: kube-ipvs ignores objects that a proxy does not use: Deployment, Service
        "#]],
    );
}

#[test]
fn service_with_every_field_is_parsed() {
    check(
        "apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  creationTimestamp: \"2026-01-31T12:00:00Z\"
  labels: {app: web, tier: null}
  managedFields: [{manager: kubectl}]
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, \"fd00::1\"]
  ipFamilies: [IPv4, IPv6]
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}
  ports:
  - {name: http, port: 80, targetPort: http, nodePort: 30080}
  - {name: https, port: 443, targetPort: 8443, nodePort: 0}
  - {name: quic, port: 443, protocol: UDP}
  - {name: assoc, port: 9000, protocol: SCTP}
status:
  loadBalancer: {ingress: [{ip: 192.0.2.1}]}
",
        expect![[r#"
            Service shop/web [10.96.0.1, fd00::1] [TCP 80 "http" nodePort 30080] [TCP 443 "https"] [UDP 443 "quic"] [SCTP 9000 "assoc"] affinity 60s balancer [192.0.2.1] created 1769860800
        "#]],
    );
}

#[test]
fn null_fields_count_as_absent() {
    check(
        "apiVersion: v1
kind: Service
metadata: {name: web, namespace: null, labels: null, annotations: null, creationTimestamp: null}
spec: {type: null, clusterIP: \"\", clusterIPs: null, selector: null, sessionAffinity: null,
       sessionAffinityConfig: {clientIP: null}, ports: [{name: null, protocol: null, port: 80, nodePort: null}]}
status: null
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: null
endpoints: null
---
apiVersion: v1
kind: Endpoints
metadata: {name: web}
subsets: null
",
        expect![[r#"
            Service default/web [] [TCP 80 ""]
            Slice default/web-1 of default/web IPv4
            note: f.yaml: Service default/web: has no spec.clusterIP, and only an API server allocates one. Set spec.clusterIP
        "#]],
    );
}

#[test]
fn slice_conditions_and_ports_are_parsed() {
    check(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
ports: [{name: http, port: 8080, protocol: TCP}, {name: all, port: null}, {name: sctp, protocol: SCTP, port: 9}]
endpoints:
- {addresses: [\"fd00::1\"]}
- {addresses: [\"fd00::2\"], conditions: {}}
- {addresses: [\"fd00::3\"], conditions: {ready: false}}
- {addresses: [\"fd00::4\"], conditions: {ready: null, serving: null, terminating: null}}
- {addresses: [\"fd00::5\"], conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [\"fd00::8\"], conditions: {ready: false, terminating: true}}
- {addresses: [\"fd00::6\", \"fd00::7\"], nodeName: node-1, zone: a, hints: {forZones: [{name: a}]}}
",
        expect![[r#"
            Slice default/web-1 of default/web IPv6 [TCP 8080 "http"] [SCTP 9 "sctp"]
              fd00::1 ready serving
              fd00::2 ready serving
              fd00::3 serving
              fd00::4 ready serving
              fd00::5 serving terminating
              fd00::8 serving terminating
              fd00::6 ready serving on node-1 for zones ["a"]
        "#]],
    );
}

#[test]
fn slices_of_no_service_or_another_proxy_are_ignored() {
    let slice = |labels: &str, address_type: &str, address: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s, labels: {{{labels}}}}}\n\
             addressType: {address_type}\nendpoints: [{{addresses: [{address}]}}]\n"
        )
    };
    check(&slice("app: web", "IPv4", "10.0.0.1"), expect![""]);
    check(&slice("kubernetes.io/service-name: \"\"", "IPv4", "10.0.0.1"), expect![""]);
    check(&slice("kubernetes.io/service-name: web", "FQDN", "web.example.com"), expect![""]);
    check(
        &slice("kubernetes.io/service-name: web, service.kubernetes.io/headless: \"\"", "IPv4", "10.0.0.1"),
        expect![""],
    );
    check(
        &slice("kubernetes.io/service-name: web, service.kubernetes.io/service-proxy-name: x", "IPv4", "10.0.0.1"),
        expect![""],
    );
}

/// As kube-proxy, which excludes these in its list request.
#[test]
fn services_labelled_headless_or_for_another_proxy_are_ignored() {
    for label in ["service-proxy-name", "headless"] {
        let labels = format!("labels: {{service.kubernetes.io/{label}: \"\"}}");
        let foreign = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, {labels}}}\n\
             spec: {{clusterIP: 10.96.0.1, ports: [{{port: 80}}]}}\n"
        );
        check(&foreign, expect![""]);
    }
}

/// Leader election left such locks in clusters for years. A dump of all Endpoints contains them.
#[test]
fn endpoints_of_a_leader_election_lock_are_ignored() {
    let lock = |annotations: &str| {
        format!(
            "{GOOD}---\napiVersion: v1\nkind: Endpoints\n\
             metadata: {{name: example.io-provisioner, namespace: kube-system, annotations: {{{annotations}}}}}\n\
             subsets: [{{addresses: [{{ip: 10.0.0.1}}], ports: [{{port: 80}}]}}]\n"
        )
    };
    for annotations in ["control-plane.alpha.kubernetes.io/leader: '{\"holderIdentity\":\"x\"}'", ""] {
        check(
            &lock(annotations),
            expect![[r#"
                Service default/web [10.96.0.1] [TCP 80 ""]
                Slice default/web-1 of default/web IPv4 [TCP 8080 ""]
                  10.244.1.1 ready serving
            "#]],
        );
    }
}

/// SIP, RTP, FTP and games use a thousand ports and more.
#[test]
fn service_and_endpoints_with_many_ports_are_followed() {
    let ports = |count: u32| -> String {
        (10_000..10_000 + count).map(|port| format!("  - {{name: p{port}, port: {port}, protocol: UDP}}\n")).collect()
    };
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  clusterIP: 10.96.0.1\n  ports:\n{}",
        ports(1600)
    );
    let endpoints = format!(
        "apiVersion: v1\nkind: Endpoints\nmetadata: {{name: web}}\n\
         subsets:\n- addresses: [{{ip: 10.0.0.1}}]\n  ports:\n{}",
        ports(150)
    );
    let changes = read(format!("{service}---\n{endpoints}").as_bytes());
    let [Event::ServiceApplied(service), Event::SliceApplied(slice)] = &changes.events[..] else {
        panic!("{}", render(&changes))
    };
    assert_eq!((service.ports.len(), slice.ports.len()), (1600, 150));
}

#[test]
fn endpoints_are_mirrored_as_slices_by_family() {
    check(
        "apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: 10.96.0.5, ports: [{name: sql, port: 3306}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: db}
subsets:
- addresses: [{ip: 10.0.0.2, nodeName: node-2}, {ip: 10.0.0.1}, {ip: \"fd00::1\"}]
  notReadyAddresses: [{ip: 10.0.0.3}, {ip: 10.0.0.1}]
  ports: [{name: sql, port: 3306}]
- addresses: [{ip: 10.0.0.9, targetRef: {kind: Pod}}]
  ports: [{name: sql, port: 3307}]
",
        expect![[r#"
            Service default/db [10.96.0.5] [TCP 3306 "sql"]
            Slice default/db:endpoints-0-ipv4 of default/db IPv4 [TCP 3306 "sql"]
              10.0.0.1 ready serving
              10.0.0.2 ready serving on node-2
              10.0.0.3
            Slice default/db:endpoints-0-ipv6 of default/db IPv6 [TCP 3306 "sql"]
              fd00::1 ready serving
            Slice default/db:endpoints-1-ipv4 of default/db IPv4 [TCP 3307 "sql"]
              10.0.0.9 ready serving
        "#]],
    );
}

#[test]
fn endpoints_beyond_a_thousand_are_omitted_and_reported() {
    let addresses = |from: u32, count: u32| -> String {
        (from..from + count).map(|n| format!("  - ip: 10.0.{}.{}\n", n >> 8, n & 255)).collect()
    };
    let content = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: db}}\nspec: {{clusterIP: 10.96.0.5, ports: [{{port: 3306}}]}}\n---\n\
         apiVersion: v1\nkind: Endpoints\nmetadata: {{name: db}}\nsubsets:\n- ports: [{{port: 3306}}]\n  addresses:\n{}  notReadyAddresses:\n{}",
        addresses(1, 1005),
        addresses(2001, 5)
    );
    let changes = read(content.as_bytes());
    let text: Vec<_> = changes.problems.iter().map(ToString::to_string).collect();
    expect![
        "f.yaml:10:3: Endpoints default/db: subsets[0]: more than 1000 addresses: 10 are left out, as in Kubernetes"
    ]
    .assert_eq(&text.join("\n"));
    let Event::SliceApplied(slice) = &changes.events[1] else { panic!("{}", render(&changes)) };
    assert_eq!(slice.endpoints.len(), 1000);
    assert!(slice.endpoints.iter().all(|endpoint| endpoint.conditions.ready));
}

#[test]
fn node_addresses_are_parsed() {
    check(
        "apiVersion: v1\nkind: Node\nmetadata: {name: node-1}\nstatus: {addresses: [{type: Hostname, address: node-1}, \
         {type: InternalIP, address: 192.168.0.1}, {type: ExternalIP, address: 192.0.2.1}, {type: InternalIP, address: \"fd00::1\"}]}\n",
        expect![[r#"
            Node node-1 [192.168.0.1, fd00::1] addresses [192.168.0.1, 192.0.2.1, fd00::1]
        "#]],
    );
}

#[test]
fn items_of_lists_are_parsed() {
    let service = "metadata: {name: web}, spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}";
    check(
        &format!(
            "apiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: Service, {service}}}\n- {{apiVersion: apps/v1, kind: Deployment, items: {{a: b}}}}\n"
        ),
        expect![[r#"
            Service default/web [10.96.0.1] [TCP 80 ""]
            note: f.yaml: kube-ipvs ignores objects that a proxy does not use: Deployment
        "#]],
    );
    check(
        &format!("apiVersion: v1\nkind: ServiceList\nmetadata: {{}}\nitems: [{{{service}}}]\n"),
        expect![[r#"
            Service default/web [10.96.0.1] [TCP 80 ""]
        "#]],
    );
    check(
        "apiVersion: apps/v1\nkind: DeploymentList\nitems: {any: thing}\n",
        expect![[r#"
            note: f.yaml: kube-ipvs ignores objects that a proxy does not use: DeploymentList
        "#]],
    );
    check(
        "apiVersion: v1\nkind: List\nitems: null\n",
        expect![[r#"
            note: f.yaml: has no objects
        "#]],
    );
}

#[test]
fn json_manifest_is_parsed() {
    check(
        "{\n\t\"kind\": \"Service\",\n\t\"apiVersion\": \"v1\",\n\t\"metadata\": {\"name\": \"web\", \"annotations\": {\"note\": \"caf\\u00e9 \\/ \\ud83d\\ude00\"}},\n\t\"spec\": {\"clusterIP\": \"10.96.0.1\", \"ports\": [{\"port\": 80}]}\n}\n",
        expect![[r#"
            Service default/web [10.96.0.1] [TCP 80 ""]
        "#]],
    );
}

#[test]
fn yaml_variants_are_parsed() {
    // Windows line ends, a byte order mark, a directive, anchors, and `kind` as the last field.
    check(
        &GOOD.replace('\n', "\r\n"),
        expect![[r#"
        Service default/web [10.96.0.1] [TCP 80 ""]
        Slice default/web-1 of default/web IPv4 [TCP 8080 ""]
          10.244.1.1 ready serving
    "#]],
    );
    check(
        &format!("\u{feff}{GOOD}"),
        expect![[r#"
        Service default/web [10.96.0.1] [TCP 80 ""]
        Slice default/web-1 of default/web IPv4 [TCP 8080 ""]
          10.244.1.1 ready serving
    "#]],
    );
    check(
        "%YAML 1.2\n--- # the first\nmetadata: {name: &name web, labels: {app: *name}}\nspec:\n  clusterIP: 10.96.0.1\n  ports:\n  - port: 80\nkind: Service\napiVersion: v1\n...\n",
        expect![[r#"
            Service default/web [10.96.0.1] [TCP 80 ""]
        "#]],
    );
}
