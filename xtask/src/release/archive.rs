//! Archives that depend only on their content and one time.

use std::io::Write;

use anyhow::Result;
use flate2::{Compression, GzBuilder};

pub(super) struct File {
    /// The path within the archive's only folder.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
}

impl File {
    pub(super) fn text(name: &str, text: impl Into<String>) -> Self {
        Self { name: name.to_owned(), bytes: text.into().into_bytes(), mode: 0o644 }
    }
}

/// A `.tar.gz` with all files in one folder: sorted by name, owned by root, with the same time.
pub(super) fn pack(folder: &str, files: &[File], time: u64) -> Result<Vec<u8>> {
    let mut sorted: Vec<&File> = files.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut tar = tar::Builder::new(Vec::new());
    for file in sorted {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.bytes.len() as u64);
        header.set_mode(file.mode);
        header.set_mtime(time);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, format!("{folder}/{}", file.name), file.bytes.as_slice())?;
    }
    // The header of gzip gets neither a time nor a name.
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    gzip.write_all(&tar.into_inner()?)?;
    Ok(gzip.finish()?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn files() -> [File; 3] {
        [
            File::text("b/manifest.yaml", "kind: x\n"),
            File { name: "a".into(), bytes: vec![0; 70_000], mode: 0o755 },
            File::text("LICENSE", "text"),
        ]
    }

    #[test]
    fn archive_depends_on_content_and_time_alone() {
        let first = pack("x-1", &files(), 1_700_000_000).unwrap();
        let mut reversed = files();
        reversed.reverse();
        assert_eq!(first, pack("x-1", &reversed, 1_700_000_000).unwrap());
        assert_ne!(first, pack("x-1", &files(), 1_700_000_001).unwrap());
    }

    #[test]
    fn archive_has_sorted_names_fixed_owners_and_modes() {
        let packed = pack("x-1", &files(), 1_700_000_000).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed.as_slice()));
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 1_700_000_000));
            found.push((entry.path().unwrap().display().to_string(), header.mode().unwrap(), bytes.len()));
        }
        let expected = [("x-1/LICENSE", 0o644, 4), ("x-1/a", 0o755, 70_000), ("x-1/b/manifest.yaml", 0o644, 8)];
        assert_eq!(found, expected.map(|(name, mode, size)| (name.to_owned(), mode, size)));
    }
}
