//! Licences, sources and banned crates of all dependencies, by `deny.toml`. `cargo deny` checks the same, and also
//! advisories. It compiles for minutes and needs the network, so `cargo xtask ci` does without it.

use anyhow::{Context, Result};
use serde_json::Value;
use spdx::{Expression, ParseMode};
use xshell::{Shell, cmd};

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The dependencies of other platforms are not built.
const PLATFORMS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/// The lists of `deny.toml`.
struct Rules {
    licences: Vec<String>,
    banned: Vec<String>,
}

pub(super) fn breaches(sh: &Shell) -> Result<Vec<String>> {
    let rules = Rules::parse(&sh.read_file("deny.toml")?)?;
    let metadata = cmd!(sh, "cargo metadata --quiet --format-version 1 --all-features");
    let metadata =
        metadata.args(PLATFORMS.iter().flat_map(|platform| ["--filter-platform", platform])).quiet().read()?;
    let metadata: Value = serde_json::from_str(&metadata).context("reading cargo's metadata")?;
    let packages = metadata["packages"].as_array().context("cargo's metadata has no packages")?;
    Ok(packages.iter().flat_map(|package| rules.breaches(package)).collect())
}

impl Rules {
    /// The file has one entry a line.
    fn parse(text: &str) -> Result<Self> {
        let list = |head: &str| {
            let (_, rest) = text.split_once(&format!("\n{head} = [\n")).with_context(|| format!("no list {head}"))?;
            let (list, _) = rest.split_once("\n]").with_context(|| format!("{head} has no end"))?;
            let quoted = list.lines().filter(|line| !line.trim_start().starts_with('#'));
            Ok::<_, anyhow::Error>(quoted.filter_map(|line| line.split('"').nth(1)).map(str::to_owned).collect())
        };
        Ok(Self { licences: list("allow")?, banned: list("deny")? })
    }

    fn breaches(&self, package: &Value) -> Vec<String> {
        let [name, version] = ["name", "version"].map(|field| package[field].as_str().unwrap_or_default());
        // The workspace's own packages have no source.
        let Some(source) = package["source"].as_str() else { return Vec::new() };
        let mut breaches = Vec::new();
        if source != CRATES_IO {
            breaches.push(format!("{name} {version} comes from {source}"));
        }
        if self.banned.iter().any(|banned| banned == name) {
            breaches.push(format!("{name} {version}: deny.toml bans it"));
        }
        let licence = package["license"].as_str().unwrap_or_default();
        if !self.allow(licence) {
            breaches.push(format!("{name} {version}: deny.toml does not allow its licence {licence:?}"));
        }
        breaches
    }

    fn allow(&self, licence: &str) -> bool {
        let is_allowed = |required: &spdx::LicenseReq| self.licences.contains(&required.to_string());
        Expression::parse_mode(licence, ParseMode::LAX).is_ok_and(|licence| licence.evaluate(is_allowed))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DENY: &str = "[licenses]\nallow = [\n    \"MIT\",\n    # a comment\n    \"Apache-2.0 WITH LLVM-exception\",\n]\n\
                        [bans]\ndeny = [\n    { crate = \"openssl-sys\", reason = \"no\" },\n]\n";

    fn found(name: &str, licence: Value, source: &str) -> Vec<String> {
        let package = json!({ "name": name, "version": "1.0.0", "license": licence, "source": source });
        Rules::parse(DENY).unwrap().breaches(&package)
    }

    #[test]
    fn dependency_with_an_allowed_choice_of_licences_is_accepted() {
        for licence in ["MIT", "GPL-3.0 OR MIT", "BSD-3-Clause/MIT", "Apache-2.0 WITH LLVM-exception AND MIT"] {
            assert_eq!(found("a", json!(licence), CRATES_IO), Vec::<String>::new(), "{licence}");
        }
    }

    #[test]
    fn dependency_with_a_forbidden_licence_source_or_name_is_reported() {
        for licence in [json!("GPL-3.0-only"), json!("MIT AND GPL-3.0-only"), json!("Apache-2.0"), Value::Null] {
            assert_eq!(found("a", licence.clone(), CRATES_IO).len(), 1, "{licence}");
        }
        assert_eq!(found("a", json!("MIT"), "git+https://x/y"), ["a 1.0.0 comes from git+https://x/y"]);
        assert_eq!(found("openssl-sys", json!("MIT"), CRATES_IO), ["openssl-sys 1.0.0: deny.toml bans it"]);
    }
}
