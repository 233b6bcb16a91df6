//! Starts the program where it needs neither the kernel nor a real API server.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
};

use scenarios::{ApiServer, Service, Slice};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-ipvs");

fn run(program: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(program).args(arguments).env_remove("KUBE_IPVS_LOG").output();
    let Output { status, stderr, .. } = output.unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn unreachable_api_server_is_named_and_ends_the_command() {
    // No program listens on this port.
    let server = "--master=http://127.0.0.1:1";
    for command in [&["diff"][..], &["explain", "web"]] {
        let ask = |timeout| {
            let arguments = [command, &[server, "--hostname-override=node-1", timeout]].concat();
            let (code, said) = run(Path::new(PROGRAM), &arguments);
            assert_eq!(code, Some(2), "{said}");
            said
        };
        // A machine that stalls for the whole timeout has not even sent a request.
        let mut said = String::new();
        for timeout in ["--timeout=2s", "--timeout=1m", "--timeout=10m"] {
            if !said.contains("refused") {
                said = ask(timeout);
            }
        }
        for part in ["refused", "--timeout", "--config is not set"] {
            assert!(said.contains(part), "{part} is not in: {said}");
        }
    }
}

/// The host's name is not the Node's, as with kops and in clouds with full host names.
#[test]
fn explain_says_that_there_is_no_node_of_this_name() {
    let api = ApiServer::start().unwrap();
    api.apply(&Service::new("web").cluster_ip("10.96.0.80").port(80)).unwrap();
    api.apply(&Slice::of("web").port(80).ready("10.244.1.2").on("node-1")).unwrap();
    api.apply(&"apiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n").unwrap();
    let explain = |node: &str| {
        let (server, node) = (format!("--master={}", api.url()), format!("--hostname-override={node}"));
        let output = Command::new(PROGRAM).args(["explain", "web", &server, &node, "--timeout=10m"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("10.244.1.2:80 weight 1"), "{output:?}");
        said
    };
    assert!(explain("node-x").contains("the API server has no Node node-x"));
    assert!(!explain("node-1").contains("has no Node"));
}

/// The reason names the affected clients, and says whether the node rejects or drops their packets.
#[test]
fn explain_says_what_happens_without_endpoints_on_this_node() {
    let api = ApiServer::start().unwrap();
    let web = Service::new("web").cluster_ip("10.96.0.80").line("externalIPs: [203.0.113.7]").port(80);
    let explain = |policy: &str| {
        api.apply(&web.clone().line(policy)).unwrap();
        api.apply(&Slice::of("web").port(80).ready("10.244.1.2").on("node-1")).unwrap();
        let server = format!("--master={}", api.url());
        let arguments = ["explain", "web", &server, "--hostname-override=node-x", "--timeout=10m"];
        let output = Command::new(PROGRAM).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let external = explain("externalTrafficPolicy: Local");
    assert!(external.contains("drops new connections from outside the cluster"), "{external}");
    let internal = explain("internalTrafficPolicy: Local");
    assert!(internal.contains("no endpoints on this node: kube-ipvs drops new connections"), "{internal}");
}

#[test]
fn last_error_uses_the_log_format() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = format!("--manifests={}", folder.path().join("nowhere").display());
    let (code, said) = run(Path::new(PROGRAM), &["run", &nowhere, "--logging-format=json"]);
    assert_eq!(code, Some(2), "{said}");
    for line in said.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["fields"]["message"].is_string(), "{line}");
    }
    assert!(said.contains("nowhere"), "{said}");
}

#[test]
fn go_runner_name_sends_the_log_to_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let [program, log, nowhere] = ["go-runner", "kube-proxy.log", "nowhere"].map(|name| folder.path().join(name));
    symlink(PROGRAM, &program).unwrap();
    fs::write(&log, "what was there\n").unwrap();
    let flag = format!("--log-file={}", log.display());
    let manifests = format!("--manifests={}", nowhere.display());
    let config = format!("--config={}", nowhere.display());
    for arguments in [[&*flag, "/usr/local/bin/kube-proxy", &config], [&*flag, "/usr/local/bin/kube-proxy", &manifests]]
    {
        let (code, said) = run(&program, &arguments);
        assert_eq!((code, &*said), (Some(2), ""), "{arguments:?}");
    }
    let written = fs::read_to_string(&log).unwrap();
    assert!(written.starts_with("what was there\nkube-ipvs: cannot read "), "{written}");
    assert!(written.lines().last().unwrap().contains("ERROR"), "{written}");
    let (code, said) = run(&program, &["--log-file=/nowhere/log", "kube-proxy", &config]);
    assert_eq!(code, Some(2));
    assert!(said.contains("cannot log to /nowhere/log") && said.contains("cannot read"), "{said}");
    let (_, said) = run(&program, &["/bin/sh", "-c", "kube-proxy"]);
    assert!(said.contains("this image can run only kube-proxy and kube-ipvs, not sh"), "{said}");
}
