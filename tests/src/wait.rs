//! Waiting for what the daemon does in its own time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How long to wait for a change of a manifest to be in the kernel before calling it lost.
pub const SOON: Duration = Duration::from_secs(60);

/// Repeats `check` until it succeeds; after `limit` fails with what the last try said.
pub fn eventually<T>(limit: Duration, mut check: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() >= limit => {
                return Err(error.context(anyhow!("still not so after {:.1?}", start.elapsed())));
            }
            Err(_) => thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Repeats `check` for the whole of `time`: what it says must hold throughout.
pub fn throughout(time: Duration, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < time {
        check().map_err(|error| error.context(anyhow!("held only for {:.1?}", start.elapsed())))?;
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
