//! kube-ipvs accepts the project's manifests without a warning.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::resolve;

fn of_project(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)).unwrap()
}

fn manifest(name: &str) -> Value {
    serde_saphyr::from_str(&of_project(&format!("manifests/{name}"))).unwrap()
}

/// The flags of each container of the DaemonSet, which reads its configuration from `folder`.
fn flags(folder: &Path) -> Vec<String> {
    let set = manifest("daemonset.yaml");
    let pod = &set["spec"]["template"]["spec"];
    let containers = ["initContainers", "containers"].map(|kind| pod[kind].as_array().unwrap().clone());
    let line = |container: &Value| {
        let words = ["command", "args"].into_iter().flat_map(|key| container[key].as_array().unwrap());
        let words = words.filter_map(Value::as_str);
        let flags: Vec<&str> = words.filter(|word| word.starts_with("--") && *word != "--init-only").collect();
        flags.join(" ").replace("$(NODE_NAME)", "node-1").replace("/etc/kube-ipvs", folder.to_str().unwrap())
    };
    containers.concat().iter().map(line).collect()
}

#[test]
fn daemon_set_and_config_map_resolve_without_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let data = manifest("configmap.yaml")["data"].as_object().unwrap().clone();
    for (name, text) in &data {
        fs::write(folder.path().join(name), text.as_str().unwrap()).unwrap();
    }
    let lines = flags(folder.path());
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0], lines[1], "both containers have the same flags");
    for line in lines {
        let resolved = resolve(&line).unwrap();
        assert_eq!((resolved.warnings, resolved.without_effect), (vec![], vec![]), "{line}");
        let connection = resolved.configuration.client_connection;
        assert_eq!(connection.kubeconfig, Path::new("/etc/kube-ipvs/kubeconfig.conf"));
    }
}

/// A static pod can use neither a ServiceAccount nor a ConfigMap, and the kubelet of its node chooses no node.
#[test]
fn static_pod_is_the_pod_of_the_daemon_set() {
    let mut expected = manifest("daemonset.yaml")["spec"]["template"]["spec"].take();
    let pod = expected.as_object_mut().unwrap();
    pod.remove("serviceAccountName");
    pod.remove("nodeSelector");
    pod["volumes"][0] = json!({"name": "config", "hostPath": {"path": "/etc/kube-ipvs", "type": "Directory"}});
    assert_eq!(manifest("static-pod.yaml")["spec"], expected);
}

#[test]
fn systemd_unit_and_its_configuration_resolve_without_warnings() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.conf"), of_project("packaging/config.conf")).unwrap();
    let unit = of_project("packaging/kube-ipvs.service");
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/sbin/kube-ipvs run ")).unwrap();
    let command = command.replace("/etc/kube-ipvs", folder.path().to_str().unwrap()).replace("$KUBE_IPVS_FLAGS", "");
    let resolved = resolve(command.trim()).unwrap();
    assert_eq!((resolved.warnings, resolved.without_effect), (vec![], vec![]));
    assert!(unit.contains(&format!("OOMScoreAdjust={}\n", resolved.configuration.oom_score_adj.get())), "{unit}");
}
