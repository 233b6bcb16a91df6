//! Files that kube-ipvs rejects as a whole: no objects, no YAML, no text, or too large.

use expect_test::{Expect, expect};

use super::{
    broken::{check, port, slice},
    *,
};

#[test]
fn invalid_type_or_metadata_rejects_the_file() {
    let spec = "spec: {ports: [{port: 80}]}\n";
    let heads = [
        "kind: Service\nmetadata: {name: web}\n",
        "apiVersion: v1\nmetadata: {name: web}\n",
        "apiVersion: v2\nkind: Service\nmetadata: {name: web}\n",
        "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\nmetadata: {name: web-1}\n",
        "apiVersion: v1\nkind: EndpointSlice\nmetadata: {name: web-1}\n",
        "apiVersion: v1\nkind: Service\n",
        "apiVersion: v1\nkind: Service\nmetadata: {generateName: web-}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: Web}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a.b}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: a/b}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, creationTimestamp: yesterday}\n",
        "apiVersion: v1\nkind: [Service]\nmetadata: {name: web}\n",
    ];
    check(
        heads.map(|head| format!("{head}{spec}")),
        expect![[r#"
            f.yaml:1:1: Service default/web: apiVersion: is missing
            f.yaml:1:1: kind: is missing
            f.yaml:1:13: Service default/web: apiVersion: "v2" is not supported: for Service, use v1
            f.yaml:1:13: EndpointSlice default/web-1: apiVersion: "discovery.k8s.io/v1beta1" is not supported: for EndpointSlice, use discovery.k8s.io/v1
            f.yaml:1:13: EndpointSlice default/web-1: apiVersion: "v1" is not supported: for EndpointSlice, use discovery.k8s.io/v1
            f.yaml:1:1: Service: metadata.name: is missing
            f.yaml:3:26: Service: metadata.generateName: is not supported here: only an API server can generate names. Set metadata.name
            f.yaml:3:18: Service default/Web: metadata.name: "Web" is not a valid name: use 1 to 253 lower-case letters, digits, '-' and '.', without '-' or '.' at either end
            f.yaml:3:18: Service default/a.b: metadata.name: "a.b" is not a valid name of a Service: use at most 63 lower-case letters, digits and '-'
            f.yaml:3:34: Service a/b/web: metadata.namespace: "a/b" is not a valid name: use 1 to 63 lower-case letters, digits and '-', without '-' at either end
            f.yaml:3:42: Service default/web: metadata.creationTimestamp: "yesterday" is not a time such as 2026-01-31T12:00:00Z
            f.yaml:2:7: kind: this is a list, not a string
        "#]],
    );
    let whole = ["- apiVersion: v1\n", "just words\n", "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"];
    check(
        whole,
        expect![[r#"
            f.yaml:1:1: this is a list, not a Kubernetes object with fields such as apiVersion, kind and metadata
            f.yaml:1:1: this is string "just words", not a Kubernetes object with fields such as apiVersion, kind and metadata
            f.yaml:1:1: Service default/web: spec: is missing
        "#]],
    );
    check(
        [format!("{GOOD}---\n{}", port("port: 80"))],
        expect![[r#"
            f.yaml:16:9: Service default/web: metadata.name: the file has this object already
        "#]],
    );
}

#[test]
fn invalid_lists_are_reported_with_their_place() {
    let lists = [
        "kind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: web}\n  spec: {ports: [{port: 0}]}\n",
        "kind: List\nitems:\n- kind: Service\n  metadata: {name: web}\n",
        "kind: List\nitems:\n- {apiVersion: v1, kind: List, items: []}\n",
        "kind: ServiceList\nitems:\n- metadata: {name: web}\n  spec: {clusterIP: 1.2.3, ports: [{port: 80}]}\n",
        "kind: List\nitems: Service\n",
    ];
    check(
        lists.map(|list| format!("apiVersion: v1\n{list}")),
        expect![[r#"
            f.yaml:7:25: Service default/web: items[0].spec.ports[0].port: 0 is not a port: 1 to 65535
            f.yaml:4:3: Service default/web: items[0].apiVersion: is missing
            f.yaml:4:26: List: items[0].kind: a list cannot contain a list
            f.yaml:5:21: items[0].spec.clusterIP: "1.2.3" is not an IP address
            f.yaml:3:8: List: items: this is string "Service", not a list
        "#]],
    );
}

#[test]
fn yaml_syntax_errors_are_reported_with_their_place() {
    let rest = [
        "metadata:\n\tname: web\n",
        "metadata: {name: \"web}\nspec:\n  ports:\n  - port: 80\n",
        "metadata: {name: web}\nspec:\n  ports:\n  - port: 80\n    port: 81\n",
        "kind: Service\nmetadata: {name: web}\n",
        "metadata: {name: web}\nspec:\n  ports:\n - port: 80\n",
        "metadata: {name: web}\nspec: {ports: *nowhere}\n",
        "metadata: {name: web}\nspec: {ports: [\n",
    ];
    check(
        rest.map(|rest| format!("apiVersion: v1\nkind: Service\n{rest}")),
        expect![[r#"
            f.yaml:4:2: tabs disallowed within this context (block indentation)
            f.yaml:3:18: unclosed quote
            f.yaml:7:5: duplicate mapping key `port` is not allowed here
            f.yaml:3:1: duplicate mapping key `kind` is not allowed here
            f.yaml:6:2: while parsing a block mapping, did not find expected key
            f.yaml:4:15: reference to unknown value
            f.yaml:4:15: unclosed bracket '['
        "#]],
    );
    check(
        ["{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"spec\": {\"ports\": [{\"po"],
        expect![[r#"
        f.yaml:1:61: unclosed quote
    "#]],
    );
}

#[test]
fn every_document_of_a_file_is_checked_up_to_the_problem_limit() {
    check(
        [format!("{}---\n{GOOD}---\nkind: [\n", port("port: 0"))],
        expect![[r#"
            f.yaml:7:11: Service default/web: spec.ports[0].port: 0 is not a port: 1 to 65535
            f.yaml:21:7: unclosed bracket '['
        "#]],
    );
    check(
        ["---\nkind: Service\n".repeat(30)],
        expect![[r#"
        f.yaml:2:1: Service: apiVersion: is missing
        f.yaml:4:1: Service: apiVersion: is missing
        f.yaml:6:1: Service: apiVersion: is missing
        f.yaml:8:1: Service: apiVersion: is missing
        f.yaml:10:1: Service: apiVersion: is missing
        f.yaml:12:1: Service: apiVersion: is missing
        f.yaml:14:1: Service: apiVersion: is missing
        f.yaml:16:1: Service: apiVersion: is missing
        f.yaml:18:1: Service: apiVersion: is missing
        f.yaml:20:1: Service: apiVersion: is missing
        f.yaml:22:1: Service: apiVersion: is missing
        f.yaml:24:1: Service: apiVersion: is missing
        f.yaml:26:1: Service: apiVersion: is missing
        f.yaml:28:1: Service: apiVersion: is missing
        f.yaml:30:1: Service: apiVersion: is missing
        f.yaml:32:1: Service: apiVersion: is missing
        f.yaml:34:1: Service: apiVersion: is missing
        f.yaml:36:1: Service: apiVersion: is missing
        f.yaml:38:1: Service: apiVersion: is missing
        f.yaml:40:1: Service: apiVersion: is missing
    "#]],
    );
}

#[test]
fn binary_file_is_rejected_as_no_text() {
    let files: [&[u8]; 2] =
        [b"\x7fELF\x02\x01\x01\0\0\0\0", b"apiVersion: v1\nkind: Service\nmetadata: {name: caf\xe9}\n"];
    check(
        files,
        expect![[r#"
            f.yaml: is not a text file: it has NUL bytes
            f.yaml:3:21: is not UTF-8 text: byte 0xe9 is invalid here
        "#]],
    );
}

#[test]
fn yaml_bombs_are_rejected() {
    let head = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n";
    let mut laughs = format!("{head}a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..=9 {
        let alias = format!("*a{}", level - 1);
        let _ = writeln!(laughs, "a{level}: &a{level} [{}]", [alias.as_str(); 9].join(", "));
    }
    let flat = format!("{head}a: &a [{}]\nb: [{}]\n", "x, ".repeat(1000), "*a, ".repeat(900));
    let brackets = format!("{head}spec: {}\n", "[".repeat(100_000));
    let deep: String = (0..2000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let keys: String = (0..100_000).map(|key| format!("a{key}: &x{key} b\n")).collect();
    check(
        [laughs, flat, brackets, format!("{deep}{head}"), format!("{head}{keys}")],
        expect![[r#"
            f.yaml:9:10: is too large or too complex: check its aliases
            f.yaml:5:401: is too large or too complex: check its aliases
            f.yaml:4:262: is nested too deeply
            f.yaml:65:65: is nested too deeply
            f.yaml:1004:15: is too large or too complex: check its aliases
        "#]],
    );
}

#[test]
fn slice_with_too_many_endpoints_is_rejected() {
    let check = |content: String, expected: Expect| expected.assert_eq(&render(&read(content.as_bytes())));
    let endpoints = format!("endpoints:\n{}", "- addresses: [10.244.1.1]\n".repeat(10_000));
    check(
        slice(&format!("addressType: IPv4\n{endpoints}")),
        expect![[r#"
        problem: f.yaml:9:3: EndpointSlice default/web-1: endpoints: too many entries: at most 1000 are allowed
    "#]],
    );
    // `kubectl get -o yaml` sorts `kind` after the endpoints.
    let head = "addressType: IPv4\napiVersion: discovery.k8s.io/v1\n";
    check(
        format!("{head}{endpoints}kind: EndpointSlice\nmetadata: {{name: web-1}}\n"),
        expect![[r#"
            problem: f.yaml:4:3: EndpointSlice default/web-1: endpoints: too many entries: at most 1000 are allowed
        "#]],
    );
}
