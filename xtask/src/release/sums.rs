//! The checksums of a release, and their signature.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use super::VERSION;
use crate::image::digest;
use crate::testbench::ensure_installed;

/// In the format of sha256sum(1).
const SUMS: &str = "SHA256SUMS";

pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

pub(super) fn write(folder: &Path) -> Result<()> {
    let mut sums = String::new();
    for path in files(folder)? {
        let name = path.file_name().context("a file's name")?.to_string_lossy();
        sums += &format!("{}  {name}\n", digest(&fs::read(&path)?));
    }
    Ok(fs::write(folder.join(SUMS), sums)?)
}

/// Writes SHA256SUMS.minisig. The signature contains no time, so the same files and key give the same signature.
pub(super) fn sign(folder: &Path, key: &Path) -> Result<()> {
    ensure_installed(&[("minisign", "minisign")])?;
    let sh = Shell::new()?;
    let (sums, comment) = (folder.join(SUMS), format!("kube-ipvs {VERSION}"));
    cmd!(sh, "minisign -S -s {key} -m {sums} -t {comment}").run().context("signing SHA256SUMS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_have_the_format_of_sha256sum() {
        let folder = std::env::temp_dir().join(format!("kube-ipvs-sums-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("b"), "").unwrap();
        fs::write(folder.join("a"), "abc").unwrap();
        write(&folder).unwrap();
        let text = fs::read_to_string(folder.join(SUMS)).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            text,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a\n\
             e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  b\n"
        );
    }
}
