//! A steady load of requests, for users who must not notice a change in the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::client::{get_here, socket_address};
use crate::namespace::Namespace;
use crate::wait::eventually;

/// Requests in sequence, each over a new connection, until stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    /// How many requests have ended, with or without an answer.
    ended: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Result<Report>>>,
}

/// The outcome of a load.
#[derive(Debug, Default)]
pub struct Report {
    /// Answers by pod.
    pub answers: BTreeMap<String, usize>,
    /// Every request without an answer: its time and its failure.
    pub failures: Vec<String>,
    /// The time of the slowest answer.
    pub slowest: Duration,
}

impl Report {
    /// The number of requests that were answered.
    pub fn answered(&self) -> usize {
        self.answers.values().sum()
    }
}

impl Load {
    /// Starts HTTP requests to `to` from inside a namespace, with a pause between them.
    pub fn start(namespace: &Arc<Namespace>, to: &str, pause: Duration) -> Result<Self> {
        let to = socket_address(to)?;
        Self::of(namespace, pause, move |_| match get_here(to) {
            Ok(answer) => Ok(answer.name),
            Err(failure) => Err(anyhow!("{failure}")),
        })
    }

    /// Starts requests of any kind from inside a namespace, with a pause between them. `ask` gets the number of
    /// requests so far and returns the name that answered.
    pub fn of(
        namespace: &Arc<Namespace>,
        pause: Duration,
        mut ask: impl FnMut(usize) -> Result<String> + Send + 'static,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::new(AtomicUsize::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&ended));
        let thread = namespace.spawn(move || {
            let mut report = Report::default();
            let start = Instant::now();
            while !stopped.load(Ordering::SeqCst) {
                let asked = Instant::now();
                match ask(counted.load(Ordering::SeqCst)) {
                    Ok(name) => {
                        *report.answers.entry(name).or_default() += 1;
                        report.slowest = report.slowest.max(asked.elapsed());
                    }
                    Err(failure) => {
                        report.failures.push(format!(
                            "after {:.3?}: {failure:#} (asked for {:.3?})",
                            start.elapsed(),
                            asked.elapsed()
                        ));
                    }
                }
                counted.fetch_add(1, Ordering::SeqCst);
                // On a slow machine the daemon needs CPU time between requests.
                thread::sleep(pause.max(asked.elapsed() * 2));
            }
            report
        })?;
        Ok(Self { stop, ended, thread: Some(thread) })
    }

    /// The number of requests that have ended so far.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }

    /// Waits until `count` requests that began after this call have ended.
    pub fn go_on(&self, count: usize) -> Result<()> {
        // The first of them can have begun before this call.
        self.await_ended(self.ended() + 1 + count)
    }

    fn await_ended(&self, count: usize) -> Result<()> {
        eventually(|| {
            let ended = self.ended();
            ensure!(ended >= count, "{ended} requests of {count} have ended");
            Ok(())
        })
    }

    /// Stops the load after `at_least` requests and after one that began after this call. Fails if a request failed.
    pub fn stop(mut self, at_least: usize, who: &str) -> Result<Report> {
        self.go_on(1).and_then(|()| self.await_ended(at_least)).with_context(|| format!("{who} asks"))?;
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().ok_or_else(|| anyhow!("the load was stopped before"))?;
        let report = thread.join().map_err(|_| anyhow!("the load's thread panicked"))??;
        let failed = report.failures.len();
        let all = failed + report.answered();
        ensure!(failed == 0, "{who}: {failed} of {all} requests failed:\n{}", report.failures.join("\n"));
        Ok(report)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}
