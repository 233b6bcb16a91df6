//! Cleaning up, whatever happens to us: by a process that waits for our end.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Runs a command when it is dropped, and also when this process ends in any other way: Ctrl-C and SIGKILL close the
/// pipe that the waiting process reads.
#[derive(Debug)]
pub(super) struct Janitor {
    waiting: Option<Child>,
    does: String,
}

impl Janitor {
    pub(super) fn new(words: &[String]) -> Result<Self> {
        // A Ctrl-C at the terminal is for all its processes; this one and what it starts go on.
        let mut waiting = Command::new("sh")
            .args(["-c", "trap '' INT TERM HUP; echo; cat >/dev/null; exec \"$@\" >&2", "janitor"])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting sh")?;
        // Only when it has said something it is deaf to Ctrl-C.
        let mut said = [0; 1];
        waiting.stdout.take().context("a pipe")?.read_exact(&mut said).context("sh ended")?;
        Ok(Self { waiting: Some(waiting), does: words.join(" ") })
    }

    /// Cleans up now, and says whether it worked.
    pub(super) fn finish(mut self) -> Result<()> {
        self.clean()
    }

    fn clean(&mut self) -> Result<()> {
        let Some(mut waiting) = self.waiting.take() else { return Ok(()) };
        drop(waiting.stdin.take());
        let status = waiting.wait()?;
        ensure!(status.success(), "{} ended with {status}: clean up by hand", self.does);
        Ok(())
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        if let Err(error) = self.clean() {
            eprintln!("xtask: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::{Duration, Instant};
    use std::{fs, thread};

    use super::*;

    fn place(name: &str) -> (PathBuf, Vec<String>) {
        let file = std::env::temp_dir().join(format!("kube-ipvs-janitor-{}-{name}", std::process::id()));
        let words = vec!["touch".to_owned(), file.to_string_lossy().into_owned()];
        (file, words)
    }

    #[test]
    fn it_cleans_up_when_it_is_dropped_and_not_before() {
        let (file, words) = place("dropped");
        let janitor = Janitor::new(&words).unwrap();
        assert!(!file.exists());
        drop(janitor);
        assert!(file.exists());
        fs::remove_file(file).unwrap();
        assert!(Janitor::new(&["false".to_owned()]).unwrap().finish().is_err());
    }

    #[test]
    fn it_cleans_up_after_somebody_who_was_killed() {
        let (file, words) = place("killed");
        // Somebody who has a janitor, as this process would, and is killed.
        let mut janitor = Janitor::new(&words).unwrap();
        let mut waiting = janitor.waiting.take().unwrap();
        let pipe = waiting.stdin.take().unwrap();
        let mut owner = Command::new("sleep").arg("600").stdout(Stdio::from(pipe)).spawn().unwrap();
        thread::sleep(Duration::from_millis(100));
        assert!(!file.exists());
        owner.kill().unwrap();
        owner.wait().unwrap();
        let start = Instant::now();
        while !file.exists() && start.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(10));
        }
        assert!(file.exists());
        waiting.wait().unwrap();
        fs::remove_file(file).unwrap();
    }
}
