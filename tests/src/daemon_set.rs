//! Runs a DaemonSet's pod on a node from its manifest, as a container runtime would. The container's root holds the
//! image, which is one static binary, and the mounts of the manifest.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::namespace::Namespace;
use crate::proxy::{Proxy, located};

const PROGRAMS: &str = "usr/local/bin";
/// The mount point of the ServiceAccount's token and CA.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// A CA certificate, which verifies nothing.
const AUTHORITY: &str = include_str!("../data/ca.crt");
/// The node's /etc/hosts, which the kubelet gives to pods on the host network.
const HOSTS: &str = "127.0.0.1 localhost\n192.168.128.100 control-plane.test\n";
/// The kubelet's `oom_score_adj` for node-critical pods.
const OOM_SCORE: i32 = -997;

/// A pod of a DaemonSet.
#[derive(Debug)]
pub struct DaemonPod {
    namespace: Arc<Namespace>,
    node: String,
    /// The pod's volumes and its containers' roots.
    directory: PathBuf,
    log: PathBuf,
    spec: Value,
    config_maps: BTreeMap<String, Value>,
}

impl DaemonPod {
    /// The pod on this node of the DaemonSet in these manifests. They must include the ConfigMaps that it mounts.
    pub fn new(cluster: &Cluster, node: &str, manifests: &str) -> Result<Self> {
        let mut config_maps = BTreeMap::new();
        let mut spec = Value::Null;
        for mut object in serde_saphyr::from_multiple::<Value>(manifests)? {
            match object["kind"].as_str() {
                Some("ConfigMap") => {
                    config_maps.insert(text(&object["metadata"]["name"]), object["data"].take());
                }
                Some("DaemonSet") => spec = object["spec"]["template"]["spec"].take(),
                _ => {}
            }
        }
        ensure!(spec["hostNetwork"] == true, "a DaemonSet on the node's own network is looked for");
        let directory = cluster.directory().join(format!("{node}.pod"));
        let log = cluster.directory().join(format!("{node}.log"));
        let namespace = Arc::clone(cluster.at(node)?);
        Ok(Self { namespace, node: node.into(), directory, log, spec, config_maps })
    }

    /// Runs the init containers in sequence. Returns their output.
    pub fn initialise(&self) -> Result<String> {
        let mut said = String::new();
        for container in list(&self.spec["initContainers"]) {
            let output = self.command(container)?.output()?;
            said += &String::from_utf8_lossy(&output.stdout);
            said += &String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{} ended with {}:\n{said}", container["name"], output.status);
        }
        Ok(said)
    }

    /// Starts the container.
    pub fn start(&self) -> Result<Proxy> {
        let [container] = list(&self.spec["containers"]) else { bail!("one container is looked for") };
        Proxy::launch(self.command(container)?, &self.log)
    }

    /// Builds the container's process: a shell that mounts, drops capabilities and then execs the binary.
    fn command(&self, container: &Value) -> Result<Command> {
        let root = self.directory.join(text(&container["name"])).join("root");
        lay_image(&root)?;
        let shown = root.display();
        let mut script = vec!["set -e".to_owned(), format!("mount --bind {shown} {shown}")];
        script.push(format!("mount -t proc proc {shown}/proc"));
        for (host, guest, read_only) in self.mounts(container)? {
            let place = root.join(guest.trim_start_matches('/'));
            make_mount_point(&host, &place)?;
            let (host, place) = (host.display(), place.display());
            script.push(format!("mount --bind {host} {place}"));
            if read_only {
                script.push(format!("mount -o remount,bind,ro {place}"));
            }
        }
        let security = &container["securityContext"];
        let is_privileged = security["privileged"] == true;
        if !is_privileged {
            script.push(format!("mount --bind {shown}/proc/sys {shown}/proc/sys"));
            script.push(format!("mount -o remount,bind,ro {shown}/proc/sys"));
        }
        if security["readOnlyRootFilesystem"] == true {
            script.push(format!("mount -o remount,bind,ro {shown}"));
        }
        script.push(format!("echo {OOM_SCORE} > /proc/self/oom_score_adj"));
        // A privileged container keeps all capabilities. chroot needs CAP_SYS_CHROOT, which a real container would not
        // need.
        let rights = if is_privileged { String::new() } else { restricted_to(&security["capabilities"]) };
        script.push(format!("exec {rights} chroot {shown} \"$@\""));
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.namespace.name(), "sh", "-c", &script.join("\n"), "container"]);
        let words = [list(&container["command"]), list(&container["args"])].concat();
        command.args(words.iter().map(|word| text(word).replace("$(NODE_NAME)", &self.node)));
        Ok(command)
    }

    /// The mounts: path on the node, path in the container, and whether it is read-only.
    fn mounts(&self, container: &Value) -> Result<Vec<(PathBuf, String, bool)>> {
        let mut mounts = vec![(self.service_account()?, SERVICE_ACCOUNT.to_owned(), true)];
        for mount in list(&container["volumeMounts"]) {
            let name = &mount["name"];
            let volume = list(&self.spec["volumes"]).iter().find(|volume| volume["name"] == *name);
            let host = self.volume(volume.with_context(|| format!("there is no volume {name}"))?)?;
            mounts.push((host, text(&mount["mountPath"]), mount["readOnly"] == true));
        }
        Ok(mounts)
    }

    fn service_account(&self) -> Result<PathBuf> {
        let folder = self.directory.join("service-account");
        fs::create_dir_all(&folder)?;
        for (name, text) in [("token", "secret"), ("ca.crt", AUTHORITY), ("namespace", "kube-system")] {
            fs::write(folder.join(name), text)?;
        }
        Ok(folder)
    }

    /// Creates a volume and returns its path on the node. hostPath volumes are private to this pod: real nodes do not
    /// share them, although these nodes share one file system.
    fn volume(&self, volume: &Value) -> Result<PathBuf> {
        let place = self.directory.join("volumes").join(text(&volume["name"]));
        if let Some(map) = volume["configMap"]["name"].as_str() {
            fs::create_dir_all(&place)?;
            let data = self.config_maps.get(map).with_context(|| format!("there is no ConfigMap {map}"))?;
            for (name, content) in data.as_object().into_iter().flatten() {
                fs::write(place.join(name), text(content))?;
            }
        } else if volume["hostPath"]["type"] == "FileOrCreate" {
            fs::create_dir_all(place.parent().context("a parent")?)?;
            fs::write(&place, "")?;
        } else {
            ensure!(volume["hostPath"].is_object(), "what kind of volume is {volume}?");
            fs::create_dir_all(&place)?;
        }
        Ok(place)
    }
}

/// Creates the files of the image that `cargo xtask image` builds.
fn lay_image(root: &Path) -> Result<()> {
    if root.exists() {
        return Ok(());
    }
    for folder in [PROGRAMS, "etc", "proc"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::write(root.join("etc/nsswitch.conf"), "hosts: files dns\n")?;
    fs::write(root.join("etc/hosts"), HOSTS)?;
    fs::copy(located()?, root.join(PROGRAMS).join("kube-ipvs"))?;
    symlink("kube-ipvs", root.join(PROGRAMS).join("kube-proxy"))?;
    Ok(())
}

fn make_mount_point(host: &Path, place: &Path) -> Result<()> {
    if host.is_dir() {
        fs::create_dir_all(place)?;
    } else {
        fs::create_dir_all(place.parent().context("a parent")?)?;
        fs::write(place, "")?;
    }
    Ok(())
}

/// The command that drops all capabilities except those that the manifest adds.
fn restricted_to(capabilities: &Value) -> String {
    let kept: Vec<String> =
        list(&capabilities["add"]).iter().map(|name| format!("+{}", text(name).to_lowercase())).collect();
    let kept = [kept, vec!["+sys_chroot".to_owned()]].concat().join(",");
    format!("setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,{kept}")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
