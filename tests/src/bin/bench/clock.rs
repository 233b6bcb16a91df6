//! Times, and the wait for a quiet machine.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) wall: Duration,
    /// The processor time of the calling thread, in the program and in the kernel.
    pub(crate) processor: Duration,
}

pub(crate) fn measure<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Spent)> {
    let (start, processor) = (Instant::now(), processor_time());
    let outcome = work()?;
    Ok((outcome, Spent { wall: start.elapsed(), processor: processor_time() - processor }))
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Waits until the processors are idle, because kernel threads free the objects of the last measurement.
pub(crate) fn settle() -> Result<()> {
    /// The kernel counts in ticks of 10 ms.
    const LOOK: Duration = Duration::from_millis(200);
    const BUSY_TICKS: u64 = 2;
    /// Ends only a hang.
    const TIMEOUT: Duration = Duration::from_secs(300);
    let start = Instant::now();
    while start.elapsed() < TIMEOUT {
        let before = busy_ticks()?;
        sleep(LOOK);
        if busy_ticks()? - before <= BUSY_TICKS {
            return Ok(());
        }
    }
    eprintln!("bench: the machine stays busy: its figures are too high");
    Ok(())
}

/// The ticks in which a processor was busy, summed over all processors.
fn busy_ticks() -> Result<u64> {
    /// The numbers after the name are user, nice, system, idle, iowait, irq, softirq.
    const IDLE: [usize; 2] = [3, 4];
    const COUNT: usize = 7;
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let ticks = line.split_whitespace().skip(1).take(COUNT).enumerate();
    let busy = ticks.filter(|(number, _)| !IDLE.contains(number));
    busy.map(|(_, ticks)| ticks.parse::<u64>().context("/proc/stat")).sum()
}
