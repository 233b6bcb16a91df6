//! How soon the kernel is read when it reports that another program changed something.

use std::time::Duration;

/// Another program can need several steps to change the kernel. The engine reads the kernel this long after a notice.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// How far apart two reads are at first, and at most.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const MAX_DELAY: Duration = Duration::from_secs(30);
/// After so long without a notice, the next one counts as the first.
const RESET_AFTER: Duration = Duration::from_secs(60);

/// Decides when to read the kernel after a notice: soon, and less and less often while another program goes on.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<Duration>,
    gap: Duration,
}

impl Pace {
    /// Takes a notice, and returns when to read the kernel.
    pub(super) fn notice(&mut self, now: Duration) -> Duration {
        match self.last {
            // The read that is due covers this notice.
            Some(last) if now < last => return last,
            Some(last) if now < last + RESET_AFTER => self.gap = (self.gap * 2).min(MAX_DELAY),
            _ => self.gap = FIRST_DELAY,
        }
        let due = self.last.map_or(Duration::ZERO, |last| last + self.gap).max(now + DEBOUNCE);
        self.last = Some(due);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn notices_within_the_debounce_cause_one_read() {
        let mut pace = Pace::default();
        let due = pace.notice(milliseconds(5_000));
        assert_eq!(due, milliseconds(5_200));
        assert_eq!(pace.notice(milliseconds(5_100)), due);
    }

    #[test]
    fn repeated_notices_double_the_delay_up_to_half_a_minute() {
        let (mut pace, mut now, mut waits) = (Pace::default(), milliseconds(5_000), Vec::new());
        for _ in 0..10 {
            let due = pace.notice(now);
            waits.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(waits, [200, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000, 30_000]);
    }

    #[test]
    fn a_minute_without_notices_resets_the_delay() {
        let mut pace = Pace::default();
        for second in 0..5 {
            pace.notice(milliseconds(second * 10_000));
        }
        let later = milliseconds(200_000);
        assert_eq!(pace.notice(later), later + DEBOUNCE);
        assert_eq!(pace.notice(later + FIRST_DELAY), later + DEBOUNCE + FIRST_DELAY * 2);
    }
}
