//! Cleans up however this process ends, with a second process that waits for the end.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Runs a command when it is dropped, and also when this process ends in any other way: Ctrl-C and SIGKILL close the
/// pipe that the waiting process reads.
#[derive(Debug)]
pub(crate) struct Janitor {
    waiting: Option<Child>,
    does: String,
}

impl Janitor {
    pub(crate) fn new(words: &[String]) -> Result<Self> {
        // Ctrl-C at a terminal signals all its processes. The janitor and its command ignore it.
        let mut waiting = Command::new("sh")
            .args(["-c", "trap '' INT TERM HUP; echo; cat >/dev/null; exec \"$@\" >&2", "janitor"])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting sh")?;
        // The janitor ignores Ctrl-C from its first output on.
        let mut said = [0; 1];
        waiting.stdout.take().context("a pipe")?.read_exact(&mut said).context("sh ended")?;
        Ok(Self { waiting: Some(waiting), does: words.join(" ") })
    }

    /// Removes a directory, which can be created later.
    pub(crate) fn removing(directory: &Path) -> Result<Self> {
        let words = ["rm", "-rf", "--", &directory.to_string_lossy()].map(str::to_owned);
        Self::new(&words)
    }

    pub(crate) fn finish(mut self) -> Result<()> {
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
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn place(name: &str) -> (PathBuf, Vec<String>) {
        let file = std::env::temp_dir().join(format!("kube-ipvs-janitor-{}-{name}", std::process::id()));
        let words = vec!["touch".to_owned(), file.to_string_lossy().into_owned()];
        (file, words)
    }

    #[test]
    fn janitor_cleans_up_on_drop_and_not_before() {
        let (file, words) = place("dropped");
        let janitor = Janitor::new(&words).unwrap();
        assert!(!file.exists());
        drop(janitor);
        assert!(file.exists());
        fs::remove_file(file).unwrap();
        assert!(Janitor::new(&["false".to_owned()]).unwrap().finish().is_err());
    }

    #[test]
    fn janitor_cleans_up_after_its_owner_is_killed() {
        let (file, words) = place("killed");
        // Kills a process that has a janitor, as this process would have one.
        let mut janitor = Janitor::new(&words).unwrap();
        let mut waiting = janitor.waiting.take().unwrap();
        let pipe = waiting.stdin.take().unwrap();
        let mut owner = Command::new("sleep").arg("600").stdout(Stdio::from(pipe)).spawn().unwrap();
        assert!(!file.exists());
        owner.kill().unwrap();
        owner.wait().unwrap();
        waiting.wait().unwrap();
        assert!(file.exists());
        fs::remove_file(file).unwrap();
    }
}
