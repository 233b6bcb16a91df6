//! The example manifests of the project.

use std::path::Path;

use expect_test::{Expect, expect};

use super::{super::ManifestSource, *};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/examples")
}

fn check(name: &str, expected: Expect) {
    expected.assert_eq(&render(&read(&std::fs::read(folder().join(name)).unwrap())));
}

#[test]
fn example_hostnames_is_parsed() {
    check(
        "01-hostnames.yaml",
        expect![[r#"
        Service default/hostnames [10.0.91.192] [TCP 80 "default"]
        Slice default/hostnames-x7k2p of default/hostnames IPv4 [TCP 9376 "default"]
          10.1.161.47 ready serving on node-1
          10.1.166.146 ready serving on node-2
          10.1.166.166 ready serving on node-2
    "#]],
    );
}

#[test]
fn example_myapp_is_parsed() {
    check(
        "02-myapp.yaml",
        expect![[r#"
        Service default/myapp [10.111.98.163] [TCP 80 "http"]
        Slice default/myapp-8jq4d of default/myapp IPv4 [TCP 80 "http"]
          10.244.1.57 ready serving on node-1
          10.244.1.58 ready serving on node-1
          10.244.2.50 ready serving on node-2
    "#]],
    );
}

#[test]
fn example_my_nginx_is_parsed() {
    check(
        "03-my-nginx.yaml",
        expect![[r#"
        Service default/my-nginx [10.10.178.9] [TCP 80 "tcp-80"]
        Slice default/my-nginx-5wqz9 of default/my-nginx IPv4 [TCP 80 "tcp-80"]
          10.244.58.199 ready serving on node-1
          10.244.85.198 ready serving on node-2
    "#]],
    );
}

#[test]
fn example_nodeport_is_parsed() {
    check(
        "04-nodeport.yaml",
        expect![[r#"
        Service default/ssh-service1 [10.109.102.60] [TCP 2222 "ssh" nodePort 30239]
        Service default/web-nodeport-svc [10.109.102.59] [TCP 80 "" nodePort 30080]
        Service nodeport/my-nginx [10.10.228.115] [TCP 80 "tcp-80" nodePort 30380]
        Slice default/ssh-service1-m4h8s of default/ssh-service1 IPv4 [TCP 22 "ssh"]
          10.244.1.22 ready serving on node-1
          10.244.2.22 ready serving on node-2
        Slice default/web-nodeport-svc-tq6rv of default/web-nodeport-svc IPv4 [TCP 80 ""]
          10.244.1.16 ready serving on node-1
          10.244.2.20 ready serving on node-2
          10.244.2.21 ready serving on node-2
        Slice nodeport/my-nginx-9c2ld of nodeport/my-nginx IPv4 [TCP 80 "tcp-80"]
          10.244.58.199 ready serving on node-1
          10.244.85.198 ready serving on node-2
    "#]],
    );
}

#[test]
fn example_load_balancer_is_parsed() {
    check(
        "05-load-balancer.yaml",
        expect![[r#"
        Service default/web-lb [10.109.102.90] [TCP 80 "" nodePort 30090] balancer [203.0.113.10] from [198.51.100.0/24, 192.0.2.0/24]
        Slice default/web-lb-h6t2n of default/web-lb IPv4 [TCP 8080 ""]
          10.244.1.2 ready serving on node-1
          10.244.2.2 ready serving on node-2
    "#]],
    );
}

#[test]
fn example_external_name_and_headless_has_no_cluster_ip() {
    check(
        "06-external-name-headless.yaml",
        expect![[r#"
            Service default/baidu []
        "#]],
    );
}

#[test]
fn example_mysql_endpoints_are_mirrored() {
    check(
        "07-mysql-endpoints.yaml",
        expect![[r#"
        Service default/mysql [10.102.14.71] [TCP 3306 ""]
        Slice default/mysql:endpoints-0-ipv4 of default/mysql IPv4 [TCP 3306 ""]
          192.168.128.11 ready serving
    "#]],
    );
}

#[test]
fn example_no_match_has_an_empty_slice() {
    check(
        "08-no-match.yaml",
        expect![[r#"
        Service default/web-clusterip-svc [10.102.249.165] [TCP 80 ""]
        Slice default/web-clusterip-svc-2dw7c of default/web-clusterip-svc IPv4
    "#]],
    );
}

#[test]
fn example_session_affinity_is_parsed() {
    check(
        "09-session-affinity.yaml",
        expect![[r#"
        Service default/web-sticky [10.109.102.91] [TCP 80 ""] affinity 10s
        Slice default/web-sticky-c8v5j of default/web-sticky IPv4 [TCP 8080 ""]
          10.244.1.2 ready serving on node-1
          10.244.2.2 ready serving on node-2
    "#]],
    );
}

#[test]
fn example_dns_is_parsed() {
    check(
        "10-dns.yaml",
        expect![[r#"
        Service kube-system/kube-dns [10.96.0.10] [UDP 53 "dns"] [TCP 53 "dns-tcp"]
        Slice kube-system/kube-dns-rlm5h of kube-system/kube-dns IPv4 [UDP 53 "dns"] [TCP 53 "dns-tcp"]
          10.244.1.2 ready serving on node-1
          10.244.2.2 ready serving on node-2
    "#]],
    );
}

#[test]
fn examples_in_one_folder_do_not_conflict() {
    let changes = ManifestSource::open(&folder()).unwrap().scan();
    assert_eq!(changes.problems, []);
    assert!(changes.events.len() >= 22, "{}", render(&changes));
}
