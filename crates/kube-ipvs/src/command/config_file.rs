//! The file of `--config` while the daemon runs: with a new content that can be used the process ends, so that it is
//! started again with it. Of one that cannot be used nothing comes but a complaint: a slip in a ConfigMap reaches all
//! nodes at once, and must not end their proxies.

use std::{fs, path::PathBuf, sync::mpsc::Sender, thread, time::Duration};

use super::{RunArgs, sync_loop::Input};
use crate::{
    events::{About, EventNote},
    serve::Call,
};

/// How often the file is looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(3);
/// After how many looks a content that cannot be used is tried again: a kubeconfig that it names may have come since.
const POLLS_TO_REMINDER: u32 = 20;

/// The file that a running daemon was configured by.
pub(super) struct ConfigFile {
    path: PathBuf,
    /// What it said when the daemon started.
    running: String,
    /// What it said last.
    seen: String,
    /// Why that cannot be used.
    refused: Option<String>,
    looks: u32,
}

/// What a look at the file has shown.
#[derive(Debug)]
enum Check {
    /// Nothing, or that it says what it said at the start.
    Nothing,
    /// A content that can be used.
    Usable,
    /// One that cannot.
    KernelUnavailable(anyhow::Error),
}

impl ConfigFile {
    pub(super) fn new((path, content): (PathBuf, String)) -> Self {
        Self { path, seen: content.clone(), running: content, refused: None, looks: 0 }
    }

    /// Looks at the file again and again, until there is a new content that can be used.
    pub(super) fn follow(mut self, source: &RunArgs, owner: &Sender<Input>) {
        let path = self.path.display().to_string();
        loop {
            thread::sleep(POLL_INTERVAL);
            match self.look(|| source.check()) {
                Check::Nothing => {}
                Check::KernelUnavailable(error) => {
                    let note = format!("{error:#}; going on with the configuration from before this change");
                    tracing::error!("{note}");
                    let event_note = EventNote { about: About::Node, reason: "InvalidConfiguration", note };
                    let _ = owner.send(Input::Call(Call::Record(event_note)));
                }
                Check::Usable => {
                    let end = anyhow::anyhow!("{path} has changed: ending, to be started again with it");
                    let _ = owner.send(Input::Failed(end));
                    return;
                }
            }
        }
    }

    fn look(&mut self, check: impl FnOnce() -> anyhow::Result<()>) -> Check {
        // It may be gone for a moment while it is replaced.
        let Ok(content) = fs::read_to_string(&self.path) else { return Check::Nothing };
        let is_new = content != self.seen;
        self.looks += 1;
        let is_again = self.refused.is_some() && self.looks.is_multiple_of(POLLS_TO_REMINDER);
        if !is_new && !is_again {
            return Check::Nothing;
        }
        self.seen = content;
        if self.seen == self.running {
            self.refused = None;
            return Check::Nothing;
        }
        let Err(error) = check() else { return Check::Usable };
        let before = self.refused.replace(format!("{error:#}"));
        if !is_new && before == self.refused { Check::Nothing } else { Check::KernelUnavailable(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_new_content_is_judged_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.conf");
        let mut file = ConfigFile::new((path.clone(), "good".into()));
        let mut look = |content: Option<&str>| {
            match content {
                Some(content) => fs::write(&path, content).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let check = || match fs::read_to_string(&path).unwrap().starts_with("good") {
                true => Ok(()),
                false => anyhow::bail!("it is bad"),
            };
            match file.look(check) {
                Check::Nothing => "nothing".to_owned(),
                Check::Usable => "usable".to_owned(),
                Check::KernelUnavailable(error) => error.to_string(),
            }
        };
        assert_eq!(look(Some("good")), "nothing");
        assert_eq!(look(Some("bad")), "it is bad");
        assert_eq!(look(Some("bad")), "nothing");
        assert_eq!(look(None), "nothing");
        assert_eq!(look(Some("")), "it is bad");
        assert_eq!(look(Some("good")), "nothing");
        assert_eq!(look(Some("bad")), "it is bad");
        assert_eq!(look(Some("good too")), "usable");
    }

    #[test]
    fn a_content_that_can_be_used_later_is_used_then() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.conf");
        fs::write(&path, "names a kubeconfig").unwrap();
        let mut file = ConfigFile::new((path, "good".into()));
        let mut look = |is_there: bool| match file.look(|| match is_there {
            true => Ok(()),
            false => anyhow::bail!("there is no kubeconfig"),
        }) {
            Check::Nothing => "nothing".to_owned(),
            Check::Usable => "usable".to_owned(),
            Check::KernelUnavailable(error) => error.to_string(),
        };
        assert_eq!(look(false), "there is no kubeconfig");
        // The daemon reports it once, however often it retries.
        let of_minutes: Vec<String> = (0..3 * POLLS_TO_REMINDER).map(|_| look(false)).collect();
        assert!(of_minutes.iter().all(|check| check == "nothing"), "{of_minutes:?}");
        let of_minute: Vec<String> = (0..POLLS_TO_REMINDER).map(|_| look(true)).collect();
        assert!(of_minute.contains(&"usable".to_owned()), "{of_minute:?}");
    }
}
