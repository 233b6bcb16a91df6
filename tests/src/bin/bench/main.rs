//! Benchmarks on a real kernel: `cargo xtask bench`. They print ratios within one run, because absolute times depend on
//! the machine.

mod addresses;
mod against;
mod change;
mod change_while_verifying;
mod clock;
mod delete_all;
mod first_sync;
mod instructions;
mod network;
mod node;
mod packets;
mod replay;
mod report;
mod rest;
mod rivals;
mod rounds;
mod shape;
mod thousand_changes;
mod warm_start;
mod world;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use report::Report;
use shape::Shape;

type Benchmark = fn(Shape, &mut Report) -> Result<()>;

/// All benchmarks that take a shape, in the order in which they run.
const BENCHMARKS: [(&str, Benchmark); 8] = [
    ("first-sync", first_sync::run),
    ("change", change::run),
    ("change-while-verifying", change_while_verifying::run),
    ("rest", rest::run),
    ("warm-start", warm_start::run),
    ("delete-all", delete_all::run),
    ("thousand-changes", thousand_changes::run),
    ("packets", packets::run),
];
/// This benchmark has its own sizes instead of a shape.
const ADDRESSES: &str = "addresses";
/// Runs under valgrind on the host (`cargo xtask bench instructions`).
const INSTRUCTIONS: &str = "instructions";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let outcome = match words.next() {
        Some(word) if word == INSTRUCTIONS => instructions::run(&words.collect::<Vec<_>>()).map(|()| true),
        first => Args::parse(first.into_iter().chain(words)).and_then(|args| run(&args)),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether every ratio reaches its goal.
fn run(args: &Args) -> Result<bool> {
    let mut report = Report::new(args.prints_rows);
    let is_chosen = |name: &str| args.name.as_deref().is_none_or(|chosen| chosen == name);
    let mut failed = Vec::new();
    for shape in &args.shapes {
        if let Some(mode) = &args.against {
            against::run(*shape, mode, &report)?;
            continue;
        }
        for (name, benchmark) in BENCHMARKS.iter().filter(|(name, _)| is_chosen(name)) {
            // A failed benchmark does not stop the others.
            if let Err(error) = benchmark(*shape, &mut report) {
                eprintln!("bench: {name}, {}: {error:#}", shape.name);
                failed.push(*name);
            }
        }
    }
    if args.against.is_none() && is_chosen(ADDRESSES) {
        addresses::run(&mut report)?;
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(report.holds())
}

struct Args {
    /// None: all benchmarks.
    name: Option<String>,
    /// The mode of the kube-proxy to compare with. Then no other benchmark runs.
    against: Option<String>,
    shapes: Vec<Shape>,
    /// Whether to print each row also as JSON, for another program.
    prints_rows: bool,
}

impl Args {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut args = Self { name: None, against: None, shapes: Vec::new(), prints_rows: false };
        let mut rounds = None;
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--shape" => args.shapes.push(value()?.parse()?),
                "--rounds" => rounds = Some(value()?.parse().context("--rounds")?),
                "--against" => args.against = Some(value()?),
                "--rows" => args.prints_rows = true,
                _ => args.name = Some(word),
            }
        }
        if let Some(name) = &args.name {
            let names: Vec<&str> = BENCHMARKS.iter().map(|(name, _)| *name).chain([ADDRESSES]).collect();
            let is_known = names.contains(&name.as_str());
            ensure!(is_known, "there is no benchmark {name:?}; there are: {}, {INSTRUCTIONS}", names.join(", "));
        }
        if args.shapes.is_empty() {
            args.shapes.push(Shape::DEFAULT);
        }
        if let Some(rounds) = rounds {
            args.shapes.iter_mut().for_each(|shape| shape.rounds = rounds);
        }
        Ok(args)
    }
}
