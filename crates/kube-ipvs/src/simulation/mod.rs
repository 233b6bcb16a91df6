//! A seeded simulation of the daemon on a virtual clock, without sockets and threads. It tries orders of events that
//! hand-written tests lack.
//!
//! | part | role |
//! |---|---|
//! | `api`, `cluster`, `objects` | the model API server, and the pods and Services behind its objects |
//! | `daemon` | kube-ipvs's own cache, inbox, engine, schedule and health |
//! | `proxier::fake` | the model kernel, with faults |
//! | `others` | other programs that change the kernel |
//! | `known`, `clients` | the reference model: which connections the daemon may end |
//! | `rules`, `settle` | the invariants of docs/architecture.md, after each change and at rest |
//! | `step`, `generate`, `shrink` | runs as data: generated from a seed, printed as text, shortened |
//!
//! Each file in `cases` is a run that once failed. `cargo xtask simulate` looks for new ones.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod api;
mod clients;
mod cluster;
mod daemon;
mod generate;
mod known;
mod objects;
mod others;
mod rules;
mod settle;
mod shrink;
mod step;
mod world;

use std::{
    env, fmt,
    fs::{self, read_dir},
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use self::{step::Run, world::Simulation};
use crate::{
    config::Configuration,
    recording::{self, anonymous, replay},
    serve::Status,
};

/// The number of steps of a random run.
const LENGTH: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Violation {
    rule: &'static str,
    text: String,
}

impl Violation {
    fn new(rule: &'static str, text: String) -> Self {
        Self { rule, text }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.text)
    }
}

/// Counts that show how much a run has exercised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Statistics {
    steps: usize,
    syncs: usize,
    changes: usize,
    kills: usize,
    settled: usize,
    opened: usize,
    ended: usize,
}

impl Statistics {
    fn add(&mut self, other: Self) {
        let Self { steps, syncs, changes, kills, settled, opened, ended } = self;
        *steps += other.steps;
        *syncs += other.syncs;
        *changes += other.changes;
        *kills += other.kills;
        *settled += other.settled;
        *opened += other.opened;
        *ended += other.ended;
    }
}

fn status() -> Arc<Status> {
    Arc::new(Status::new(&Configuration::default()))
}

/// Stops at the first broken rule, and returns it with the number of completed steps. A panic counts as a broken rule.
fn simulate(run: &Run, status: &Arc<Status>) -> Result<Statistics, (Violation, usize)> {
    let mut done = 0;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut simulation = Simulation::new(&run.world, status, None);
        for step in &run.steps {
            simulation.step(step)?;
            done += 1;
        }
        let Simulation { statistics, clients, .. } = simulation;
        Ok(Statistics { opened: clients.opened, ended: clients.ended, ..statistics })
    }));
    let outcome = outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Violation::new("panic", text.unwrap_or_default()))
    });
    outcome.map_err(|violation| (violation, done))
}

/// Shortens a failed run, and prints it as a case.
fn explain(run: &Run, violation: &Violation, status: &Arc<Status>) -> String {
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let still = |run: &Run| simulate(run, status).err().filter(|(found, _)| found.rule == violation.rule);
    let shortest = shrink::shrink(run, |run| still(run).is_some());
    let (text, done) = still(&shortest).map_or_else(Default::default, |(found, done)| (found.to_string(), done));
    set_hook(hook);
    format!("{text}\nat step {} of this case:\n\n{shortest}", done + 1)
}

/// `KUBE_IPVS_SIMULATE_CASE` names a case to run alone. If that one fails, the test shortens it.
#[test]
fn committed_cases_break_no_rule() {
    let status = status();
    if let Some(path) = env::var_os("KUBE_IPVS_SIMULATE_CASE") {
        let run = Run::parse(&fs::read_to_string(path).unwrap()).unwrap();
        match simulate(&run, &status) {
            Ok(statistics) => return println!("it holds: {statistics:?}"),
            Err((violation, _)) => panic!("{}", explain(&run, &violation, &status)),
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/simulation/cases");
    for entry in read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let run = Run::parse(&fs::read_to_string(&path).unwrap()).unwrap();
        if let Err((violation, step)) = simulate(&run, &status) {
            panic!("{} at step {}: {violation}", path.display(), step + 1);
        }
    }
}

/// `KUBE_IPVS_SIMULATE_STEPS` sets the number of steps, and `KUBE_IPVS_SIMULATE_SEED` the first seed.
#[test]
fn random_steps_break_no_rule() {
    let number = |name: &str, default: u64| env::var(name).map_or(default, |text| text.parse().unwrap());
    let (steps, seed) = (number("KUBE_IPVS_SIMULATE_STEPS", 10_000), number("KUBE_IPVS_SIMULATE_SEED", 0));
    let status = status();
    let (next, has_failed, start) = (AtomicU64::new(seed), AtomicBool::new(false), Instant::now());
    let (all, printed) = (Mutex::new(Statistics::default()), Mutex::new(Instant::now()));
    let work = || {
        while (all.lock().steps as u64) < steps && !has_failed.load(Relaxed) {
            let seed = next.fetch_add(1, Relaxed);
            let run = generate::run(seed, LENGTH);
            match simulate(&run, &status) {
                Ok(statistics) => all.lock().add(statistics),
                Err((violation, _)) if !has_failed.swap(true, Relaxed) => {
                    println!("seed {seed} fails: {violation}\nlooking for the shortest run that fails");
                    println!("{}", explain(&run, &violation, &status));
                }
                Err(_) => {}
            }
            let mut printed = printed.lock();
            if printed.elapsed() >= Duration::from_secs(5) {
                *printed = Instant::now();
                println!("seed {seed}, {:.0?}: {:?}", start.elapsed(), all.lock());
            }
        }
    };
    thread::scope(|scope| {
        (0..thread::available_parallelism().map_or(1, usize::from)).for_each(|_| drop(scope.spawn(work)));
    });
    assert!(!has_failed.load(Relaxed), "a run fails: it is above. Commit its case before you correct the code");
    let (all, time) = (*all.lock(), start.elapsed());
    // Runs without clients and changes would prove nothing.
    let Statistics { changes, kills, opened, ended, .. } = all;
    assert!(steps < 10_000 || changes > 1_000 && kills > 10 && opened > 200 && ended > 50, "{all:?}");
    println!("all hold: {all:?} in {time:.0?}, {:.0} steps a second", all.steps as f64 / time.as_secs_f64());
}

#[test]
fn seed_reproduces_its_run_and_printed_case_parses_back() {
    let status = status();
    for seed in [7, 8] {
        let run = generate::run(seed, LENGTH);
        assert_eq!(Run::parse(&run.to_string()).unwrap(), run);
        assert_eq!(simulate(&run, &status), simulate(&generate::run(seed, LENGTH), &status));
    }
}

/// Every daemon of a run, also one that ends in the middle of a plan, replays to its end.
#[test]
fn recordings_of_simulated_daemons_replay_exactly() {
    let (status, mut plans) = (status(), 0);
    for seed in 0..6 {
        let run = generate::run(seed, LENGTH);
        let mut simulation = Simulation::new(&run.world, &status, Some(Vec::new()));
        run.steps.iter().for_each(|step| simulation.step(step).unwrap());
        for memory in simulation.recordings.unwrap() {
            let text = memory.text();
            for text in [anonymous(&text).unwrap(), text] {
                let replay = replay(&recording::read(&text).unwrap()).unwrap();
                plans += replay.plans.len();
                assert!(replay.difference.is_none(), "seed {seed}: {}", replay.difference.unwrap());
            }
        }
    }
    assert!(plans > 150, "{plans}");
}
