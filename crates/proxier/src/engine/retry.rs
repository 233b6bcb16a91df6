use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// The time of the next retry: one second after the first failure, then twice as long each time, up to a minute.
#[derive(Debug, Default)]
pub(super) struct Retry {
    due: Option<Duration>,
    attempts: u32,
}

impl Retry {
    /// Schedules a retry. A scheduled retry keeps its time, or new failures could delay it for ever.
    pub(super) fn failed(&mut self, now: Duration) {
        if self.due.is_none_or(|due| due <= now) {
            self.due = Some(now + (FIRST * 2u32.saturating_pow(self.attempts.min(6))).min(LONGEST));
            self.attempts += 1;
        }
    }

    /// Schedules a retry now, because the cause of the failure is gone.
    pub(super) fn at_once(&mut self, now: Duration) {
        self.due = Some(now);
    }

    pub(super) fn started(&mut self) {
        self.due = None;
    }

    /// A sync made all its changes. A scheduled retry stays, because earlier failures remain.
    pub(super) fn done(&mut self) {
        if self.due.is_none() {
            self.attempts = 0;
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.due.is_some()
    }

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
    fn retry_delay_doubles_up_to_a_minute() {
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
    fn scheduled_retry_keeps_its_time_after_new_failures() {
        let mut retry = Retry::default();
        retry.failed(seconds(0));
        retry.failed(seconds(0));
        assert_eq!(retry.due(), Some(seconds(1)));
        retry.done();
        assert!(retry.is_pending());
    }

    #[test]
    fn retry_delay_starts_over_after_success() {
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
