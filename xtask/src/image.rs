//! `cargo xtask image`: the container image. It needs no container tool and no other toolchain.

mod archive;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::platform::Platform;
use crate::workspace::Workspace;

pub(crate) use archive::digest;

/// The maximum size of the image in bytes.
const LIMIT: u64 = 15_000_000;
pub(crate) const PROFILE: &[&str] = &["--profile", "image"];
const PROGRAM: &str = "usr/local/bin/kube-ipvs";
/// Other names of the program, and their link targets. kubeadm and kops start kube-proxy by its path. kops also starts
/// go-runner, which runs it.
const LINKS: [(&str, &str); 2] = [("usr/local/bin/kube-proxy", "kube-ipvs"), ("go-runner", "usr/local/bin/kube-ipvs")];
/// Finds a command without a path, such as EKS' `kube-proxy`.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Without this file glibc asks DNS first, and reads /etc/hosts only if there is no DNS.
const RESOLVING: &str = "etc/nsswitch.conf";

pub(crate) const NAME: &str = "kube-ipvs";
pub(crate) const USUAL_TAG: &str = concat!("kube-ipvs:", env!("CARGO_PKG_VERSION"));

/// Makes the container image, as a folder for `docker build` and as an archive for `docker load` or `ctr images import`
#[derive(Args)]
pub(crate) struct Image {
    /// The name of the image in the archive
    #[arg(long, default_value = USUAL_TAG)]
    tag: String,
}

pub(crate) fn run(args: &Image) -> Result<ExitCode> {
    let made = make(&Workspace::load()?, &args.tag, Platform::Host)?;
    println!("{} ({:.1} MB)", made.archive.display(), made.size as f64 / 1e6);
    Ok(ExitCode::SUCCESS)
}

pub(crate) struct Made {
    pub(crate) archive: PathBuf,
    /// The size of its only layer in bytes.
    size: u64,
}

/// Makes the image. It depends on neither the time nor the user, so the same source gives the same image.
pub(crate) fn make(workspace: &Workspace, tag: &str, platform: Platform) -> Result<Made> {
    let daemon = workspace.build_published_daemon(platform)?;
    let directory = workspace.target.join(match platform {
        Platform::Host => "container",
        Platform::Arm64 => "container-arm64",
    });
    let root = directory.join("rootfs");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    fill(&root, &daemon.path)?;
    let layer = layer(&root)?;
    let size = layer.len() as u64;
    ensure!(size < LIMIT, "the image has {size} bytes; at most {LIMIT} are allowed");
    let archive = directory.join("kube-ipvs.tar");
    fs::write(&archive, archive::pack(layer, config(platform), tag)?)
        .with_context(|| format!("writing {}", archive.display()))?;
    Ok(Made { archive, size })
}

/// One binary under its names, and the configuration of name lookups.
fn fill(root: &Path, daemon: &Path) -> Result<()> {
    let place = |name: &str| -> Result<PathBuf> {
        let path = root.join(name);
        fs::create_dir_all(path.parent().context("a name in the image")?)?;
        Ok(path)
    };
    fs::write(place(RESOLVING)?, "hosts: files dns\n")?;
    fs::copy(daemon, place(PROGRAM)?).with_context(|| format!("copying {}", daemon.display()))?;
    for (name, target) in LINKS {
        symlink(target, place(name)?)?;
    }
    Ok(())
}

fn layer(root: &Path) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    layer.mode(tar::HeaderMode::Deterministic);
    layer.follow_symlinks(false);
    let links = LINKS.map(|(name, _)| name);
    for name in [PROGRAM].into_iter().chain(links).chain([RESOLVING]) {
        layer.append_path_with_name(root.join(name), name)?;
    }
    Ok(layer.into_inner()?)
}

/// The configuration in the format of the OCI image specification, without the layer.
fn config(platform: Platform) -> Value {
    json!({
        "architecture": platform.architecture(),
        "os": "linux",
        "config": {"Entrypoint": [format!("/{PROGRAM}")], "Env": [PATH], "Labels": {
            "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
            "org.opencontainers.image.source": env!("CARGO_PKG_REPOSITORY"),
            "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
        }},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(archive: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            match entry.link_name().unwrap() {
                Some(target) => format!("{path} -> {}", target.display()),
                None => path,
            }
        });
        entries.collect()
    }

    #[test]
    fn image_has_the_paths_that_start_kube_proxy() {
        let root = std::env::temp_dir().join(format!("kube-ipvs-image-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let daemon = root.join("built");
        fs::write(&daemon, "a program").unwrap();
        fill(&root, &daemon).unwrap();
        let layer = layer(&root).unwrap();
        for (name, _) in LINKS {
            assert_eq!(fs::read_to_string(root.join(name)).unwrap(), "a program", "{name}");
        }
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(
            entries(&layer),
            [
                "usr/local/bin/kube-ipvs",
                "usr/local/bin/kube-proxy -> kube-ipvs",
                "go-runner -> usr/local/bin/kube-ipvs",
                "etc/nsswitch.conf",
            ]
        );
        let config = &config(Platform::Host)["config"];
        assert_eq!(config["Entrypoint"][0], "/usr/local/bin/kube-ipvs");
        let path = config["Env"][0].as_str().unwrap().strip_prefix("PATH=").unwrap();
        assert!(path.split(':').any(|folder| folder == "/usr/local/bin"), "{path}");
    }

    #[test]
    fn dockerfile_matches_the_image_of_xtask() {
        let text = include_str!("../../manifests/image/Dockerfile");
        assert!(text.contains(&format!("\nENV {PATH}\n")), "{text}");
        assert!(text.contains(&format!("\nENTRYPOINT [\"/{PROGRAM}\"]\n")), "{text}");
    }

    #[test]
    fn manifests_name_the_image_of_this_version() {
        for text in [include_str!("../../manifests/daemonset.yaml"), include_str!("../../manifests/static-pod.yaml")] {
            assert_eq!(text.matches(&format!("image: {USUAL_TAG}\n")).count(), text.matches("image: ").count());
        }
        let version = env!("CARGO_PKG_VERSION");
        let text = include_str!("../../manifests/kustomization.yaml");
        assert!(text.contains(&format!("newTag: \"{version}\"\n")), "{text}");
    }

    #[test]
    fn pages_about_installing_name_this_version() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let pages = fs::read_dir(root.join("docs/install")).unwrap().map(|entry| entry.unwrap().path());
        for page in pages.chain([root.join("README.md")]) {
            let text = fs::read_to_string(&page).unwrap();
            let mut versions = text.lines().filter_map(|line| line.strip_prefix("VERSION=")?.split(' ').next());
            let version = versions.next();
            assert_eq!((version, versions.next()), (Some(env!("CARGO_PKG_VERSION")), None), "{}", page.display());
        }
    }
}
