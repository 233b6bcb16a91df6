//! A steady load of requests: the users who must not notice what is done to the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

use crate::client::{get_here, socket_address};
use crate::namespace::Namespace;

/// Requests one after the other, each over a new connection, until stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Report>>>,
}

/// What a load has seen.
#[derive(Debug, Default)]
pub struct Report {
    /// How many answers each pod gave.
    pub answers: BTreeMap<String, usize>,
    /// Every request without an answer: when, and why.
    pub failures: Vec<String>,
    /// How long the slowest answer took.
    pub slowest: Duration,
}

impl Report {
    /// The number of requests that were answered.
    pub fn answered(&self) -> usize {
        self.answers.values().sum()
    }

    /// Fails where a request failed, or where too few were made to say anything.
    pub fn expect_clean(&self, at_least: usize, who: &str) -> Result<()> {
        if !self.failures.is_empty() {
            bail!(
                "{who}: {} of {} requests failed:\n{}",
                self.failures.len(),
                self.failures.len() + self.answered(),
                self.failures.join("\n")
            );
        }
        if self.answered() < at_least {
            bail!(
                "{who}: only {} requests were made, {at_least} are needed to say anything",
                self.answered()
            );
        }
        Ok(())
    }
}

impl Load {
    /// Starts HTTP requests to `to` from inside a namespace, with a pause between them.
    pub fn start(namespace: &Arc<Namespace>, to: &str, pause: Duration) -> Result<Self> {
        let to = socket_address(to)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = namespace.spawn(move || {
            let mut report = Report::default();
            let start = Instant::now();
            while !stopped.load(Ordering::SeqCst) {
                let asked = Instant::now();
                match get_here(to) {
                    Ok(answer) => {
                        *report.answers.entry(answer.name).or_default() += 1;
                        report.slowest = report.slowest.max(asked.elapsed());
                    }
                    Err(failure) => {
                        report.failures.push(format!(
                            "after {:.3?}: {failure} (asked for {:.3?})",
                            start.elapsed(),
                            asked.elapsed()
                        ));
                    }
                }
                thread::sleep(pause);
            }
            report
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends the load and tells what it has seen.
    pub fn stop(mut self) -> Result<Report> {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().ok_or_else(|| anyhow!("the load was stopped before"))?;
        thread.join().map_err(|_| anyhow!("the load's thread panicked"))?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}
