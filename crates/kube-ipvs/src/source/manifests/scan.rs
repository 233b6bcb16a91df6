use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, ensure};
use proxier_kubernetes::AnnotationPolicy;

use super::{Changes, Content, Folder, Problem};

/// kube-ipvs rejects a larger file without reading it: 64 MiB.
pub const MAX_FILE_SIZE: u64 = 64 << 20;

/// A file that changed just before the read can change again within the same tick of the file system's clock. Until
/// this time has passed, its stamp proves nothing.
const SETTLE_TIME: Duration = Duration::from_secs(2);

/// A folder of manifests on disk.
#[derive(Debug)]
pub struct ManifestSource {
    dir: PathBuf,
    folder: Folder,
    stamps: BTreeMap<String, Stamp>,
    failure: Option<String>,
}

/// The identity and times of a file, and whether the last change is older than `SETTLE_TIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    times: [i64; 4],
    file: [u64; 3],
    settled: bool,
}

impl ManifestSource {
    /// Opens the manifests in `dir`. Reads no file yet.
    ///
    /// # Errors
    ///
    /// If `dir` is no folder, or cannot be read.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let unreadable = || format!("cannot read the folder {}", dir.display());
        let is_folder = fs::metadata(dir).with_context(unreadable)?.is_dir();
        ensure!(is_folder, "{} is not a folder: pass the folder with the manifests", dir.display());
        fs::read_dir(dir).with_context(unreadable)?;
        Ok(Self { dir: dir.into(), folder: Folder::default(), stamps: BTreeMap::new(), failure: None })
    }

    /// Sets which annotations Services can use.
    #[must_use]
    pub fn with_annotations(self, annotations: AnnotationPolicy) -> Self {
        Self { folder: self.folder.with_annotations(annotations), ..self }
    }

    /// The path of the folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads the files that changed since the last scan. The first scan reads all files.
    ///
    /// If the folder is gone or unreadable, this is a problem, and the state stays in force.
    pub fn scan(&mut self) -> Changes {
        match self.list() {
            Ok(names) => {
                self.failure = None;
                self.scan_files(&names)
            }
            Err(error) => {
                let failure = format!("cannot read the folder: {error}. kube-ipvs keeps its last known objects");
                if self.failure.as_ref() == Some(&failure) {
                    return Changes::default();
                }
                let path = self.dir.to_string_lossy().into();
                let problem = Problem::of_file(&path, failure.as_str());
                self.failure = Some(failure);
                Changes { problems: vec![problem], ..Changes::default() }
            }
        }
    }

    fn list(&self) -> io::Result<BTreeSet<String>> {
        let names = fs::read_dir(&self.dir)?.map(|entry| entry.map(|entry| entry.file_name()));
        let names: Vec<_> = names.collect::<Result<_, _>>()?;
        Ok(names.into_iter().filter_map(|name| name.into_string().ok()).filter(|name| is_manifest(name)).collect())
    }

    fn scan_files(&mut self, names: &BTreeSet<String>) -> Changes {
        let gone: Vec<String> = self.folder.files().filter(|name| !names.contains(*name)).map(String::from).collect();
        let mut seen: Vec<(String, Seen)> = Vec::new();
        for name in gone {
            self.stamps.remove(&name);
            seen.push((name, Seen::Gone));
        }
        for name in names {
            let path = self.dir.join(name);
            match look(&path, self.stamps.get(name)) {
                Ok(None) => {}
                Ok(Some((stamp, content))) => {
                    self.stamps.insert(name.clone(), stamp);
                    seen.push((name.clone(), content));
                }
                // The file is gone since it was listed. A dangling link still exists itself.
                Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(&path).is_err() => {
                    self.stamps.remove(name);
                    seen.push((name.clone(), Seen::Gone));
                }
                Err(error) => {
                    // Without a stamp, the next scan reads the file again.
                    self.stamps.remove(name);
                    seen.push((name.clone(), Seen::Unreadable(format!("cannot be read: {error}"))));
                }
            }
        }
        self.folder.load(seen.iter().map(|(name, seen)| (name.as_str(), seen.content())))
    }
}

enum Seen {
    Bytes(Vec<u8>),
    Unreadable(String),
    Gone,
}

impl Seen {
    fn content(&self) -> Content<'_> {
        match self {
            Self::Bytes(bytes) => Content::Bytes(bytes),
            Self::Unreadable(reason) => Content::Unreadable(reason),
            Self::Gone => Content::Gone,
        }
    }
}

/// Follows links. `None` if the stamp is settled and unchanged.
fn look(path: &Path, known: Option<&Stamp>) -> io::Result<Option<(Stamp, Seen)>> {
    let metadata = fs::metadata(path)?;
    let stamp = Stamp::of(&metadata);
    if known.is_some_and(|known| known.settled && *known == stamp) {
        return Ok(None);
    }
    if !metadata.is_file() {
        return Ok(Some((stamp, Seen::Unreadable("is not a file".into()))));
    }
    let too_large = |size: u64| {
        let message = format!(
            "is too large: it has {} MiB, and the maximum is {} MiB",
            size.div_ceil(1 << 20),
            MAX_FILE_SIZE >> 20
        );
        Ok(Some((stamp, Seen::Unreadable(message))))
    };
    if metadata.len() > MAX_FILE_SIZE {
        return too_large(metadata.len());
    }
    let mut content = Vec::with_capacity(metadata.len() as usize);
    // The file may grow during the read.
    File::open(path)?.take(MAX_FILE_SIZE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE_SIZE {
        return too_large(content.len() as u64);
    }
    Ok(Some((stamp, Seen::Bytes(content))))
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let age = metadata.modified().ok().and_then(|then| SystemTime::now().duration_since(then).ok());
        Self {
            times: [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()],
            file: [metadata.dev(), metadata.ino(), metadata.len()],
            settled: age.is_some_and(|age| age > SETTLE_TIME),
        }
    }
}

/// Whether the name is that of a manifest, and not of a hidden file or an editor's leftover.
fn is_manifest(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    matches!(extension, Some("yaml" | "yml" | "json")) && !name.starts_with(['.', '#'])
}
