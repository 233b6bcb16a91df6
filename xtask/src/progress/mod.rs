//! Progress of a test run: the count, the elapsed and the remaining time, failures with their reasons, and a table at
//! the end. It reads the output of test executables and the marks of scenarios (tests/src/mark.rs).

mod counts;
mod lines;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::steps::human;
use crate::testbench::Output;
pub(crate) use counts::Counts;
use lines::{Event, Lines};

/// After this long without a result, the names of the running tests are printed.
const QUIET: Duration = Duration::from_secs(30);
const SLOWEST: usize = 10;

struct Failure {
    name: String,
    /// The expected and the actual value, if the test reports them.
    why: String,
    /// The command that runs only this test.
    again: String,
}

pub(crate) struct Progress {
    stdout: Lines,
    stderr: Lines,
    log: File,
    log_path: PathBuf,
    counts: Counts,
    /// The results since an executable's last closing line, which a machine that hung did not print.
    uncounted: Counts,
    hangs: Vec<String>,
    failures: Vec<Failure>,
    took: Vec<(Duration, String)>,
    part: Part,
}

struct Part {
    /// The command that runs one of them, without the test's name.
    again: &'static str,
    total: usize,
    /// The names of the tests with a result. Two executables can have a test of the same name.
    done: Vec<String>,
    started: Instant,
    heard: Instant,
    begun: BTreeMap<String, Instant>,
    why: BTreeMap<String, String>,
}

impl Part {
    fn new(again: &'static str, total: usize) -> Self {
        let (begun, why) = (BTreeMap::new(), BTreeMap::new());
        let now = Instant::now();
        Self { again, total, done: Vec::new(), started: now, heard: now, begun, why }
    }

    /// The elapsed time, and an estimate of the remaining time from the pace so far.
    fn time(&self) -> String {
        let so_far = self.started.elapsed();
        let left = self.total.saturating_sub(self.done.len());
        match u32::try_from(self.done.len()) {
            Ok(done) if done > 0 && left > 0 => {
                let rest = so_far * u32::try_from(left).unwrap_or(u32::MAX) / done;
                format!("{} so far, about {} left", human(so_far), human(rest))
            }
            _ => format!("{} so far", human(so_far)),
        }
    }
}

impl Progress {
    pub(crate) fn new(log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        Ok(Self {
            stdout: Lines::default(),
            stderr: Lines::default(),
            log: file,
            log_path: log.to_owned(),
            counts: Counts::default(),
            uncounted: Counts::default(),
            hangs: Vec::new(),
            failures: Vec::new(),
            took: Vec::new(),
            part: Part::new("", 0),
        })
    }

    /// `total` tests follow. The command `again` with a name runs one of them.
    pub(crate) fn begin(&mut self, again: &'static str, total: usize) {
        self.part = Part::new(again, total);
    }

    /// The machine of the running tests hung. Returns which of `names` have no result yet.
    pub(crate) fn machine_hung(&mut self, why: &str, names: Vec<String>) -> Vec<String> {
        self.counts += mem::take(&mut self.uncounted);
        (self.stdout, self.stderr) = (Lines::default(), Lines::default());
        self.part.begun.clear();
        let mut done = self.part.done.clone();
        let has_result =
            |name: &String| done.iter().position(|one| one == name).map(|at| done.swap_remove(at)).is_some();
        let (_, rest): (Vec<_>, Vec<_>) = names.into_iter().partition(has_result);
        let first = why.lines().next().unwrap_or_default();
        self.hangs.push(format!("A machine hung: {first}. {} tests ran on another one.", rest.len()));
        rest
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    fn event(&mut self, event: Event, out: &mut dyn Write) -> Result<()> {
        self.part.heard = Instant::now();
        match event {
            Event::Begun(name) => {
                self.part.begun.insert(name, Instant::now());
            }
            Event::Why(name, why) => {
                // The streams can overtake each other. Then only the table at the end has the reason.
                if let Some(failure) = self.failures.iter_mut().find(|failure| failure.name == name) {
                    failure.why.clone_from(&why);
                }
                self.part.why.insert(name, why);
            }
            Event::Printed(name, text) => {
                let silent = |failure: &&mut Failure| failure.name == name && failure.why.is_empty();
                if let Some(failure) = self.failures.iter_mut().find(silent) {
                    failure.why = text;
                }
            }
            Event::Ended(name, result) => self.ended(&name, &result, out)?,
            Event::Counted(counts) => {
                self.uncounted = Counts::default();
                self.counts += counts;
            }
            // Each executable prints these lines, even if none of its tests was selected.
            Event::Frame => {}
            Event::Other(line) => out.write_all(&line)?,
        }
        Ok(())
    }

    fn ended(&mut self, name: &str, result: &str, out: &mut dyn Write) -> Result<()> {
        self.part.done.push(name.to_owned());
        self.uncounted += Counts::of(result);
        let done = self.part.done.len();
        let total = self.part.total.max(done);
        let took = self.part.begun.remove(name).map(|begun| begun.elapsed());
        let seconds = took.map(|took| format!("{:.1} s", took.as_secs_f32())).unwrap_or_default();
        writeln!(out, "{done:>4}/{total}  {result:<6} {seconds:>8}  {name}  ({})", self.part.time())?;
        self.took.extend(took.map(|took| (took, name.to_owned())));
        if result == "FAILED" {
            let why = self.part.why.remove(name).unwrap_or_default();
            let again = format!("{} {name}", self.part.again);
            let failure = Failure { name: name.to_owned(), why, again };
            writeln!(out, "{}", failure.describe(&self.log_path))?;
            self.failures.push(failure);
        }
        Ok(())
    }

    pub(crate) fn print_table(&mut self) {
        for failure in &self.failures {
            println!("\n{}", failure.describe(&self.log_path));
        }
        self.took.sort_unstable();
        let slowest: Vec<_> = self.took.iter().rev().take(SLOWEST).collect();
        if !slowest.is_empty() {
            println!("\nThe slowest:");
        }
        for (took, name) in slowest {
            println!("{:>8.1} s  {name}", took.as_secs_f32());
        }
        for hang in &self.hangs {
            println!("\n{hang}");
        }
        println!("\n{}\n", self.counts);
    }
}

impl Failure {
    fn describe(&self, log: &Path) -> String {
        let mut text = format!("FAILED: {}\n", self.name);
        for line in self.why.lines() {
            text += &format!("    {line}\n");
        }
        text + &format!("  log: {}\n  run it alone: {}", log.display(), self.again)
    }
}

impl Output for Progress {
    fn stdout(&mut self, bytes: &[u8]) -> Result<()> {
        self.log.write_all(bytes)?;
        for event in self.stdout.events(bytes) {
            self.event(event, &mut io::stdout())?;
        }
        Ok(io::stdout().flush()?)
    }

    fn stderr(&mut self, bytes: &[u8]) -> Result<()> {
        self.log.write_all(bytes)?;
        for event in self.stderr.events(bytes) {
            self.event(event, &mut io::stderr())?;
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<()> {
        if self.part.heard.elapsed() < QUIET || self.part.begun.is_empty() {
            return Ok(());
        }
        self.part.heard = Instant::now();
        let running: Vec<String> =
            self.part.begun.iter().map(|(name, begun)| format!("{name} ({})", human(begun.elapsed()))).collect();
        println!("     running: {}  ({})", running.join(", "), self.part.time());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_without_a_result_run_again_after_a_hang_and_all_results_count() {
        let log = std::env::temp_dir().join(format!("progress-{}", std::process::id()));
        let mut progress = Progress::new(&log).unwrap();
        progress.begin("again", 4);
        let print = |progress: &mut Progress, text: &str| {
            for event in progress.stdout.events(text.as_bytes()) {
                progress.event(event, &mut io::sink()).unwrap();
            }
        };
        print(&mut progress, "test a ... ok\ntest twice ... ok\ntest b ... ");
        let names = ["a", "b", "twice", "twice"].map(str::to_owned).to_vec();
        assert_eq!(progress.machine_hung("silence\nstacks", names), ["b", "twice"]);
        assert_eq!(progress.counts(), Counts { passed: 2, failed: 0, ignored: 0 });
        print(&mut progress, "\ntest b ... FAILED\ntest twice ... ok\n");
        print(&mut progress, "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out\n");
        assert_eq!(progress.counts(), Counts { passed: 3, failed: 1, ignored: 0 });
        std::fs::remove_file(log).unwrap();
    }
}
