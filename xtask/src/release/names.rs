//! The names of the files of a release. Pages about the installation use the same ones.

use super::VERSION;
use crate::image;

pub(super) fn image(architecture: &str) -> String {
    with_version(&format!("-image-{architecture}.tar"))
}

pub(super) fn tarball(architecture: &str) -> String {
    with_version(&format!("-linux-{architecture}.tar.gz"))
}

pub(super) fn chart() -> String {
    with_version(".tgz")
}

pub(super) fn manifests() -> String {
    with_version(".yaml")
}

pub(super) fn sbom() -> String {
    with_version(".cdx.json")
}

/// As cargo-deb and cargo-generate-rpm name them.
pub(super) fn packages(architecture: &str) -> [String; 2] {
    let of_rpm = match architecture {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    };
    [format!("{}_{VERSION}-1_{architecture}.deb", image::NAME), with_version(&format!("-1.{of_rpm}.rpm"))]
}

/// All files but the checksums and their signature.
pub(super) fn all<'a>(architectures: impl Iterator<Item = &'a str>) -> Vec<String> {
    let of_each = |architecture| [vec![image(architecture), tarball(architecture)], packages(architecture).into()];
    let mut all: Vec<String> = architectures.flat_map(of_each).flatten().collect();
    all.extend([chart(), manifests(), sbom()]);
    all.sort();
    all
}

fn with_version(rest: &str) -> String {
    format!("{}-{VERSION}{rest}", image::NAME)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// File names with the version as a variable.
    fn named(page: &Path) -> BTreeSet<String> {
        let text = fs::read_to_string(page).unwrap();
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "$_.-".contains(c)));
        let names = words.map(|word| word.trim_end_matches('.')).filter(|word| {
            let rest = word.strip_prefix("kube-ipvs");
            rest.is_some_and(|rest| rest.starts_with("-$VERSION") || rest.starts_with("_$VERSION"))
        });
        names.map(str::to_owned).collect()
    }

    #[test]
    fn pages_name_the_files_of_a_release_and_no_others() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let files: BTreeSet<String> =
            all(["amd64"].into_iter()).into_iter().map(|name| name.replace(VERSION, "$VERSION")).collect();
        let overview = root.join("docs/install/README.md");
        assert_eq!(named(&overview), files);
        // The tarball's only folder.
        let known = &files | &BTreeSet::from(["kube-ipvs-$VERSION".to_owned()]);
        let mut pages: Vec<_> =
            fs::read_dir(root.join("docs/install")).unwrap().map(|page| page.unwrap().path()).collect();
        pages.push(root.join("README.md"));
        for page in pages {
            let found = named(&page);
            assert!(!found.is_empty(), "{} names no file", page.display());
            assert!(found.is_subset(&known), "{}: {found:?}", page.display());
        }
    }
}
