//! The packages for Debian and for Fedora, and cargo's tools that make them.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result};
use xshell::{Cmd, Shell, cmd};

use crate::workspace::{OF_OUR_OWN, Workspace};

/// A crate with a subcommand of cargo, and its version.
type Tool = (&'static str, &'static str);

const CARGO_DEB: Tool = ("cargo-deb", "3.8.0");
const CARGO_GENERATE_RPM: Tool = ("cargo-generate-rpm", "0.21.1");
pub(super) const CARGO_CYCLONEDX: Tool = ("cargo-cyclonedx", "0.5.9");

/// Makes both packages from the built binary.
pub(super) fn make(workspace: &Workspace, binary: &Path, out: &Path, time: u64) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(&workspace.root);
    let triple = triple(binary)?;
    for tool in [CARGO_DEB, CARGO_GENERATE_RPM] {
        install(&workspace.target, tool)?;
    }
    let deb = cmd!(sh, "cargo deb --package kube-ipvs --no-build --no-strip --profile image --target {triple}");
    with_tools(deb.args(["--output".as_ref(), out.as_os_str()]), &workspace.target, time)?.run()?;
    // It takes over the time of a file that is older than the release. A copy is always newer.
    let copy = workspace.target.join("rpm");
    let target = copy.join("target");
    sh.remove_path(&copy)?;
    let folder = target.join(&triple).join("image");
    sh.create_dir(&folder)?;
    cmd!(sh, "cp {binary} {folder}").quiet().run()?;
    cmd!(sh, "cp --recursive Cargo.toml LICENSE crates packaging {copy}").quiet().run()?;
    sh.change_dir(&copy);
    let rpm = cmd!(sh, "cargo generate-rpm --package crates/kube-ipvs --profile image --target {triple}");
    let rpm = rpm.args(["--target-dir".as_ref(), target.as_os_str(), "--output".as_ref(), out.as_os_str()]);
    with_tools(rpm, &workspace.target, time)?.run()?;
    sh.remove_path(&copy)?;
    Ok(())
}

/// `x86_64-unknown-linux-gnu` of `target/x86_64-unknown-linux-gnu/image/kube-ipvs`.
fn triple(binary: &Path) -> Result<String> {
    let triple = binary.ancestors().nth(2).and_then(Path::file_name);
    Ok(triple.context("the binary is in no folder of a target")?.to_string_lossy().into_owned())
}

/// Installs a tool into `target/tools`, unless that has this version.
pub(super) fn install(target: &Path, (name, version): Tool) -> Result<()> {
    let sh = Shell::new()?;
    let tools = target.join("tools");
    let installed = cmd!(sh, "cargo install --list --root {tools}").quiet().ignore_stderr().read()?;
    if installed.lines().any(|line| line == format!("{name} v{version}:")) {
        return Ok(());
    }
    // Outside the workspace, because its settings of cargo are only for our own programs.
    sh.change_dir("/");
    let build = target.join("tools/build");
    cmd!(sh, "cargo install --locked --force --root {tools} --target-dir {build} {name}@{version}")
        .env_remove(OF_OUR_OWN)
        .run()?;
    sh.remove_path(build)?;
    Ok(())
}

/// Adds our tools to cargo's subcommands, and the time of the release to the environment.
pub(super) fn with_tools<'a>(command: Cmd<'a>, target: &Path, time: u64) -> Result<Cmd<'a>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(target.join("tools/bin")).chain(std::env::split_paths(&path));
    let path: OsString = std::env::join_paths(all)?;
    Ok(command.env("PATH", path).env("SOURCE_DATE_EPOCH", time.to_string()).env_remove(OF_OUR_OWN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_triple_is_the_folder_above_the_profile() {
        let binary = Path::new("/t/x86_64-unknown-linux-gnu/image/kube-ipvs");
        assert_eq!(triple(binary).unwrap(), "x86_64-unknown-linux-gnu");
        assert!(triple(Path::new("kube-ipvs")).is_err());
    }
}
