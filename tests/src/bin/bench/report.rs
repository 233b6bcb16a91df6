//! Statistics, the printed table, and the rows for other programs.

use std::{fs, thread::available_parallelism};

use serde_json::{Value, json};

use crate::shape::Shape;

/// A line of standard output that starts with this character is a row of the report as JSON.
const ROW: char = '\u{1}';

pub(crate) struct Report {
    machine: String,
    prints_rows: bool,
    holds: bool,
}

pub(crate) struct Table<'a> {
    report: &'a mut Report,
    benchmark: &'static str,
    shape: String,
}

impl Report {
    pub(crate) fn new(prints_rows: bool) -> Self {
        let machine = machine();
        println!("{machine}");
        Self { machine, prints_rows, holds: true }
    }

    /// Whether every ratio reaches its goal.
    pub(crate) fn holds(&self) -> bool {
        self.holds
    }

    /// Starts the table of a benchmark. `shape` is the short name of the shape, and `heading` describes it.
    pub(crate) fn table(&mut self, benchmark: &'static str, shape: &str, heading: &str) -> Table<'_> {
        println!("\n{benchmark}, {heading}");
        println!("  {:<58} {:>10} {:>10} {:>10} {:>8}", "", "median", "least", "most", "samples");
        Table { report: self, benchmark, shape: shape.to_owned() }
    }

    /// Starts the table of a comparison, with the median, the least and the most of each figure.
    pub(crate) fn comparison<'a>(&'a self, shape: Shape, heading: &str, programs: [&'a str; 2]) -> Comparison<'a> {
        println!("\nagainst, {heading}");
        println!("  {:<54} {:>26} {:>28} {:>8}", "", programs[0], programs[1], "ratio");
        Comparison { report: self, programs, shape }
    }

    fn print_row(&self, row: &Value) {
        if self.prints_rows {
            println!("{ROW}{row}");
        }
    }
}

impl Table<'_> {
    pub(crate) fn figure(&mut self, name: &str, unit: &str, samples: &[f64]) {
        self.row(name, unit, samples, None);
    }

    /// Adds the ratio of two figures, round by round.
    pub(crate) fn ratio(&mut self, name: &str, ours: &[f64], theirs: &[f64], goal: Option<f64>) {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        self.row(name, "ratio", &ratios, goal);
    }

    fn row(&mut self, name: &str, unit: &str, samples: &[f64], goal: Option<f64>) {
        let (median, least, most) = (quantile(samples, 0.5), quantile(samples, 0.0), quantile(samples, 1.0));
        let holds = goal.map(|goal| median <= goal);
        let verdict = match (goal, holds) {
            (Some(goal), Some(true)) => format!("  goal {goal:.3}: holds"),
            (Some(goal), _) => format!("  goal {goal:.3}: DOES NOT HOLD"),
            (None, _) => String::new(),
        };
        let [shown, low, high] = [median, least, most].map(number);
        let count = samples.len();
        println!("  {:<58} {shown:>10} {low:>10} {high:>10} {count:>8}{verdict}", format!("{name}, {unit}"));
        self.report.holds &= holds.unwrap_or(true);
        self.report.print_row(&json!({
            "name": format!("{}: {name}", self.benchmark),
            "shape": self.shape,
            "machine": self.report.machine,
            "unit": unit,
            "median": median,
            "min": least,
            "max": most,
            "samples": samples,
            "ratio": (unit == "ratio").then_some(median),
            "goal": goal,
            "holds": holds,
        }));
    }
}

/// A table with the figures of two programs beside each other.
pub(crate) struct Comparison<'a> {
    report: &'a Report,
    programs: [&'a str; 2],
    shape: Shape,
}

impl Comparison<'_> {
    /// Adds a figure of both programs, and the ratio of the medians.
    pub(crate) fn figure(&self, name: &str, unit: &str, samples: [&[f64]; 2]) {
        let [ours, theirs] = samples.map(|samples| quantile(samples, 0.5));
        let [shown, other] = samples.map(|samples| {
            let [median, least, most] = [0.5, 0.0, 1.0].map(|part| number(quantile(samples, part)));
            format!("{median} ({least} to {most})")
        });
        let ratio = ours / theirs;
        println!("  {:<54} {shown:>26} {other:>28} {:>8}", format!("{name}, {unit}"), number(ratio));
        for (program, samples) in self.programs.iter().zip(samples) {
            self.report.print_row(&json!({
                "name": format!("against: {name}"),
                "program": program,
                "shape": self.shape.name,
                "services": self.shape.services,
                "endpoints": self.shape.endpoints,
                "machine": self.report.machine,
                "unit": unit,
                "median": quantile(samples, 0.5),
                "min": quantile(samples, 0.0),
                "max": quantile(samples, 1.0),
                "samples": samples,
                "ratio": ratio,
            }));
        }
    }
}

/// The kernel and the processors, such as `Linux 6.1.0, 2 processors: QEMU TCG CPU version 2.5+`.
fn machine() -> String {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let processors = available_parallelism().map_or(1, usize::from);
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown", |(_, model)| model);
    format!("Linux {release}, {processors} processors: {model}")
}

/// The nearest-rank quantile, which is always a sample. 0.5 is the median, or the lower of two middle samples.
pub(crate) fn quantile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

fn number(value: f64) -> String {
    let digits = if value == 0.0 { 0.0 } else { value.abs().log10().floor() };
    let decimals = (3.0 - digits).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_is_one_of_the_samples() {
        let samples: Vec<f64> = (1..=500).rev().map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|part| quantile(&samples, part)), [1.0, 250.0, 495.0, 500.0]);
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), 2.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn numbers_print_with_four_digits() {
        assert_eq!(
            [0.0, 0.083_21, 1.4567, 345.67, 12_345.6].map(number),
            ["0.000", "0.08321", "1.457", "345.7", "12346"]
        );
    }
}
