//! Ensures that no crate is compiled twice: the project's commands build it with the same features each time.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use xshell::{Shell, cmd};

/// Separate builds, as cargo's flags. All tests are built as the whole workspace.
const PARTS: [&[&str]; 2] = [&["--package", "xtask"], &["--package", "scenarios", "--package", "kube-ipvs"]];

/// The sets of features of each package. Build scripts can have another set than programs.
type Features = BTreeMap<String, BTreeSet<String>>;

/// Packages that a part builds with features that the whole lacks.
pub(super) fn breaches(sh: &Shell) -> Result<Vec<String>> {
    let whole = features(sh, &["--workspace"], "normal,build,dev")?;
    let mut breaches = Vec::new();
    for part in PARTS {
        breaches.extend(differences(&part.join(" "), &features(sh, part, "normal,build")?, &whole));
    }
    Ok(breaches)
}

fn features(sh: &Shell, packages: &[&str], edges: &str) -> Result<Features> {
    let tree = cmd!(sh, "cargo tree --quiet {packages...} --edges {edges} --prefix none --format").arg("{p} [{f}]");
    Ok(parse(&tree.quiet().read()?))
}

/// A line is `name version [features]`. The workspace's own packages have a path too; they compile in seconds and are
/// skipped.
fn parse(tree: &str) -> Features {
    let mut all = Features::new();
    for line in tree.lines() {
        let line = line.trim_end_matches(" (*)");
        if let Some((package, features)) = line.rsplit_once(" [").filter(|(package, _)| !package.contains('(')) {
            all.entry(package.to_owned()).or_default().insert(features.trim_end_matches(']').to_owned());
        }
    }
    all
}

fn differences(part: &str, built: &Features, whole: &Features) -> Vec<String> {
    let differs = |(package, sets): (&String, &BTreeSet<String>)| {
        let known = whole.get(package)?;
        let other = sets.iter().find(|set| !known.contains(*set))?;
        let why = format!("{package} is compiled twice: {part} builds it with [{other}], and the tests with {known:?}");
        Some(why + "; choose its features in the workspace's dependencies")
    };
    built.iter().filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crate_built_with_other_features_is_reported() {
        let whole = parse(
            "proxier v0.1.0 (/x/proxier) [fake]\nlibc v0.2.1 [std]\nlibc v0.2.1 [default,std] (*)\nserde v1.0.0 [std]\n",
        );
        let check = |tree| differences("--package a", &parse(tree), &whole);
        assert!(check("proxier v0.1.0 (/x/proxier) []\nlibc v0.2.1 [std]\nonly-here v1.0.0 []\n").is_empty());
        let found = check("serde v1.0.0 [alloc]\n");
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("serde v1.0.0 is compiled twice: --package a builds it with [alloc]"),
            "{found:?}"
        );
    }
}
