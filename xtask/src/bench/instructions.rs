//! `cargo xtask bench instructions`: counts the engine's instructions under valgrind, on this host.
//!
//! Unlike times, the number does not depend on the load of the machine. The build is that of the tests, so that
//! `cargo xtask ci` needs no other.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xshell::{Shell, cmd};

use super::Rows;
use crate::preflight;
use crate::workspace::{Executable, Sort, Workspace};

pub(super) const NAME: &str = "instructions";
const RECORD: &str = "docs/benchmarks-instructions.txt";
/// The names of the cases, and the arguments of the benchmark.
const CASES: [(&str, [&str; 2]); 3] = [
    ("one endpoint changes among 10 Services", ["change", "10"]),
    ("one endpoint changes among 10,000 Services", ["change", "10000"]),
    ("first sync of 1,000 Services with 10 endpoints each", ["first-sync", "1000"]),
];
/// The largest ratio to the recorded number.
const GOAL: f64 = 1.1;

/// Fails if a number has grown by more than a tenth.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let holds = run(workspace, false, &mut Rows::new(None))?;
    ensure!(holds, "the engine needs more instructions: reduce them, or run `cargo xtask bench {NAME} --record`");
    Ok(())
}

/// Counts, and compares with the recorded numbers or records new ones. Returns whether none has grown by more than a
/// tenth. The numbers of another compiler prove nothing.
pub(super) fn run(workspace: &Workspace, records: bool, rows: &mut Rows) -> Result<bool> {
    preflight::install(&[("valgrind", "valgrind")])?;
    let programs = workspace.build(&["test", "--workspace", "--no-run"])?;
    let is_benchmark = |one: &Executable| one.sort == Sort::Program && one.target == "bench";
    let binary = programs.into_iter().find(is_benchmark).context("no binary is named bench")?;
    let counted: Vec<u64> =
        CASES.iter().map(|(_, case)| count(workspace, &binary.path, case)).collect::<Result<_>>()?;
    let file = workspace.root.join(RECORD);
    let compiler = compiler()?;
    if records {
        fs::write(&file, print(&compiler, &counted)?).with_context(|| format!("writing {RECORD}"))?;
    }
    let text = fs::read_to_string(&file).with_context(|| {
        format!("{RECORD} has no numbers to compare with: `cargo xtask bench {NAME} --record` writes them")
    })?;
    println!("\n{NAME}, compared with {RECORD} ({})", text.lines().next().unwrap_or_default().trim_start_matches("# "));
    let is_of_this_compiler = text.contains(&compiler);
    let mut all_hold = true;
    for ((name, _), count) in CASES.iter().zip(counted) {
        let recorded = recorded(&text, name).with_context(|| format!("{RECORD} has no number for: {name}"))?;
        let ratio = count as f64 / recorded as f64;
        let holds = ratio <= GOAL || !is_of_this_compiler;
        all_hold &= holds;
        let verdict = match (is_of_this_compiler, holds) {
            (false, _) => "another compiler",
            (true, true) => "holds",
            (true, false) => "DOES NOT HOLD",
        };
        println!("  {name:<58} {count:>10}  recorded {recorded:>10}  ratio {ratio:.3}  goal {GOAL}: {verdict}");
        rows.push(json!({
            "name": format!("{NAME}: {name}"),
            "shape": null,
            "unit": "instructions",
            "median": count,
            "min": count,
            "max": count,
            "samples": [count],
            "ratio": ratio,
            "goal": GOAL,
            "holds": holds,
        }))?;
    }
    Ok(all_hold)
}

/// The instructions of one sync.
fn count(workspace: &Workspace, binary: &Path, case: &[&str; 2]) -> Result<u64> {
    let profile = workspace.bench_directory()?.join(format!("callgrind-{}", case.join("-")));
    let output = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", "--toggle-collect=*counted_sync*"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(binary)
        .arg(NAME)
        .args(case)
        .output()
        .context("starting valgrind")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind {}: {}\n{errors}", case.join(" "), output.status);
    let syncs: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().context("the number of syncs")?;
    let text = fs::read_to_string(&profile).with_context(|| format!("reading {}", profile.display()))?;
    let all = summary(&text).with_context(|| format!("{} has no summary", profile.display()))?;
    ensure!(all > 0, "valgrind did not find the function that it is to count");
    Ok(all / syncs)
}

fn summary(profile: &str) -> Option<u64> {
    profile.lines().find_map(|line| line.strip_prefix("summary:")?.trim().parse().ok())
}

fn compiler() -> Result<String> {
    let sh = Shell::new()?;
    Ok(cmd!(sh, "rustc --version").quiet().read()?)
}

fn print(compiler: &str, counted: &[u64]) -> Result<String> {
    let mut text = format!("# recorded with {compiler} by: cargo xtask bench {NAME} --record\n");
    for ((name, _), count) in CASES.iter().zip(counted) {
        writeln!(text, "{name}: {count}")?;
    }
    Ok(text)
}

fn recorded(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_numbers_survive_printing_and_parsing() {
        let text = print("rustc 1.91.0", &[7, 8, 9]).unwrap();
        assert_eq!(CASES.map(|(name, _)| recorded(&text, name)), [Some(7), Some(8), Some(9)]);
        assert_eq!(recorded(&text, "another case"), None);
    }

    #[test]
    fn number_of_instructions_is_read_from_a_profile() {
        assert_eq!(summary("version: 1\nevents: Ir\nsummary: 4711\n\ntotals: 4711\n"), Some(4711));
        assert_eq!(summary("events: Ir\n"), None);
    }
}
