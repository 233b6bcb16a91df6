//! A file tree for an initramfs, and its archive in the `newc` format that the kernel unpacks at boot.
//!
//! cpio(1) would need a staging directory, and root for the owners of files. A tree in memory needs neither, and gives
//! the same bytes each time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

#[derive(Default)]
pub(crate) struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

enum Entry {
    Directory,
    /// A file of the host, read when the archive is written.
    Host {
        source: PathBuf,
        mode: u32,
    },
    Text {
        text: String,
        mode: u32,
    },
    Symlink(PathBuf),
}

const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_777;

impl Tree {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a file of the host with its permission bits. A symbolic link is followed.
    pub(crate) fn file(&mut self, source: &Path, guest: impl AsRef<Path>) -> Result<()> {
        let metadata = fs::metadata(source).with_context(|| format!("reading {}", source.display()))?;
        ensure!(metadata.is_file(), "{} is not a file", source.display());
        let mode = metadata.permissions().mode() & 0o777;
        self.insert(guest.as_ref(), Entry::Host { source: source.to_owned(), mode });
        Ok(())
    }

    pub(crate) fn copy_directory(&mut self, source: &Path, guest: &Path) -> Result<()> {
        for entry in fs::read_dir(source).with_context(|| format!("reading {}", source.display()))? {
            let source = entry?.path();
            let guest = guest.join(source.file_name().unwrap_or_default());
            if source.is_dir() {
                self.directory(&guest);
                self.copy_directory(&source, &guest)?;
            } else {
                self.file(&source, &guest)?;
            }
        }
        Ok(())
    }

    pub(crate) fn text(&mut self, guest: impl AsRef<Path>, text: impl Into<String>, mode: u32) {
        self.insert(guest.as_ref(), Entry::Text { text: text.into(), mode });
    }

    pub(crate) fn symlink(&mut self, guest: impl AsRef<Path>, target: impl Into<PathBuf>) {
        self.insert(guest.as_ref(), Entry::Symlink(target.into()));
    }

    pub(crate) fn directory(&mut self, guest: impl AsRef<Path>) {
        self.insert(guest.as_ref(), Entry::Directory);
    }

    pub(crate) fn contains(&self, guest: impl AsRef<Path>) -> bool {
        self.entries.contains_key(&in_usr(guest.as_ref()))
    }

    fn insert(&mut self, guest: &Path, entry: Entry) {
        let guest = in_usr(guest);
        if matches!(entry, Entry::Directory) && self.entries.contains_key(&guest) {
            return;
        }
        for parent in guest.ancestors().skip(1).filter(|parent| parent.parent().is_some()) {
            self.entries.entry(parent.to_owned()).or_insert(Entry::Directory);
        }
        self.entries.insert(guest, entry);
    }

    /// Parents sort before their content: the kernel needs this order.
    pub(crate) fn write(&self, out: &mut impl Write) -> Result<()> {
        for (inode, (guest, entry)) in (1..).zip(&self.entries) {
            let name = guest.strip_prefix("/").unwrap_or(guest).to_str().context("a path is not UTF-8")?;
            match entry {
                Entry::Directory => record(out, inode, DIRECTORY, name, 0, &mut io::empty())?,
                Entry::Symlink(target) => {
                    let target = target.to_str().context("a link is not UTF-8")?.as_bytes();
                    record(out, inode, SYMLINK, name, target.len() as u64, &mut &*target)?;
                }
                Entry::Text { text, mode } => {
                    record(out, inode, REGULAR | mode, name, text.len() as u64, &mut text.as_bytes())?;
                }
                Entry::Host { source, mode } => {
                    let mut file = File::open(source).with_context(|| format!("opening {}", source.display()))?;
                    let length = file.metadata()?.len();
                    record(out, inode, REGULAR | mode, name, length, &mut file)?;
                }
            }
        }
        record(out, 0, 0, "TRAILER!!!", 0, &mut io::empty())
    }
}

/// Everything is under /usr, as in Debian. [`super::image`] adds the links /bin, /sbin, /lib and /lib64.
fn in_usr(guest: &Path) -> PathBuf {
    let merged =
        ["/bin", "/sbin", "/lib", "/lib64"].iter().any(|top| guest.starts_with(top) && guest != Path::new(top));
    if merged { Path::new("/usr").join(guest.strip_prefix("/").unwrap_or(guest)) } else { guest.to_owned() }
}

/// One member: a header of thirteen hexadecimal numbers, the name, the content; each padded to four bytes.
fn record(out: &mut impl Write, inode: u32, mode: u32, name: &str, length: u64, content: &mut impl Read) -> Result<()> {
    ensure!(length <= u64::from(u32::MAX), "{name} is too large for an initramfs");
    write!(out, "070701{inode:08x}{mode:08x}")?;
    // uid, gid, links, modification time; the size; the device numbers twice; the size of the name; no checksum.
    write!(out, "{:08x}{:08x}{:08x}{:08x}{length:08x}", 0, 0, 1, 0)?;
    write!(out, "{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}", 0, 0, 0, 0, name.len() + 1, 0)?;
    out.write_all(name.as_bytes())?;
    out.write_all(&[0])?;
    pad(out, 110 + name.len() as u64 + 1)?;
    let copied = io::copy(&mut content.take(length), out)?;
    ensure!(copied == length, "{name} shrank while it was read");
    pad(out, length)
}

fn pad(out: &mut impl Write, written: u64) -> Result<()> {
    let missing = (4 - written % 4) % 4;
    out.write_all(&[0; 3][..missing as usize])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_has_parents_first_and_is_padded() {
        let mut tree = Tree::new();
        tree.text("/sbin/init", "#!/bin/sh\n", 0o755);
        tree.symlink("/bin", "usr/bin");
        let mut bytes = Vec::new();
        tree.write(&mut bytes).unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        let at = |name: &str| text.find(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert!(at("bin\0") < at("usr\0"));
        assert!(at("usr\0") < at("usr/sbin\0"));
        assert!(at("usr/sbin\0") < at("usr/sbin/init\0"));
        assert!(at("usr/sbin/init\0") < at("TRAILER!!!\0"));
        assert!(text.contains("#!/bin/sh\n"));
    }

    #[test]
    fn merged_directories_move_to_usr_but_the_links_themselves_stay() {
        assert_eq!(in_usr(Path::new("/lib/modules/x")), Path::new("/usr/lib/modules/x"));
        assert_eq!(in_usr(Path::new("/lib64/ld.so")), Path::new("/usr/lib64/ld.so"));
        assert_eq!(in_usr(Path::new("/lib")), Path::new("/lib"));
        assert_eq!(in_usr(Path::new("/init")), Path::new("/init"));
    }
}
