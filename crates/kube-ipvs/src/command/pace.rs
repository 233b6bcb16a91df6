use std::time::Duration;

/// Another program may need several steps to change the kernel: kube-ipvs reads it when this has passed.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// How far apart two reads are at first, and at most.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const MAX_DELAY: Duration = Duration::from_secs(30);
/// After so long without a notice, kube-ipvs treats the next one as the first.
const RESET_AFTER: Duration = Duration::from_secs(60);

/// When to read the kernel because it tells that others change what is ours: at once, but where they go on, less and
/// less often.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<Duration>,
    gap: Duration,
}

impl Pace {
    /// A notice has come. When the kernel is to be read.
    pub(super) fn noticed(&mut self, now: Duration) -> Duration {
        match self.last {
            // It is read for that one too.
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
    fn notices_that_come_together_are_one() {
        let mut pace = Pace::default();
        let due = pace.noticed(milliseconds(5_000));
        assert_eq!(due, milliseconds(5_200));
        assert_eq!(pace.noticed(milliseconds(5_100)), due);
    }

    #[test]
    fn a_fight_is_fought_less_and_less_often() {
        let (mut pace, mut now, mut waits) = (Pace::default(), milliseconds(5_000), Vec::new());
        for _ in 0..10 {
            let due = pace.noticed(now);
            waits.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(waits, [200, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000, 30_000]);
    }

    #[test]
    fn calm_starts_over() {
        let mut pace = Pace::default();
        for second in 0..5 {
            pace.noticed(milliseconds(second * 10_000));
        }
        let later = milliseconds(200_000);
        assert_eq!(pace.noticed(later), later + DEBOUNCE);
        assert_eq!(pace.noticed(later + FIRST_DELAY), later + DEBOUNCE + FIRST_DELAY * 2);
    }
}
