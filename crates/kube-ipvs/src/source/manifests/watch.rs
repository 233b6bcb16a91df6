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

/// How often kube-ipvs scans the folder without a notice. The file system may send none, files may be links to
/// elsewhere, or another folder may have replaced this one.
pub const RESCAN_INTERVAL: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy)]
struct Pace {
    rescan: Duration,
    /// How long the folder must be quiet: editors write a file in several steps.
    quiet: Duration,
    patience: Duration,
}

const PACE: Pace =
    Pace { rescan: RESCAN_INTERVAL, quiet: Duration::from_millis(100), patience: Duration::from_secs(1) };

/// Scans now and after each change in the folder, until `deliver` breaks.
///
/// The first delivery holds the whole folder. Later `deliver` runs after each change, and at least every
/// [`RESCAN_INTERVAL`] with possibly empty changes, so that it can break.
pub fn follow(mut source: ManifestSource, mut deliver: impl FnMut(Changes) -> ControlFlow<()>) {
    let (sender, receiver) = channel();
    let mut watch = Watch::default();
    loop {
        // Watch before the scan, or a change in between would be missed.
        watch.renew(source.dir(), &sender);
        if deliver(source.scan()).is_break() {
            return;
        }
        wait(&receiver, PACE);
    }
}

fn wait(receiver: &Receiver<()>, pace: Pace) {
    match receiver.recv_timeout(pace.rescan) {
        Ok(()) => {}
        Err(RecvTimeoutError::Timeout) => return,
        // Unreachable: the caller holds a sender.
        Err(RecvTimeoutError::Disconnected) => return std::thread::sleep(pace.rescan),
    }
    let deadline = Instant::now() + pace.patience;
    while receiver.recv_timeout(pace.quiet).is_ok() && Instant::now() < deadline {}
}

#[derive(Default)]
struct Watch {
    watched: Option<(RecommendedWatcher, (u64, u64))>,
}

impl Watch {
    /// If another folder has taken the path, this starts a new watch.
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
                tracing::warn!(folder = %dir.display(), %error, "cannot watch the folder: kube-ipvs looks at it every \
                                                                 few seconds instead");
                None
            }
        };
    }
}

fn watch(dir: &Path, sender: Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // The scan's own reads are no change. Everything else is, including an error.
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

    /// Longer than any test runs.
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn change_in_several_steps_is_scanned_once_it_rests() {
        let (sender, receiver) = channel();
        let (looks, looked) = channel();
        let pace = Pace { rescan: HOUR, quiet: HOUR, patience: HOUR };
        std::thread::spawn(move || {
            wait(&receiver, pace);
            looks.send(receiver.try_iter().count())
        });
        for _ in 0..3 {
            sender.send(()).unwrap();
            // A `wait` that ignored the quiet time would have returned by then.
            assert_eq!(looked.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout));
        }
        // No more changes can arrive, so the folder counts as quiet.
        drop(sender);
        assert_eq!(looked.recv(), Ok(0), "all steps were taken in before it looked");
    }

    #[test]
    fn changes_that_never_rest_are_scanned_after_the_patience() {
        let (sender, receiver) = channel();
        (0..2).for_each(|_| sender.send(()).unwrap());
        wait(&receiver, Pace { rescan: HOUR, quiet: HOUR, patience: Duration::ZERO });
    }

    #[test]
    fn folder_without_a_notice_is_scanned_after_the_rescan_interval() {
        let (_sender, receiver) = channel();
        wait(&receiver, Pace { rescan: Duration::ZERO, quiet: HOUR, patience: HOUR });
    }
}
