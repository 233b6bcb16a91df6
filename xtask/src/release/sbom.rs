//! The list of all crates in the binary, in the format of CycloneDX.

use std::fs;

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use super::packages::{CARGO_CYCLONEDX, install, with_tools};
use crate::workspace::Workspace;

const NAME: &str = "sbom";

pub(super) fn make(workspace: &Workspace, time: u64) -> Result<String> {
    install(&workspace.target, CARGO_CYCLONEDX)?;
    let sh = Shell::new()?;
    // cargo-cyclonedx writes a file beside every Cargo.toml, so it runs in a copy of the workspace.
    let copy = workspace.target.join("sbom");
    sh.remove_path(&copy)?;
    sh.change_dir(&workspace.root);
    let prefix = format!("{}/", copy.display());
    cmd!(sh, "git checkout-index --all --force --prefix={prefix}").quiet().run()?;
    sh.change_dir(&copy);
    let list = cmd!(sh, "cargo cyclonedx --quiet --format json --spec-version 1.5 --override-filename {NAME}");
    with_tools(list, &workspace.target, time)?.quiet().run()?;
    let path = copy.join(format!("crates/kube-ipvs/{NAME}.json"));
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    sh.remove_path(&copy)?;
    Ok(without_place(&text, &copy.to_string_lossy()))
}

/// The ids of our own crates are paths. They must not depend on the machine.
fn without_place(text: &str, place: &str) -> String {
    text.replace(&format!("file://{place}"), "file://.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sbom_ids_of_our_crates_do_not_name_the_machine() {
        let text = r#"{"bom-ref": "path+file:///t/sbom/crates/proxier#0.1.0"}"#;
        assert_eq!(without_place(text, "/t/sbom"), r#"{"bom-ref": "path+file://./crates/proxier#0.1.0"}"#);
    }
}
