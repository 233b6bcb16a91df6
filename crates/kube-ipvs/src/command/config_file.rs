//! Watches the file of `--config` while the daemon runs. If a new content is usable, the process ends, so that it is
//! started again with it. If the content is unusable, kube-ipvs only reports it: a slip in a ConfigMap reaches all
//! nodes at once, and must not end their proxies.

use std::{fs, path::PathBuf, sync::mpsc::Sender, thread, time::Duration};

use super::{RunArgs, sync_loop::Input};
use crate::{
    events::{About, EventNote},
    serve::Call,
};

const POLL_INTERVAL: Duration = Duration::from_secs(3);
/// After this many polls kube-ipvs tries a rejected content again: the kubeconfig that it names can exist by then.
const POLLS_TO_REMINDER: u32 = 20;

pub(super) struct ConfigFile {
    path: PathBuf,
    /// The content when the daemon started.
    running: String,
    /// The content at the last poll.
    seen: String,
    /// Why kube-ipvs rejected that content.
    refused: Option<String>,
    looks: u32,
}

impl ConfigFile {
    pub(super) fn new((path, content): (PathBuf, String)) -> Self {
        Self { path, seen: content.clone(), running: content, refused: None, looks: 0 }
    }

    pub(super) fn follow(mut self, args: &RunArgs, owner: &Sender<Input>) {
        let path = self.path.display().to_string();
        loop {
            thread::sleep(POLL_INTERVAL);
            match self.look(|| args.check()) {
                None => {}
                Some(Err(error)) => {
                    let note = format!("{error:#}. kube-ipvs keeps the configuration from before this change");
                    tracing::error!("{note}");
                    let event_note = EventNote { about: About::Node, reason: "InvalidConfiguration", note };
                    let _ = owner.send(Input::Call(Call::Record(event_note)));
                }
                Some(Ok(())) => {
                    let end = anyhow::anyhow!("{path} has changed: kube-ipvs exits, to restart with the new content");
                    let _ = owner.send(Input::Failed(end));
                    return;
                }
            }
        }
    }

    /// Checks whether a new content is usable. None if that is known, or if the file has its first content.
    fn look(&mut self, check: impl FnOnce() -> anyhow::Result<()>) -> Option<anyhow::Result<()>> {
        // The file can be missing for a moment while it is replaced.
        let content = fs::read_to_string(&self.path).ok()?;
        let is_new = content != self.seen;
        self.looks += 1;
        let is_again = self.refused.is_some() && self.looks.is_multiple_of(POLLS_TO_REMINDER);
        if !is_new && !is_again {
            return None;
        }
        self.seen = content;
        if self.seen == self.running {
            self.refused = None;
            return None;
        }
        let Err(error) = check() else { return Some(Ok(())) };
        let before = self.refused.replace(format!("{error:#}"));
        (is_new || before != self.refused).then_some(Err(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(check: Option<anyhow::Result<()>>) -> String {
        check.map_or("nothing".into(), |check| check.map_or_else(|error| error.to_string(), |()| "usable".into()))
    }

    #[test]
    fn new_file_content_is_checked_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.conf");
        let mut file = ConfigFile::new((path.clone(), "good".into()));
        let mut look = |content: Option<&str>| {
            match content {
                Some(content) => fs::write(&path, content).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let check = || {
                anyhow::ensure!(fs::read_to_string(&path).unwrap().starts_with("good"), "it is bad");
                Ok(())
            };
            said(file.look(check))
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
    fn rejected_content_is_used_once_it_becomes_usable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.conf");
        fs::write(&path, "names a kubeconfig").unwrap();
        let mut file = ConfigFile::new((path, "good".into()));
        let mut look = |is_there: bool| {
            said(file.look(|| {
                anyhow::ensure!(is_there, "there is no kubeconfig");
                Ok(())
            }))
        };
        assert_eq!(look(false), "there is no kubeconfig");
        // The daemon reports it once, however often it retries.
        let of_minutes: Vec<String> = (0..3 * POLLS_TO_REMINDER).map(|_| look(false)).collect();
        assert!(of_minutes.iter().all(|check| check == "nothing"), "{of_minutes:?}");
        let of_minute: Vec<String> = (0..POLLS_TO_REMINDER).map(|_| look(true)).collect();
        assert!(of_minute.contains(&"usable".to_owned()), "{of_minute:?}");
    }
}
