//! An image as one archive: a layout of OCI, with the list that `docker save` adds, so that every container tool reads
//! it.

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// A file of the layout, named by its content.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: digest(&bytes), bytes }
    }

    fn json(value: &Value) -> Result<Self> {
        Ok(Self::new(serde_json::to_vec(value)?))
    }

    fn name(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    fn descriptor(&self, kind: &str) -> Value {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{}", self.digest),
            "size": self.bytes.len(),
        })
    }
}

/// The archive of an image with one layer. `settings` are the fields of its configuration besides the layer.
pub(super) fn pack(layer: Vec<u8>, mut settings: Value, tag: &str) -> Result<Vec<u8>> {
    let layer = Blob::new(layer);
    settings["rootfs"] = json!({"type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)]});
    let config = Blob::json(&settings)?;
    let manifest = Blob::json(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("config.v1+json"),
        "layers": [layer.descriptor("layer.v1.tar")],
    }))?;
    let mut entry = manifest.descriptor("manifest.v1+json");
    entry["platform"] = json!({"architecture": settings["architecture"], "os": settings["os"]});
    let version = tag.rsplit_once(':').map_or(tag, |(_, version)| version);
    entry["annotations"] =
        json!({"io.containerd.image.name": full_name(tag), "org.opencontainers.image.ref.name": version});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    let list = json!([{"Config": config.name(), "RepoTags": [tag], "Layers": [layer.name()]}]);
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes)
    };
    for blob in [&config, &manifest, &layer] {
        add(&blob.name(), &blob.bytes)?;
    }
    add("index.json", &serde_json::to_vec(&index)?)?;
    add("manifest.json", &serde_json::to_vec(&list)?)?;
    add("oci-layout", LAYOUT.as_bytes())?;
    Ok(archive.into_inner()?)
}

/// The name under which the kubelet asks containerd for an image.
fn full_name(tag: &str) -> String {
    match tag.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => tag.to_owned(),
        Some(_) => format!("docker.io/{tag}"),
        None => format!("docker.io/library/{tag}"),
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    #[test]
    fn archive_is_a_layout_of_oci_with_the_list_of_docker() {
        let settings = json!({"architecture": "arm64", "os": "linux"});
        let packed = pack(b"layer".to_vec(), settings, "registry.example.org:5000/a/kube-ipvs:1").unwrap();
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(packed.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), bytes);
        }
        for (name, bytes) in &files {
            let named = name.strip_prefix("blobs/sha256/");
            assert!(named.is_none_or(|named| named == digest(bytes)), "{name}");
        }
        let json = |name: &str| -> Value { serde_json::from_slice(&files[name]).unwrap() };
        let blob = |descriptor: &Value| {
            let name = format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"));
            assert_eq!(descriptor["size"], files[&name].len());
            name
        };
        let entry = &json("index.json")["manifests"][0];
        assert_eq!(entry["platform"]["architecture"], "arm64");
        assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "1");
        let manifest = json(&blob(entry));
        let (config, layer) = (blob(&manifest["config"]), blob(&manifest["layers"][0]));
        assert_eq!(json(&config)["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let list =
            json!([{"Config": config, "RepoTags": ["registry.example.org:5000/a/kube-ipvs:1"], "Layers": [layer]}]);
        assert_eq!(json("manifest.json"), list);
        assert_eq!(json("oci-layout")["imageLayoutVersion"], "1.0.0");
    }

    #[test]
    fn names_are_completed_as_the_kubelet_completes_them() {
        for (tag, expected) in [
            ("kube-ipvs:1", "docker.io/library/kube-ipvs:1"),
            ("group/kube-ipvs:1", "docker.io/group/kube-ipvs:1"),
            ("localhost/kube-ipvs:1", "localhost/kube-ipvs:1"),
            ("registry:5000/kube-ipvs:1", "registry:5000/kube-ipvs:1"),
            ("registry.example.org/kube-ipvs:1", "registry.example.org/kube-ipvs:1"),
        ] {
            assert_eq!(full_name(tag), expected);
        }
    }
}
