//! `cargo xtask image`: the container image. It needs no container tool and no other toolchain.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::workspace::Workspace;

/// What the image must not grow beyond, in bytes.
const LIMIT: u64 = 15_000_000;
/// How its daemon is built.
pub(crate) const PROFILE: &[&str] = &["--profile", "image"];
/// Where the programs are in it: a kube-proxy DaemonSet calls `/usr/local/bin/kube-proxy`.
const PROGRAMS: &str = "usr/local/bin";

/// Without this file glibc would ask DNS first, and go by /etc/hosts only where there is no DNS at all.
const RESOLVING: &str = "etc/nsswitch.conf";

/// Makes the container image, as a folder for `docker build` and as an archive for `docker load` or `ctr images import`
#[derive(Args)]
pub(crate) struct Image {
    /// What the image in the archive is called
    #[arg(long, default_value = "kube-ipvs:latest")]
    tag: String,
}

pub(crate) fn run(args: &Image) -> Result<ExitCode> {
    let made = make(&Workspace::load()?, &args.tag)?;
    println!("{} ({:.1} MB)", made.archive.display(), made.size as f64 / 1e6);
    Ok(ExitCode::SUCCESS)
}

/// An image that was made.
pub(crate) struct Made {
    /// As `docker save` would write it.
    pub(crate) archive: PathBuf,
    /// The bytes of its only layer.
    size: u64,
}

/// Makes the image. Nothing in it depends on when or by whom, so that the same source gives the same image.
pub(crate) fn make(workspace: &Workspace, tag: &str) -> Result<Made> {
    let daemon = workspace.build_daemon(PROFILE)?;
    let directory = workspace.target.join("container");
    let root = directory.join("rootfs");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    fill(&root, &daemon.path)?;
    let layer = layer(&root)?;
    let size = layer.len() as u64;
    ensure!(size < LIMIT, "the image has {size} bytes; at most {LIMIT} are allowed");
    let archive = directory.join("kube-ipvs.tar");
    fs::write(&archive, archived(&layer, tag)?).with_context(|| format!("writing {}", archive.display()))?;
    Ok(Made { archive, size })
}

/// One binary under its two names, and where it looks names up.
fn fill(root: &Path, daemon: &Path) -> Result<()> {
    fs::create_dir_all(root.join("etc"))?;
    fs::write(root.join(RESOLVING), "hosts: files dns\n")?;
    let programs = root.join(PROGRAMS);
    fs::create_dir_all(&programs)?;
    fs::copy(daemon, programs.join("kube-ipvs")).with_context(|| format!("copying {}", daemon.display()))?;
    symlink("kube-ipvs", programs.join("kube-proxy"))?;
    Ok(())
}

fn layer(root: &Path) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    layer.mode(tar::HeaderMode::Deterministic);
    layer.follow_symlinks(false);
    for name in ["kube-ipvs", "kube-proxy"].map(|name| Path::new(PROGRAMS).join(name)) {
        layer.append_path_with_name(root.join(&name), &name)?;
    }
    layer.append_path_with_name(root.join(RESOLVING), RESOLVING)?;
    Ok(layer.into_inner()?)
}

/// The layer and what describes it, in the format of `docker save`, which every container tool reads.
fn archived(layer: &[u8], tag: &str) -> Result<Vec<u8>> {
    let config = serde_json::to_vec(&config(&digest(layer)))?;
    let config_name = format!("{}.json", digest(&config));
    let manifest = json!([{"Config": config_name, "RepoTags": [tag], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in [
        (config_name.as_str(), config.as_slice()),
        ("layer.tar", layer),
        ("manifest.json", &serde_json::to_vec(&manifest)?),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes)?;
    }
    Ok(archive.into_inner()?)
}

/// The image's configuration, as the OCI image specification has it.
fn config(layer: &str) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": [format!("/{PROGRAMS}/kube-ipvs")]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
    })
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
