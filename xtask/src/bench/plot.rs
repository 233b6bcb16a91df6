//! `--plot FILE`: draws the figures of `--against` over the size of the cluster, as SVG beside the file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The figures to draw, by the names of their rows, in reading order.
const FIGURES: [&str; 6] = [
    "cold start: all Services answer",
    "cold start: processor time until then",
    "change: the moved endpoint answers, median",
    "at rest: processor time in 60 s",
    "at rest: resident memory",
    "longest stall of forwarding: changes",
];
const COLUMNS: usize = 2;
const COLOURS: [&str; 2] = ["#1f6feb", "#d1570d"];
/// Pixels: a panel, and in it the area of the lines.
const PANEL: (f64, f64) = (420.0, 250.0);
const LEFT: f64 = 60.0;
const RIGHT: f64 = 400.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 205.0;
const LEGEND: f64 = 40.0;

pub(super) fn run(file: &Path) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let rows: Vec<Value> = serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
    let svg = file.with_extension("svg");
    fs::write(&svg, draw(&rows)?).with_context(|| format!("writing {}", svg.display()))?;
    println!("wrote {}", svg.display());
    Ok(())
}

/// The medians of one figure: for each program, by the number of Services.
type Lines<'a> = BTreeMap<&'a str, BTreeMap<u64, f64>>;

fn draw(rows: &[Value]) -> Result<String> {
    let panels = FIGURES.map(|figure| (figure, unit(rows, figure), lines(rows, figure)));
    let mut programs: Vec<&str> = rows.iter().filter_map(|row| row["program"].as_str()).collect();
    programs.sort_unstable();
    programs.dedup();
    ensure!(programs.len() == COLOURS.len(), "the rows must be of two programs, not {programs:?}");
    let (width, height) = (PANEL.0 * COLUMNS as f64, LEGEND + PANEL.1 * FIGURES.len().div_ceil(COLUMNS) as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for ((program, colour), number) in programs.iter().zip(COLOURS).zip(0..) {
        let x = LEFT + f64::from(number) * 200.0;
        writeln!(svg, "<rect x=\"{x}\" y=\"16\" width=\"12\" height=\"12\" fill=\"{colour}\"/>")?;
        writeln!(svg, "<text x=\"{}\" y=\"27\" font-weight=\"bold\">{program}</text>", x + 18.0)?;
    }
    for ((figure, unit, lines), number) in panels.iter().zip(0..) {
        let (x, y) = (PANEL.0 * (number % COLUMNS) as f64, LEGEND + PANEL.1 * (number / COLUMNS) as f64);
        writeln!(svg, "<g transform=\"translate({x} {y})\">")?;
        writeln!(svg, "<text x=\"{LEFT}\" y=\"20\" font-weight=\"bold\">{figure}</text>")?;
        panel(&mut svg, unit, lines, &programs).with_context(|| format!("drawing {figure:?}"))?;
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn of<'a>(rows: &'a [Value], figure: &str) -> impl Iterator<Item = &'a Value> {
    let name = format!("against: {figure}");
    rows.iter().filter(move |row| row["name"] == *name)
}

fn unit<'a>(rows: &'a [Value], figure: &str) -> &'a str {
    of(rows, figure).find_map(|row| row["unit"].as_str()).unwrap_or_default()
}

fn lines<'a>(rows: &'a [Value], figure: &str) -> Lines<'a> {
    let mut lines = Lines::new();
    for row in of(rows, figure) {
        let (program, services, median) = (row["program"].as_str(), row["services"].as_u64(), row["median"].as_f64());
        if let (Some(program), Some(services), Some(median)) = (program, services, median) {
            lines.entry(program).or_default().insert(services, median);
        }
    }
    lines
}

/// Both axes are logarithmic, with lines at the powers of ten.
fn panel(svg: &mut String, unit: &str, lines: &Lines<'_>, programs: &[&str]) -> Result<()> {
    let points = || lines.values().flatten();
    let across = Axis::over(points().map(|(services, _)| *services as f64), LEFT, RIGHT)?;
    let up = Axis::over(points().map(|(_, value)| *value), BOTTOM, TOP)?;
    for (value, x) in across.marks() {
        writeln!(svg, "<path d=\"M{x:.1} {TOP}V{BOTTOM}\" stroke=\"#ddd\"/>")?;
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{value}</text>", BOTTOM + 17.0)?;
    }
    writeln!(svg, "<text x=\"{RIGHT}\" y=\"{}\" text-anchor=\"end\">Services</text>", BOTTOM + 33.0)?;
    for (value, y) in up.marks() {
        writeln!(svg, "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#ddd\"/>")?;
        writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value} {unit}</text>", LEFT - 5.0, y + 4.0)?;
    }
    for (program, colour) in programs.iter().zip(COLOURS) {
        let line = lines.get(program).with_context(|| format!("no row of {program}"))?;
        let places: Vec<(f64, f64)> =
            line.iter().map(|(services, value)| (across.place(*services as f64), up.place(*value))).collect();
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let path = path.join(" ");
        writeln!(svg, "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>")?;
        for (x, y) in places {
            writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>")?;
        }
    }
    Ok(())
}

/// Whole decades, and the pixels of their ends.
struct Axis {
    decades: (i32, i32),
    start: f64,
    end: f64,
}

impl Axis {
    /// The clock of processor time ticks every 10 ms.
    const LEAST: f64 = 0.01;

    fn over(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Result<Self> {
        let logs: Vec<f64> = values.map(|value| value.max(Self::LEAST).log10()).collect();
        ensure!(!logs.is_empty(), "there are no rows of this figure");
        let low = logs.iter().copied().fold(f64::INFINITY, f64::min).floor() as i32;
        let high = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil() as i32;
        Ok(Self { decades: (low, high.max(low + 1)), start, end })
    }

    fn place(&self, value: f64) -> f64 {
        let (low, high) = (f64::from(self.decades.0), f64::from(self.decades.1));
        let part = (value.max(Self::LEAST).log10() - low) / (high - low);
        self.start + part * (self.end - self.start)
    }

    fn marks(&self) -> impl Iterator<Item = (f64, f64)> {
        let (low, high) = self.decades;
        (low..=high).map(|decade| {
            let value = 10_f64.powi(decade);
            (value, self.place(value))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plot_has_a_line_for_each_program_through_the_medians_in_order_of_size() {
        let row = |figure: &str, program, services: u64, median| {
            let name = format!("against: {figure}");
            json!({"name": name, "program": program, "services": services, "unit": "s", "median": median})
        };
        let of = |figure: &&str| {
            let ours = [row(figure, "kube-ipvs", 1000, 10.0), row(figure, "kube-ipvs", 100, 1.0)];
            let theirs = [row(figure, "kube-proxy", 100, 10.0), row(figure, "kube-proxy", 1000, 100.0)];
            [ours, theirs].concat()
        };
        let svg = draw(&FIGURES.iter().flat_map(of).collect::<Vec<_>>()).unwrap();
        let lines: Vec<&str> = svg.lines().filter(|line| line.starts_with("<polyline")).collect();
        let line = |points, colour| {
            format!("<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>")
        };
        let ours = line("60.0,205.0 400.0,126.5", COLOURS[0]);
        let theirs = line("60.0,126.5 400.0,48.0", COLOURS[1]);
        assert_eq!(lines, [ours.as_str(), theirs.as_str()].repeat(FIGURES.len()));
        assert_eq!(svg.matches("<text x=\"55\" y=\"130.5\" text-anchor=\"end\">10 s</text>").count(), FIGURES.len());
    }

    #[test]
    fn plot_of_a_single_program_is_refused() {
        let row = |program| json!({"name": "against: at rest: resident memory", "program": program});
        let error = draw(&[row("kube-ipvs"), row("kube-ipvs")]).unwrap_err().to_string();
        assert_eq!(error, "the rows must be of two programs, not [\"kube-ipvs\"]");
    }

    #[test]
    fn axis_covers_whole_decades_and_shows_zero_as_its_least() {
        let axis = Axis::over([3.0, 250.0].into_iter(), 0.0, 300.0).unwrap();
        assert_eq!(axis.marks().collect::<Vec<_>>(), [(1.0, 0.0), (10.0, 100.0), (100.0, 200.0), (1000.0, 300.0)]);
        let axis = Axis::over([0.0].into_iter(), 0.0, 100.0).unwrap();
        assert_eq!(axis.place(0.0), axis.place(0.01));
    }
}
