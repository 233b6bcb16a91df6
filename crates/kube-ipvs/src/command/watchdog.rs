use std::{
    io,
    sync::{Arc, mpsc::channel},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::notify::{self, State};

/// How long the sync loop can be busy with one sync. The first sync of the largest clusters takes a minute. A sync of
/// ten minutes waits for a lock that the kernel will not release.
pub(super) const HANG_TIMEOUT: Duration = Duration::from_secs(600);

/// When the sync loop began its current work. None while it waits for work.
#[derive(Clone, Default)]
pub(super) struct Pulse(Arc<Mutex<Option<Instant>>>);

impl Pulse {
    pub(super) fn works(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    pub(super) fn waits(&self) {
        *self.0.lock() = None;
    }

    fn has_stopped(&self, limit: Duration) -> bool {
        self.0.lock().is_some_and(|since| since.elapsed() >= limit)
    }
}

/// Watches the thread with the pulse. Calls `end` when one piece of its work takes longer than `limit`.
pub(super) fn watch(limit: Duration, end: impl FnOnce() + Send + 'static) -> io::Result<Pulse> {
    let pulse = Pulse::default();
    let watched = pulse.clone();
    // systemd recommends half of its timeout. A third leaves room for a slow machine.
    let interval = notify::watchdog_timeout().map_or(limit / 60, |timeout| (timeout / 3).min(limit / 60));
    thread::Builder::new().name("watchdog".into()).spawn(move || {
        while !watched.has_stopped(limit) {
            notify::send(State::Alive);
            thread::sleep(interval);
        }
        end();
    })?;
    Ok(pulse)
}

/// Ends the process. A new one can succeed, and the kubelet or another supervisor sees that this one ended.
pub(super) fn end_process() {
    let (said, is_said) = channel();
    // If no program reads the log, the log itself can hang. It must not delay the end.
    let log = move || {
        tracing::error!(
            "a sync has hung in the kernel for more than {} minutes: kube-ipvs exits, to restart. The kernel's state \
             keeps serving. If a sync hangs again, read the kernel's log and `cat /proc/PID/stack` of the hung process",
            HANG_TIMEOUT.as_secs() / 60
        );
        let _ = said.send(());
    };
    let _ = thread::Builder::new().spawn(log);
    let _ = is_said.recv_timeout(EXIT_DELAY);
    std::process::exit(2);
}

/// How long the log can take to write the reason of the end.
const EXIT_DELAY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::sync::mpsc::RecvTimeoutError;

    use super::*;

    #[test]
    fn hanging_thread_is_noticed_and_waiting_thread_is_not() {
        // The thread waits three times the limit, however slow the machine is.
        let limit = Duration::from_millis(60);
        let (ended, end) = channel();
        let pulse = watch(limit, move || {
            let _ = ended.send(());
        })
        .unwrap();
        assert_eq!(end.recv_timeout(limit * 3), Err(RecvTimeoutError::Timeout), "it waits");
        pulse.works();
        // Without a timeout: the end only has to come.
        end.recv().unwrap();
    }

    #[test]
    fn pulse_stops_when_one_piece_of_work_exceeds_the_limit() {
        let pulse = Pulse::default();
        pulse.works();
        assert!(pulse.has_stopped(Duration::ZERO));
        assert!(!pulse.has_stopped(Duration::from_secs(3600)));
        thread::sleep(Duration::from_millis(20));
        assert!(pulse.has_stopped(Duration::from_millis(20)));
        pulse.waits();
        assert!(!pulse.has_stopped(Duration::ZERO));
    }
}
