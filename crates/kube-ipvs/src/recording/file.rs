//! The file of a recording: readable by its owner only, of limited size, and never a reason to stop.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::Context;
use serde::Serialize;

use super::Entry;

/// Writes entries until a limit.
pub struct Recording {
    out: Box<dyn Write + Send>,
    /// The number of bytes that the recording can still grow.
    room: u64,
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").field("room", &self.room).finish_non_exhaustive()
    }
}

impl Recording {
    /// A recording of at most `limit` bytes.
    pub fn new(out: impl Write + Send + 'static, limit: u64) -> Self {
        Self { out: Box::new(out), room: limit }
    }

    /// Writes an entry as one line, at once: the process can end at any time. A line that does not fit is not begun.
    ///
    /// # Errors
    ///
    /// If the recording has reached its limit or cannot be written.
    pub fn write(&mut self, entry: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let room = self.room.checked_sub(line.len() as u64);
        self.room = room.ok_or_else(|| io::Error::new(ErrorKind::FileTooLarge, "it has reached its limit"))?;
        self.out.write_all(&line)
    }
}

/// Creates a file that only its owner can read.
///
/// # Errors
///
/// If it exists: a recording never replaces an earlier one, which can show why kube-ipvs ended.
pub fn create(path: &Path) -> anyhow::Result<File> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    created.with_context(|| format!("cannot create {}", path.display()))
}

/// The entries of a recording. A last line without an end is not read: the process ended while it wrote that line.
///
/// # Errors
///
/// If a line is no entry.
pub fn read(text: &str) -> anyhow::Result<Vec<Entry<'static>>> {
    let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).enumerate();
    let entry = |(number, line)| serde_json::from_str(line).with_context(|| format!("line {}", number + 1));
    lines.map(entry).collect()
}
