//! The steps of a long run: the current step, its number, the elapsed time, and the duration of the step's last run.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::workspace::Workspace;

pub(crate) struct Steps {
    total: usize,
    started: Instant,
    done: Vec<(String, Duration)>,
    memory: PathBuf,
    /// The duration of each step in its last run here.
    known: BTreeMap<String, Duration>,
}

impl Steps {
    pub(crate) fn new(workspace: &Workspace, total: usize) -> Result<Self> {
        let memory = workspace.bench_directory()?.join("steps");
        let known = parse(&fs::read_to_string(&memory).unwrap_or_default());
        Ok(Self { total, started: Instant::now(), done: Vec::new(), memory, known })
    }

    pub(crate) fn run<T>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        let number = self.done.len() + 1;
        let known = self.known.get(name).map(|took| format!(", about {} last time", human(*took)));
        let (total, so_far) = (self.total, human(self.started.elapsed()));
        eprintln!("==> step {number} of {total}: {name} ({so_far} so far{})", known.unwrap_or_default());
        let started = Instant::now();
        let result = step();
        let took = started.elapsed();
        self.done.push((name.to_owned(), took));
        eprintln!("<== {name}: {} after {}", if result.is_ok() { "done" } else { "failed" }, human(took));
        if result.is_ok() {
            self.known.insert(name.to_owned(), took);
            // If this fails, only the next run's estimate is lost.
            let _ = fs::write(&self.memory, print(&self.known));
        }
        result.with_context(|| format!("step failed: {name}"))
    }

    pub(crate) fn print(&self) {
        eprintln!();
        for (name, took) in &self.done {
            eprintln!("{:>12}  {name}", human(*took));
        }
        eprintln!("{:>12}  in all", human(self.started.elapsed()));
    }
}

/// One step a line: its seconds and its name.
fn parse(text: &str) -> BTreeMap<String, Duration> {
    let line = |line: &str| {
        let (seconds, name) = line.split_once(' ')?;
        Some((name.to_owned(), Duration::from_secs(seconds.parse().ok()?)))
    };
    text.lines().filter_map(line).collect()
}

fn print(known: &BTreeMap<String, Duration>) -> String {
    known.iter().map(|(name, took)| format!("{} {name}\n", took.as_secs())).collect()
}

/// A duration such as `12 s` or `3 min 05 s`.
pub(crate) fn human(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_durations_survive_printing_and_parsing() {
        let known = BTreeMap::from([
            ("building".to_owned(), Duration::from_secs(185)),
            ("tests of this host".to_owned(), Duration::from_secs(4)),
        ]);
        assert_eq!(parse(&print(&known)), known);
        assert!(parse("nonsense\nx y\n").is_empty());
    }

    #[test]
    fn durations_print_in_seconds_or_minutes() {
        assert_eq!(human(Duration::from_millis(59_900)), "59 s");
        assert_eq!(human(Duration::from_secs(185)), "3 min 05 s");
    }
}
