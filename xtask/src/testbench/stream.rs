//! Output that is shown while it is written.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};

/// Follows a file that somebody else appends to.
pub(crate) struct Tail {
    file: File,
}

impl Tail {
    /// Starts at the beginning of the file, which is created: its writer may come later.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        File::create(path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { file: File::open(path)? })
    }

    /// Copies what has come since the last call.
    pub(crate) fn copy(&mut self, out: &mut dyn Write) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = self.file.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            out.write_all(&buffer[..length])?;
            out.flush()?;
        }
    }
}

/// Runs a program, copying its standard output while it comes.
pub(crate) fn copy_output(command: &mut Command, out: &mut dyn Write) -> Result<ExitStatus> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting {name}"))?;
    if let Some(mut stdout) = child.stdout.take() {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match stdout.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    out.write_all(&buffer[..length])?;
                    out.flush()?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(child.wait()?)
}
