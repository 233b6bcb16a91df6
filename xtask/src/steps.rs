//! Steps with a name and a duration, so that a long run says what it does and where the time went.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(String, Duration)>,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn run<T>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("==> {name}");
        let started = Instant::now();
        let result = step();
        let took = started.elapsed();
        self.done.push((name.to_owned(), took));
        eprintln!(
            "<== {name}: {} after {:.1} s",
            if result.is_ok() { "done" } else { "failed" },
            took.as_secs_f32()
        );
        result.with_context(|| format!("step failed: {name}"))
    }

    /// Where the time went.
    pub(crate) fn print(&self) {
        eprintln!();
        for (name, took) in &self.done {
            eprintln!("{:>8.1} s  {name}", took.as_secs_f32());
        }
    }
}
