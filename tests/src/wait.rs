//! Waiting for the daemon. No limit here sets a required speed: each limit only ends a hang, and grows on a slower
//! machine.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Give up if the observed state has not changed for this long, on a machine of usual speed. If a machine slows down
/// after its speed was measured, a first sync of hundreds of Services can show nothing for a minute.
const HANG: Duration = Duration::from_secs(300);
/// Give up after this time even if the observed state still changes, such as a growing log.
const RESTLESS: Duration = Duration::from_secs(3600);
/// The limit for a whole scenario.
const SCENARIO: Duration = Duration::from_secs(3 * 3600);
/// How many equal observations count as a hang. A machine that was suspended has made none, and one that has slowed
/// down makes few.
const LOOKS: u32 = 600;
/// The longest pause between two checks.
const PAUSE: Duration = Duration::from_millis(100);

/// How many times slower than usual this machine is, as `cargo xtask` measured at the start of the run.
pub fn slowness() -> u32 {
    static SLOWNESS: OnceLock<u32> = OnceLock::new();
    let measured = || std::env::var("KUBE_IPVS_SLOWNESS").ok().and_then(|text| text.parse().ok());
    *SLOWNESS.get_or_init(|| measured().unwrap_or(1).max(1))
}

/// The limit for a single answer. It only ends a hang.
pub fn patience() -> Duration {
    HANG * slowness()
}

/// The same limit in whole seconds, for programs.
pub fn time_out() -> String {
    patience().as_secs().to_string()
}

pub(crate) fn patience_of_scenario() -> Duration {
    SCENARIO * slowness()
}

/// Repeats `check` until it succeeds. Fails with the last error if that error has stayed the same for a long time, or
/// after an hour. While the error still changes, the check can still succeed.
pub fn eventually<T>(mut check: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let (mut seen, mut since, mut looks) = (String::new(), start, 0);
    let mut pause = Duration::from_millis(2);
    loop {
        let looked = Instant::now();
        let error = match check() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let seen_now = format!("{error:#}");
        if seen_now != seen {
            (seen, since, looks) = (seen_now, looked, 0);
        }
        looks += 1;
        let (total, same) = (start.elapsed(), since.elapsed());
        if looks > LOOKS && same > patience() || total > RESTLESS * slowness() {
            return Err(error.context(anyhow!("not so after {total:.1?}, the same for the last {same:.1?}")));
        }
        // Checking must not starve the daemon: under emulation a process is expensive.
        thread::sleep(pause.max(looked.elapsed().min(PAUSE * 5)));
        pause = (pause * 2).min(PAUSE);
    }
}

/// Repeats `check` for the whole of `time`; it must hold throughout. On a slow machine, checks are rarer.
pub fn throughout(time: Duration, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    loop {
        let looked = Instant::now();
        check().map_err(|error| error.context(anyhow!("held only for {:.1?}", start.elapsed())))?;
        if start.elapsed() >= time {
            return Ok(());
        }
        // Checking must leave the daemon time to do the wrong thing.
        thread::sleep((looked.elapsed() * 2).clamp(Duration::from_millis(50), PAUSE * 5).min(time / 8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eventually_returns_when_the_check_succeeds() -> Result<()> {
        let mut tries = 0;
        let found = eventually(|| {
            tries += 1;
            anyhow::ensure!(tries == 3, "try {tries}");
            Ok("there")
        })?;
        assert_eq!((found, tries), ("there", 3));
        Ok(())
    }
}
