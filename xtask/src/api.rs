//! `cargo xtask api`: the libraries' public API, recorded in docs/api, so that a review shows each change.
//!
//! The source is rustdoc's JSON, whose format is unstable. public-api 0.52 reads the format of Rust 1.95 to 1.97.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use crate::workspace::{OF_OUR_OWN, Package, Workspace};

/// The first line of a record, before the version of Rust.
const MADE_WITH: &str = "# The public API, as `cargo xtask api` writes it with Rust ";

pub(crate) fn run() -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    for record in Record::make_all(&workspace)? {
        if record.difference().is_some() {
            println!("{}", record.path.display());
            fs::write(&record.path, record.text()).with_context(|| format!("writing {}", record.path.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let records = Record::make_all(workspace)?;
    let differences: Vec<String> = records.iter().filter_map(Record::difference).collect();
    ensure!(differences.is_empty(), "{}If you intended the change, run: cargo xtask api", differences.concat());
    Ok(())
}

/// The record of a library, as computed from its sources.
struct Record {
    path: PathBuf,
    /// The version of Rust, such as `1.95`. Paths of the standard library can differ between versions.
    rust: String,
    items: String,
}

impl Record {
    fn make_all(workspace: &Workspace) -> Result<Vec<Self>> {
        let sh = Shell::new()?;
        sh.change_dir(&workspace.root);
        let packages: Vec<&Package> = workspace.libraries().collect();
        let chosen = packages.iter().flat_map(|package| ["--package", &package.name]);
        cmd!(sh, "cargo doc --no-deps --all-features {chosen...}")
            .env_remove(OF_OUR_OWN)
            // A library does not choose a version of the Kubernetes API, and k8s-openapi does not compile without one.
            .env("K8S_OPENAPI_ENABLED_VERSION", "1.33")
            .env("RUSTDOC", workspace.root.join("xtask/src/rustdoc.sh"))
            .env("RUSTDOCFLAGS", "-Z unstable-options --output-format json")
            .quiet()
            .run()?;
        let version = cmd!(sh, "rustc --version --verbose").quiet().read()?;
        let value = |key: &str| version.lines().find_map(|line| line.strip_prefix(key)).context("rustc -vV");
        let (release, host) = (value("release: ")?, value("host: ")?);
        let rust = release.rsplit_once('.').map_or(release, |(minor, _)| minor);
        let of_package = |package: &Package| {
            let json = format!("{host}/doc/{}.json", package.crate_name()?);
            let api = public_api::Builder::from_rustdoc_json(workspace.target.join(json))
                .omit_blanket_impls(true)
                .omit_auto_trait_impls(true)
                .build()
                .with_context(|| {
                    format!("reading the JSON of Rust {rust}: try another version of Rust or of public-api")
                })?;
            let path = workspace.root.join(format!("docs/api/{}.txt", package.name));
            Ok(Self { path, rust: rust.to_owned(), items: items(api.items().map(ToString::to_string)) })
        };
        packages.into_iter().map(of_package).collect()
    }

    fn text(&self) -> String {
        format!("{MADE_WITH}{}\n{}", self.rust, self.items)
    }

    /// The version of Rust and the items in the file. Both are empty if there is no record yet.
    fn recorded(&self) -> (String, String) {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        Self::parse(&text).unwrap_or_default()
    }

    fn parse(text: &str) -> Option<(String, String)> {
        let (rust, items) = text.strip_prefix(MADE_WITH)?.split_once('\n')?;
        Some((rust.to_owned(), items.to_owned()))
    }

    fn difference(&self) -> Option<String> {
        let (rust, items) = self.recorded();
        (items != self.items).then(|| self.difference_from(&rust, &items))
    }

    fn difference_from(&self, rust: &str, items: &str) -> String {
        let (old, new): (Vec<_>, Vec<_>) = (items.lines().collect(), self.items.lines().collect());
        let only = |sign, of: &[&str], other: &[&str]| -> String {
            let lines = of.iter().filter(|line| !other.contains(line));
            lines.map(|line| format!("  {sign} {line}\n")).collect()
        };
        let (removed, added) = (only('-', &old, &new), only('+', &new, &old));
        let mut text = format!("{} differs from the sources:\n{removed}{added}", self.path.display());
        if rust != self.rust {
            text += &format!("It was made with Rust {rust}, and this is {}. Paths can differ.\n", self.rust);
        }
        text
    }
}

/// One item a line. The methods of trait implementations are left out: the trait lists them.
fn items(lines: impl Iterator<Item = String>) -> String {
    let mut methods_of_trait = None;
    let mut text = String::new();
    for line in lines {
        if line.starts_with("impl") {
            methods_of_trait = line.split_once(" for ").map(|(_, implementor)| format!("pub fn {implementor}::"));
        }
        let of_trait = methods_of_trait.as_ref().is_some_and(|methods| line.starts_with(methods));
        // Each derived PartialEq also derives this trait.
        if !of_trait && !line.starts_with("impl core::marker::StructuralPartialEq for ") {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(items: &str) -> Record {
        Record { path: "docs/api/a.txt".into(), rust: "1.95".into(), items: items.into() }
    }

    #[test]
    fn trait_implementations_are_recorded_without_their_methods() {
        let lines = [
            "pub struct a::A<'a>",
            "impl a::A<'_>",
            "pub fn a::A<'_>::fmt(&self)",
            "impl core::fmt::Debug for a::A<'_>",
            "pub fn a::A<'_>::fmt(&self)",
            "impl core::marker::StructuralPartialEq for a::A<'_>",
            "pub fn a::free()",
        ];
        let kept = [0, 1, 2, 3, 6].map(|number| format!("{}\n", lines[number]));
        assert_eq!(items(lines.map(str::to_owned).into_iter()), kept.concat());
    }

    #[test]
    fn api_change_is_shown_as_changed_lines() {
        let recorded = Record::parse(&record("pub a\npub b\n").text()).unwrap();
        assert_eq!(recorded, ("1.95".to_owned(), "pub a\npub b\n".to_owned()));
        let same_rust = record("pub a\npub c\n").difference_from("1.95", "pub a\npub b\n");
        let expected = "docs/api/a.txt differs from the sources:\n  - pub b\n  + pub c\n";
        assert_eq!(same_rust, expected);
        let other_rust = record("pub a\n").difference_from("1.94", "");
        assert!(other_rust.contains("It was made with Rust 1.94, and this is 1.95."), "{other_rust}");
    }
}
