//! `cargo xtask publish`: checks whether the libraries can be published. It publishes nothing.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use xshell::{Shell, cmd};

use crate::workspace::{OF_OUR_OWN, Package, Workspace};

/// Fields that a registry shows, beyond those that cargo requires.
const TEXTS: [&str; 6] = ["description", "documentation", "license", "readme", "repository", "rust_version"];
const LISTS: [&str; 2] = ["categories", "keywords"];
const FILES: [&str; 3] = ["LICENSE", "README.md", "src/lib.rs"];

/// Builds each library from its package and the other libraries' packages, as its users do.
pub(crate) fn run() -> Result<ExitCode> {
    check(&Workspace::load()?, &[])?;
    Ok(ExitCode::SUCCESS)
}

/// Packages the libraries in the order of their dependencies, with cargo's checks and ours. `flags` are cargo's: with
/// `--no-verify` it compiles nothing.
pub(crate) fn check(workspace: &Workspace, flags: &[&str]) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(&workspace.root);
    let mut missing = Vec::new();
    for package in workspace.libraries() {
        let name = &package.name;
        let listed = cmd!(sh, "cargo package --quiet --list --allow-dirty --package {name}").quiet().read()?;
        missing.extend(lacks(package, &listed));
    }
    ensure!(missing.is_empty(), "{}", missing.join("\n"));
    for package in workspace.libraries() {
        ensure_name_is_ours(&sh, package)?;
    }
    cmd!(sh, "cargo publish --workspace --dry-run --allow-dirty {flags...}").env_remove(OF_OUR_OWN).quiet().run()?;
    Ok(())
}

/// Cargo's own checks do not notice that another project has published a crate of this name.
fn ensure_name_is_ours(sh: &Shell, package: &Package) -> Result<()> {
    let name = &package.name;
    let output = cmd!(sh, "cargo info --quiet --color never --registry crates-io {name}").quiet().ignore_status();
    let output = output.output()?;
    let errors = String::from_utf8(output.stderr)?;
    if errors.contains("could not find") {
        return Ok(());
    }
    ensure!(output.status.success(), "cargo info {name}: {errors}");
    let info = String::from_utf8(output.stdout)?;
    let ours = package.manifest["repository"].as_str();
    ensure!(repository(&info) == ours, "{name}: another project has published a crate of this name:\n{info}");
    Ok(())
}

/// The repository of a published crate, by the text of `cargo info`.
fn repository(info: &str) -> Option<&str> {
    info.lines().find_map(|line| line.strip_prefix("repository: "))
}

/// The fields and files that a package lacks, by its manifest and the list of its files.
fn lacks(package: &Package, files: &str) -> Vec<String> {
    let manifest = &package.manifest;
    let texts = TEXTS.into_iter().filter(|field| manifest[field].as_str().is_none_or(str::is_empty));
    let lists = LISTS.into_iter().filter(|field| manifest[field].as_array().is_none_or(Vec::is_empty));
    let for_docs = &manifest["metadata"]["docs"]["rs"];
    let docs = [("all-features", for_docs["all-features"] == true), ("targets", for_docs["targets"].is_array())];
    let docs = docs.into_iter().filter(|(_, is_there)| !is_there).map(|(field, _)| format!("docs.rs {field}"));
    let files = FILES.into_iter().filter(|file| !files.lines().any(|line| line == *file));
    let all = texts.chain(lists).chain(files).map(str::to_owned).chain(docs);
    all.map(|what| format!("{}: its package has no {what}", package.name)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn package(manifest: Value) -> Package {
        Package { name: "a".into(), targets: Vec::new(), manifest }
    }

    #[test]
    fn repository_of_a_published_crate_is_found() {
        let info = "kube #kubernetes\nversion: 5.0.0\nrepository: https://github.com/kube-rs/kube\nfeatures:\n";
        assert_eq!(repository(info), Some("https://github.com/kube-rs/kube"));
    }

    #[test]
    fn missing_package_fields_and_files_are_named() {
        let mut manifest = json!({
            "description": "d", "documentation": "d", "license": "l", "readme": "r", "repository": "r",
            "rust_version": "1.91", "categories": ["c"], "keywords": ["k"],
            "metadata": {"docs": {"rs": {"all-features": true, "targets": ["t"]}}},
        });
        let files = "Cargo.toml\nLICENSE\nREADME.md\nsrc/lib.rs";
        assert_eq!(lacks(&package(manifest.clone()), files), [""; 0]);
        manifest["readme"] = Value::Null;
        manifest["keywords"] = json!([]);
        manifest["metadata"] = Value::Null;
        let expected = ["readme", "keywords", "LICENSE", "docs.rs all-features", "docs.rs targets"]
            .map(|what| format!("a: its package has no {what}"));
        assert_eq!(lacks(&package(manifest), "README.md\nsrc/lib.rs"), expected);
    }
}
