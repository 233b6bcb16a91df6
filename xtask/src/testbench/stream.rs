//! Shows a program's output while it is written.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// After this long without output, [`Output::tick`] is called.
const TICK: Duration = Duration::from_secs(1);

pub(crate) trait Output {
    fn stdout(&mut self, bytes: &[u8]) -> Result<()>;
    fn stderr(&mut self, bytes: &[u8]) -> Result<()>;

    /// Called now and then while there is no output.
    fn tick(&mut self) -> Result<()> {
        Ok(())
    }
}

pub(crate) struct Terminal;

impl Output for Terminal {
    fn stdout(&mut self, bytes: &[u8]) -> Result<()> {
        let mut out = io::stdout();
        out.write_all(bytes)?;
        Ok(out.flush()?)
    }

    fn stderr(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(io::stderr().write_all(bytes)?)
    }
}

/// Follows a file that another process appends to.
pub(crate) struct Tail {
    file: File,
}

impl Tail {
    /// Creates the file, because its writer can start later.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        File::create(path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { file: File::open(path)? })
    }

    /// Passes on the bytes since the last call.
    pub(crate) fn copy(&mut self, mut out: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = self.file.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            out(&buffer[..length])?;
        }
    }
}

#[derive(Clone, Copy)]
enum Stream {
    Stdout,
    Stderr,
}

/// Runs a program and passes its output on immediately.
pub(crate) fn copy_output(command: &mut Command, out: &mut dyn Output) -> Result<ExitStatus> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| format!("starting {name}"))?;
    let (sender, receiver) = channel();
    if let Some(stdout) = child.stdout.take() {
        read_on_a_thread(stdout, Stream::Stdout, sender.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        read_on_a_thread(stderr, Stream::Stderr, sender);
    }
    loop {
        match receiver.recv_timeout(TICK) {
            Ok((Stream::Stdout, bytes)) => out.stdout(&bytes)?,
            Ok((Stream::Stderr, bytes)) => out.stderr(&bytes)?,
            Err(RecvTimeoutError::Timeout) => out.tick()?,
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(child.wait()?)
}

fn read_on_a_thread(mut from: impl Read + Send + 'static, stream: Stream, sender: Sender<(Stream, Vec<u8>)>) {
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) if sender.send((stream, buffer[..length].to_vec())).is_err() => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
}
