use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::{Duration, Instant},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::{Changes, ManifestSource};

/// How often the folder is looked at whatever the watch says: it may be on a file system that tells nothing, its
/// files may be links to elsewhere, or it may have been replaced by another folder.
pub const RESCAN_INTERVAL: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy)]
struct Pace {
    /// How often, whatever the watch says.
    rescan: Duration,
    /// How long a change has to rest: editors write a file in several steps.
    quiet: Duration,
    /// How long changes without a rest are waited for.
    patience: Duration,
}

const PACE: Pace =
    Pace { rescan: RESCAN_INTERVAL, quiet: Duration::from_millis(100), patience: Duration::from_secs(1) };

/// Scans now, and again whenever something happens in the folder, until `deliver` breaks off.
///
/// The first delivery is the whole folder in one. After it, `deliver` is called for each change, and at least
/// every [`RESCAN_INTERVAL`] with what may be nothing, so that it can break off.
pub fn follow(mut source: ManifestSource, mut deliver: impl FnMut(Changes) -> ControlFlow<()>) {
    let (sender, receiver) = channel();
    let mut watch = Watch::default();
    loop {
        // Watched before it is scanned, or a change in between would be missed.
        watch.renew(source.dir(), &sender);
        if deliver(source.scan()).is_break() {
            return;
        }
        wait(&receiver, PACE);
    }
}

/// Waits until something happened and things are quiet again, or it is time to look anyway.
fn wait(receiver: &Receiver<()>, pace: Pace) {
    match receiver.recv_timeout(pace.rescan) {
        Ok(()) => {}
        Err(RecvTimeoutError::Timeout) => return,
        // Cannot be: we hold a sender.
        Err(RecvTimeoutError::Disconnected) => return std::thread::sleep(pace.rescan),
    }
    let deadline = Instant::now() + pace.patience;
    while receiver.recv_timeout(pace.quiet).is_ok() && Instant::now() < deadline {}
}

/// The watch on the folder that has the path at present.
#[derive(Default)]
struct Watch {
    watched: Option<(RecommendedWatcher, (u64, u64))>,
}

impl Watch {
    /// Watches the folder. If another folder has taken its path, this starts a new watch.
    fn renew(&mut self, dir: &Path, sender: &Sender<()>) {
        let Ok(metadata) = fs::metadata(dir) else {
            self.watched = None;
            return;
        };
        let identity = (metadata.dev(), metadata.ino());
        if self.watched.as_ref().is_some_and(|(_, watched)| *watched == identity) {
            return;
        }
        self.watched = match watch(dir, sender.clone()) {
            Ok(watcher) => Some((watcher, identity)),
            Err(error) => {
                tracing::warn!(folder = %dir.display(), %error, "no watch: looking every few seconds instead");
                None
            }
        };
    }
}

fn watch(dir: &Path, sender: Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Our own reading is no change. All else is, errors too: then look.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            let _ = sender.send(());
        }
    })?;
    watcher.watch(dir, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So long that it is over in no test.
    const HOUR: Duration = Duration::from_secs(3600);

    /// An editor's steps are one change, however many they are.
    #[test]
    fn a_change_is_waited_for_until_it_rests() {
        let (sender, receiver) = channel();
        let (looks, looked) = channel();
        let pace = Pace { rescan: HOUR, quiet: HOUR, patience: HOUR };
        std::thread::spawn(move || {
            wait(&receiver, pace);
            looks.send(receiver.try_iter().count())
        });
        for _ in 0..3 {
            sender.send(()).unwrap();
            // Of a rest of an hour that much: who does not wait for it would have looked by then.
            assert_eq!(looked.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout));
        }
        // Nothing more can come, so it rests.
        drop(sender);
        assert_eq!(looked.recv(), Ok(0), "all steps were taken in before it looked");
    }

    #[test]
    fn changes_that_never_rest_are_looked_at_in_the_end() {
        let (sender, receiver) = channel();
        (0..2).for_each(|_| sender.send(()).unwrap());
        wait(&receiver, Pace { rescan: HOUR, quiet: HOUR, patience: Duration::ZERO });
    }

    #[test]
    fn without_a_change_it_is_time_to_look_in_the_end() {
        let (_sender, receiver) = channel();
        wait(&receiver, Pace { rescan: Duration::ZERO, quiet: HOUR, patience: HOUR });
    }
}
