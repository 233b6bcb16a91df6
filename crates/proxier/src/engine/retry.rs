use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// When to try again what failed: after one second, then twice as long each time, up to a minute.
#[derive(Debug, Default)]
pub(super) struct Retry {
    due: Option<Duration>,
    attempts: u32,
}

impl Retry {
    /// Something failed. An attempt that is already set stays where it is, or new failures could put it
    /// off for ever.
    pub(super) fn failed(&mut self, now: Duration) {
        if self.due.is_none_or(|due| due <= now) {
            self.due = Some(now + (FIRST * 2u32.saturating_pow(self.attempts.min(6))).min(LONGEST));
            self.attempts += 1;
        }
    }

    /// What failed can be made good now.
    pub(super) fn at_once(&mut self, now: Duration) {
        self.due = Some(now);
    }

    /// The attempt is being made.
    pub(super) fn started(&mut self) {
        self.due = None;
    }

    /// Everything went well; but what failed before is still to be tried.
    pub(super) fn done(&mut self) {
        if self.due.is_none() {
            self.attempts = 0;
        }
    }

    /// Whether something failed and was not made good yet.
    pub(super) fn is_pending(&self) -> bool {
        self.due.is_some()
    }

    /// When the next attempt is due.
    pub(super) fn due(&self) -> Option<Duration> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn later_and_later_up_to_a_minute() {
        let (mut retry, mut now, mut waits) = (Retry::default(), Duration::ZERO, Vec::new());
        for _ in 0..9 {
            retry.started();
            retry.failed(now);
            waits.push((retry.due().unwrap() - now).as_secs());
            now = retry.due().unwrap();
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn new_failures_do_not_put_an_attempt_off() {
        let mut retry = Retry::default();
        retry.failed(seconds(0));
        retry.failed(seconds(0));
        assert_eq!(retry.due(), Some(seconds(1)));
        retry.done();
        assert!(retry.is_pending());
    }

    #[test]
    fn success_starts_over() {
        let mut retry = Retry::default();
        retry.failed(seconds(0));
        retry.started();
        retry.failed(seconds(1));
        retry.started();
        retry.done();
        retry.failed(seconds(10));
        assert_eq!(retry.due(), Some(seconds(11)));
    }
}
