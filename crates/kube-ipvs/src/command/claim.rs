use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use anyhow::bail;

/// Files here live as long as the kernel's state.
const DIRECTORY: &str = "/run/kube-ipvs";

/// A file of this network namespace, named by its inode number. After the namespace ends, the kernel can give the
/// number to another one. The host's namespace ends with the boot, and so does `/run`.
pub(super) fn file(name: &str) -> io::Result<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
    Ok(Path::new(DIRECTORY).join(format!("{name}-{namespace}")))
}

/// Claims this network namespace for this process, because two processes would undo each other's work. The claim ends
/// with the process. Returns an error if another process has the claim. If claiming fails, kube-ipvs logs that and
/// returns None, so a second process is not rejected.
pub(super) fn claim() -> anyhow::Result<Option<File>> {
    let lock = file("lock").and_then(|path| {
        fs::create_dir_all(DIRECTORY)?;
        Ok((open(&path)?, path))
    });
    let error = match lock {
        Ok((lock, path)) => match lock.try_lock() {
            Ok(()) => return Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => bail!(
                "another kube-ipvs serves this node and holds {}: stop it first. `fuser {0}` names its process. In a \
                 cluster, look for a second DaemonSet or a systemd unit",
                path.display()
            ),
            Err(TryLockError::Error(error)) => error,
        },
        Err(error) => error,
    };
    tracing::warn!("cannot lock a file in {DIRECTORY}: {error}. Make sure that no other kube-ipvs serves this node");
    Ok(None)
}

fn open(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file itself stays: otherwise a third process could lock a new file with its name.
    #[test]
    fn claim_ends_with_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let open = || open(&folder.path().join("lock")).unwrap();
        let first = open();
        first.try_lock().unwrap();
        assert!(matches!(open().try_lock(), Err(TryLockError::WouldBlock)));
        drop(first);
        open().try_lock().unwrap();
    }
}
