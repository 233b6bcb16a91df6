//! `cargo xtask e2e --cluster kind`: a cluster in containers without kube-proxy, with this tree's image and manifests.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cluster::Cluster;
use crate::image;
use crate::janitor::Janitor;
use crate::platform::Platform;
use crate::workspace::Workspace;

const NAME: &str = "kube-ipvs-e2e";
/// kind's defaults of both families; `manifests/kind.yaml` does not change them.
const POD_RANGES: &str = "10.244.0.0/16,fd00:10:244::/56";

type Words = Vec<String>;

/// Creates the cluster, runs the scenarios and deletes the cluster, also after a failure or an interrupt.
pub(super) fn run(filter: Option<&str>) -> Result<()> {
    let workspace = Workspace::load()?;
    let directory = workspace.target.join("e2e");
    std::fs::create_dir_all(&directory)?;
    let kubeconfig = directory.join("kubeconfig");
    let image = image::make(&workspace, image::USUAL_TAG, Platform::Host)?;
    let janitor = Janitor::new(&deletion())?;
    for words in creation(&workspace.root.join("manifests"), &kubeconfig, &image.archive) {
        execute(&words)?;
    }
    let cluster = Cluster::new(&kubeconfig)?;
    let manifests = workspace.root.join("manifests");
    let manifests = cluster.kubectl(&["kustomize", &manifests.to_string_lossy()], None)?;
    cluster.kubectl(&["apply", "--filename", "-"], Some(&fitted(&manifests)?))?;
    for words in READY {
        cluster.kubectl(words, None).context("waiting for the cluster")?;
    }
    cluster.run(filter)?;
    janitor.finish()
}

/// Nodes are ready when their pods have a network. DNS answers when kube-ipvs serves its ClusterIP. The timeouts only
/// end a hang: nodes can have to pull images.
const READY: [&[&str]; 3] = [
    &["--namespace=kube-system", "rollout", "status", "daemonset", "kube-ipvs", "--timeout=30m"],
    &["wait", "node", "--all", "--for=condition=Ready", "--timeout=30m"],
    &["--namespace=kube-system", "rollout", "status", "deployment", "coredns", "--timeout=30m"],
];

fn creation(manifests: &Path, kubeconfig: &Path, archive: &Path) -> [Words; 2] {
    let [config, kubeconfig, archive] =
        [&manifests.join("kind.yaml"), kubeconfig, archive].map(|path| path.to_string_lossy().into_owned());
    [
        words(&["kind", "create", "cluster", "--name", NAME, "--config", &config, "--kubeconfig", &kubeconfig]),
        words(&["kind", "load", "image-archive", &archive, "--name", NAME]),
    ]
}

fn deletion() -> Words {
    words(&["kind", "delete", "cluster", "--name", NAME])
}

fn words(words: &[&str]) -> Words {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Fills in an operator's values: the API server's address that needs no Service, and the pod ranges.
fn fitted(manifests: &str) -> Result<String> {
    let server = format!("https://{NAME}-control-plane:6443");
    let ranges = format!("clusterCIDR: {POD_RANGES}");
    let mut fitted = manifests.to_owned();
    for (from, to) in [("https://API-SERVER:6443", &server), ("clusterCIDR: \"\"", &ranges)] {
        ensure!(fitted.contains(from), "manifests/configmap.yaml does not have {from}, which this command replaces");
        fitted = fitted.replace(from, to);
    }
    Ok(fitted)
}

fn execute(words: &Words) -> Result<()> {
    eprintln!("xtask: {}", words.join(" "));
    let (program, arguments) = words.split_first().context("a command without words")?;
    let status = Command::new(program).args(arguments).status().with_context(|| format!("starting {program}"))?;
    ensure!(status.success(), "{} ended with {status}", words.join(" "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = include_str!("../../../manifests/kind.yaml");
    const CONFIG_MAP: &str = include_str!("../../../manifests/configmap.yaml");

    #[test]
    fn kind_commands_name_the_same_cluster() {
        let made = creation(Path::new("/m"), Path::new("/t/kubeconfig"), Path::new("/t/kube-ipvs.tar"));
        let lines = [made[0].join(" "), made[1].join(" "), deletion().join(" ")];
        assert_eq!(
            lines,
            [
                "kind create cluster --name kube-ipvs-e2e --config /m/kind.yaml --kubeconfig /t/kubeconfig",
                "kind load image-archive /t/kube-ipvs.tar --name kube-ipvs-e2e",
                "kind delete cluster --name kube-ipvs-e2e",
            ]
        );
    }

    #[test]
    fn kind_cluster_has_no_kube_proxy() {
        let config: serde_json::Value = serde_saphyr::from_str(CONFIG).unwrap();
        assert_eq!(config["networking"]["kubeProxyMode"], "none");
        assert!(config["networking"]["podSubnet"].is_null(), "POD_RANGES are kind's own");
        // The API server is reached by the name of the control plane's container, which has the role in it.
        assert_eq!(config["nodes"][0]["role"], "control-plane");
    }

    #[test]
    fn manifests_get_the_server_address_and_the_pod_ranges() {
        let map: serde_json::Value = serde_saphyr::from_str(&fitted(CONFIG_MAP).unwrap()).unwrap();
        let config: serde_json::Value = serde_saphyr::from_str(map["data"]["config.conf"].as_str().unwrap()).unwrap();
        assert_eq!(config["clusterCIDR"], POD_RANGES);
        let kubeconfig = map["data"]["kubeconfig.conf"].as_str().unwrap();
        assert!(kubeconfig.contains("server: https://kube-ipvs-e2e-control-plane:6443"), "{kubeconfig}");
        assert!(fitted("nothing to fill in").is_err());
    }
}
