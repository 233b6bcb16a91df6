//! The files within the archives of a release.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::VERSION;
use super::archive::File;
use crate::chart::{CHART, GOLDEN};
use crate::image;

/// The files for `kubectl apply`, in the order of `manifests/kustomization.yaml`.
const MANIFESTS: [&str; 3] = ["rbac.yaml", "configmap.yaml", "daemonset.yaml"];
/// A file for the kubelet.
const STATIC_POD: &str = "static-pod.yaml";

pub(super) fn manifests(root: &Path, image: &str) -> Result<Vec<File>> {
    MANIFESTS.iter().map(|name| manifest(root, image, name)).collect()
}

fn manifest(root: &Path, image: &str, name: &str) -> Result<File> {
    let mut text = read(&root.join("manifests").join(name))?;
    if ["daemonset.yaml", STATIC_POD].contains(&name) {
        text = replaced(&text, &format!("image: {}", image::USUAL_TAG), &format!("image: {image}:{VERSION}"))?;
    }
    Ok(File::text(name, text))
}

/// All manifests as one file for `kubectl apply --filename`.
pub(super) fn one_file(manifests: &[File]) -> Vec<u8> {
    let texts: Vec<&[u8]> = manifests.iter().map(|file| file.bytes.as_slice()).collect();
    texts.join(&b"---\n"[..])
}

/// The files for an installation without packages, and the manifests.
pub(super) fn tarball(root: &Path, binary: &Path, image: &str) -> Result<Vec<File>> {
    let bytes = fs::read(binary).with_context(|| format!("reading {}", binary.display()))?;
    let mut files = vec![File { name: "kube-ipvs".into(), bytes, mode: 0o755 }];
    for (name, place) in [
        ("LICENSE", "LICENSE"),
        ("kube-ipvs.service", "packaging/kube-ipvs.service"),
        ("config.conf", "packaging/config.conf"),
        ("manifests/dashboard.json", "manifests/dashboard.json"),
        ("manifests/seccomp.json", "manifests/seccomp.json"),
    ] {
        files.push(File::text(name, read(&root.join(place))?));
    }
    let mut manifests = manifests(root, image)?;
    manifests.push(manifest(root, image, STATIC_POD)?);
    files.extend(manifests.into_iter().map(|file| File { name: format!("manifests/{}", file.name), ..file }));
    Ok(files)
}

/// The chart without golden files. Its dashboard is a file here instead of a symbolic link.
pub(super) fn chart(root: &Path, image: &str) -> Result<Vec<File>> {
    let chart = root.join(CHART);
    let mut files = vec![File::text("LICENSE", read(&root.join("LICENSE"))?)];
    let mut folders = vec![chart.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.strip_prefix(&chart)?.to_string_lossy().into_owned();
            match path.is_dir() {
                true if name == GOLDEN => {}
                true => folders.push(path),
                false => files.push(File::text(&name, read(&path)?)),
            }
        }
    }
    let values = files.iter_mut().find(|file| file.name == "values.yaml").context("values.yaml")?;
    let text = String::from_utf8(values.bytes.clone())?;
    let named = replaced(&text, &format!("repository: {}", image::NAME), &format!("repository: {image}"))?;
    values.bytes = named.into_bytes();
    Ok(files)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn replaced(text: &str, from: &str, to: &str) -> Result<String> {
    let line = format!("{from}\n");
    ensure!(text.contains(&line), "there is no line {from:?}");
    Ok(text.replace(&line, &format!("{to}\n")))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    fn named<'a>(files: &'a [File], name: &str) -> &'a str {
        std::str::from_utf8(&files.iter().find(|file| file.name == name).unwrap().bytes).unwrap()
    }

    #[test]
    fn manifests_and_chart_have_the_name_of_the_image() {
        let manifests = manifests(&root(), "registry.example.org/kube-ipvs").unwrap();
        let image = format!("image: registry.example.org/kube-ipvs:{VERSION}\n");
        assert_eq!(named(&manifests, "daemonset.yaml").matches(&image).count(), 2);
        let chart = chart(&root(), "registry.example.org/kube-ipvs").unwrap();
        assert!(named(&chart, "values.yaml").contains("repository: registry.example.org/kube-ipvs\n"));
        let list = fs::read_to_string(root().join("manifests/kustomization.yaml")).unwrap();
        assert!(list.contains(&MANIFESTS.map(|name| format!("  - {name}\n")).concat()), "{list}");
    }

    #[test]
    fn joined_manifests_have_every_object() {
        let text = String::from_utf8(one_file(&manifests(&root(), image::NAME).unwrap())).unwrap();
        let all: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
        let kinds: Vec<_> = all.iter().filter_map(|object| object["kind"].as_str()).collect();
        assert_eq!(kinds, ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet"]);
    }

    #[test]
    fn chart_has_the_dashboard_and_no_golden_files() {
        let chart = chart(&root(), image::NAME).unwrap();
        assert!(named(&chart, "files/dashboard.json").contains("\"title\": \"kube-ipvs\""));
        let golden = chart.iter().find(|file| file.name.starts_with(GOLDEN));
        assert!(golden.is_none(), "{:?}", golden.map(|file| &file.name));
    }

    #[test]
    fn tarball_has_the_unit_and_the_manifests() {
        let files = tarball(&root(), &root().join("LICENSE"), "registry.example.org/kube-ipvs").unwrap();
        let mut names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        names.sort_unstable();
        let expected = [
            "LICENSE",
            "config.conf",
            "kube-ipvs",
            "kube-ipvs.service",
            "manifests/configmap.yaml",
            "manifests/daemonset.yaml",
            "manifests/dashboard.json",
            "manifests/rbac.yaml",
            "manifests/seccomp.json",
            "manifests/static-pod.yaml",
        ];
        assert_eq!(names, expected);
        let pod = named(&files, "manifests/static-pod.yaml");
        assert_eq!(pod.matches(&format!("image: registry.example.org/kube-ipvs:{VERSION}\n")).count(), 2);
    }
}
