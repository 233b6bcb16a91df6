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
pub const RESCAN: Duration = Duration::from_secs(3);

/// How long a change has to rest: editors write a file in several steps.
const QUIET: Duration = Duration::from_millis(100);

/// How long changes without a rest are waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Scans now, and again whenever something happens in the folder, until `deliver` breaks off.
///
/// The first delivery is the whole folder in one. After it, `deliver` is called for each change, and at least
/// every [`RESCAN`] with what may be nothing, so that it can break off.
pub fn follow(mut source: ManifestSource, mut deliver: impl FnMut(Changes) -> ControlFlow<()>) {
    let (sender, receiver) = channel();
    let mut watch = Watch::default();
    loop {
        // Watched before it is scanned, or a change in between would be missed.
        watch.renew(source.dir(), &sender);
        if deliver(source.scan()).is_break() {
            return;
        }
        wait(&receiver);
    }
}

/// Waits until something happened and things are quiet again, or it is time to look anyway.
fn wait(receiver: &Receiver<()>) {
    match receiver.recv_timeout(RESCAN) {
        Ok(()) => {}
        Err(RecvTimeoutError::Timeout) => return,
        // Cannot be: we hold a sender.
        Err(RecvTimeoutError::Disconnected) => return std::thread::sleep(RESCAN),
    }
    let deadline = Instant::now() + PATIENCE;
    while receiver.recv_timeout(QUIET).is_ok() && Instant::now() < deadline {}
}

/// The watch on the folder that has the path at present.
#[derive(Default)]
struct Watch {
    watched: Option<(RecommendedWatcher, (u64, u64))>,
}

impl Watch {
    /// Watches the folder, anew if another one has taken its path.
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
