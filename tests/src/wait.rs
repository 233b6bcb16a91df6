//! Waiting for what the daemon does in its own time. No limit here says how fast anything has to be: each only ends a
//! hang, and is longer on a slower machine.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// When a wait is given up: what is seen has been the same for this long, on a machine of usual speed. A first sync of
/// hundreds of Services shows nothing for a minute where the machine became slow after its speed was measured.
const HANG: Duration = Duration::from_secs(300);
/// When a wait is given up although what is seen still changes, such as a log that goes on.
const RESTLESS: Duration = Duration::from_secs(3600);
/// When a whole scenario is given up.
const SCENARIO: Duration = Duration::from_secs(3 * 3600);
/// How often the same must be seen before it counts as a hang. A machine that stood still has not looked, and one
/// that has become slow since it was measured looks slowly.
const LOOKS: u32 = 600;
/// The longest pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// How many times slower than usual this machine is, as `cargo xtask` has measured when the bench started.
pub fn slowness() -> u32 {
    static SLOWNESS: OnceLock<u32> = OnceLock::new();
    let measured = || std::env::var("KUBE_IPVS_SLOWNESS").ok().and_then(|text| text.parse().ok());
    *SLOWNESS.get_or_init(|| measured().unwrap_or(1).max(1))
}

/// How long a single answer is waited for. It only ends a hang: what works never takes so long.
pub fn patience() -> Duration {
    HANG * slowness()
}

/// The same for programs that take whole seconds.
pub fn time_out() -> String {
    patience().as_secs().to_string()
}

/// How long a whole scenario may take. It only ends a hang.
pub(crate) fn patience_of_scenario() -> Duration {
    SCENARIO * slowness()
}

/// Repeats `check` until it succeeds. Fails with the last error once every try of a long time has failed with the same
/// one, or after an hour: while the error still changes, the fact may still come.
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
        // Looking must not take away the time of what is waited for: under emulation a process costs much.
        thread::sleep(pause.max(looked.elapsed().min(PAUSE * 5)));
        pause = (pause * 2).min(PAUSE);
    }
}

/// Repeats `check` for the whole of `time`: what it says must hold throughout. A slow machine looks less often, and a
/// check must hold on it for as long as it takes.
pub fn throughout(time: Duration, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    loop {
        let looked = Instant::now();
        check().map_err(|error| error.context(anyhow!("held only for {:.1?}", start.elapsed())))?;
        if start.elapsed() >= time {
            return Ok(());
        }
        // Here too looking must leave the daemon time to do what it should not.
        thread::sleep((looked.elapsed() * 2).clamp(Duration::from_millis(50), PAUSE * 5).min(time / 8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_the_fact() -> Result<()> {
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
