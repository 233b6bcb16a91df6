//! `cargo xtask e2e --kubeconfig FILE --e2e-test PATH`: Kubernetes' own tests of Services, from a release's `e2e.test`,
//! on a cluster that kube-ipvs serves.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::steps::human;
use crate::workspace::Workspace;

/// The tests to run, and the tests to skip with the reasons.
const LIST: &str = include_str!("conformance.txt");
/// Ginkgo's timeout. It only ends a hang.
const HANG: &str = "24h";

pub(super) fn run(kubeconfig: &Path, e2e_test: &Path, filter: Option<&str>) -> Result<()> {
    let list = List::parse(LIST)?;
    let directory = Workspace::load()?.target.join("e2e");
    fs::create_dir_all(&directory)?;
    for skip in &list.skips {
        println!("not run: {}\n  {}", skip.pattern, skip.reason);
    }
    println!("running {}, which takes hours; its log is {}", e2e_test.display(), directory.join(LOG).display());
    let specs = run_in(&directory, kubeconfig, e2e_test, &list.flags(filter))?;
    specs.iter().for_each(|spec| println!("{}", spec.line()));
    let failed = specs.iter().filter(|spec| spec.outcome == Outcome::Failed).count();
    let passed = specs.iter().filter(|spec| spec.outcome == Outcome::Passed).count();
    println!("{passed} passed, {failed} failed, {} could not run here", specs.len() - passed - failed);
    ensure!(failed == 0, "{failed} of Kubernetes' own tests failed");
    ensure!(passed > 0, "no test has run");
    Ok(())
}

const LOG: &str = "e2e-test.log";
const REPORT: &str = "e2e-test.json";

fn run_in(directory: &Path, kubeconfig: &Path, e2e_test: &Path, flags: &[String]) -> Result<Vec<Spec>> {
    let report = directory.join(REPORT);
    if report.exists() {
        fs::remove_file(&report)?;
    }
    let log = File::create(directory.join(LOG))?;
    let status = Command::new(e2e_test)
        .args(["--provider=skeleton", "--ginkgo.no-color", "--ginkgo.v"])
        .arg(format!("--ginkgo.timeout={HANG}"))
        .arg(format!("--ginkgo.json-report={}", report.display()))
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .args(flags)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .with_context(|| format!("starting {}", e2e_test.display()))?;
    let Ok(text) = fs::read_to_string(&report) else {
        bail!("{} ended with {status} and without a report", e2e_test.display());
    };
    specs(&serde_json::from_str(&text).with_context(|| format!("reading {}", report.display()))?)
}

#[derive(Debug, PartialEq)]
struct List {
    focus: Vec<String>,
    skips: Vec<Skip>,
}

#[derive(Debug, PartialEq)]
struct Skip {
    pattern: String,
    reason: String,
}

impl List {
    fn parse(text: &str) -> Result<Self> {
        let mut list = Self { focus: Vec::new(), skips: Vec::new() };
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            if let Some(pattern) = line.strip_prefix("focus ") {
                list.focus.push(pattern.to_owned());
            } else if let Some(pattern) = line.strip_prefix("skip ") {
                list.skips.push(Skip { pattern: pattern.to_owned(), reason: String::new() });
            } else {
                let last = list.skips.last_mut().filter(|_| line.starts_with(' '));
                let skip = last.with_context(|| format!("{line:?} is neither a focus, a skip nor a reason"))?;
                skip.reason = line.trim().to_owned();
            }
        }
        let unexplained = list.skips.iter().find(|skip| skip.reason.is_empty());
        ensure!(unexplained.is_none(), "{unexplained:?} has no reason");
        Ok(list)
    }

    /// Flags for ginkgo. A filter replaces all focuses.
    fn flags(&self, filter: Option<&str>) -> Vec<String> {
        let focus = match filter {
            Some(filter) => vec![quoted(filter)],
            None => self.focus.clone(),
        };
        let focus = focus.into_iter().map(|pattern| format!("--ginkgo.focus={pattern}"));
        let skips = self.skips.iter().map(|skip| format!("--ginkgo.skip={}", skip.pattern));
        focus.chain(skips).collect()
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for letter in text.chars() {
        if "\\.+*?()|[]{}^$".contains(letter) {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted
}

#[derive(Debug, PartialEq)]
struct Spec {
    name: String,
    outcome: Outcome,
    took: Duration,
    /// The beginning of the failure message.
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// The cluster lacks a requirement of the test.
    Impossible,
}

impl Spec {
    fn line(&self) -> String {
        let Self { name, outcome, took, message } = self;
        let outcome = match outcome {
            Outcome::Passed => return format!("spec {name} ... ok ({})", human(*took)),
            Outcome::Failed => "FAILED",
            Outcome::Impossible => "could not run here",
        };
        format!("spec {name} ... {outcome} ({})\n  {message}", human(*took))
    }
}

/// The started tests in ginkgo's JSON report.
fn specs(report: &Value) -> Result<Vec<Spec>> {
    let suites = report.as_array().context("ginkgo's report is a list of suites")?;
    let reports = suites.iter().filter_map(|suite| suite["SpecReports"].as_array()).flatten();
    let its = reports.filter(|report| report["LeafNodeType"] == "It");
    Ok(its.filter_map(spec).collect())
}

fn spec(report: &Value) -> Option<Spec> {
    let message = report["Failure"]["Message"].as_str().unwrap_or_default();
    let outcome = match report["State"].as_str()? {
        "passed" => Outcome::Passed,
        // Tests outside the focus have no message.
        "skipped" | "pending" if message.is_empty() => return None,
        "skipped" | "pending" => Outcome::Impossible,
        _ => Outcome::Failed,
    };
    let containers = report["ContainerHierarchyTexts"].as_array().into_iter().flatten();
    let texts = containers.chain([&report["LeafNodeText"]]).filter_map(Value::as_str);
    let name = texts.collect::<Vec<_>>().join(" ");
    let took = Duration::from_nanos(report["RunTime"].as_u64().unwrap_or_default());
    let message = message.lines().next().unwrap_or_default().chars().take(200).collect();
    Some(Spec { name, outcome, took, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_skipped_conformance_test_has_a_reason() {
        let list = List::parse(LIST).unwrap();
        assert_eq!(list.focus.len(), 6);
        assert!(!list.skips.is_empty());
        assert!(List::parse("focus a\nskip b\n").unwrap_err().to_string().contains("has no reason"));
        assert!(List::parse("focus a\n  a reason\n").is_err());
        assert!(List::parse("a\n").is_err());
    }

    #[test]
    fn conformance_lists_become_ginkgo_flags() {
        let list = List::parse("focus \\[a\\]\nskip b\n  why\n").unwrap();
        assert_eq!(list.flags(None), ["--ginkgo.focus=\\[a\\]", "--ginkgo.skip=b"]);
        assert_eq!(list.flags(Some("x [y]")), ["--ginkgo.focus=x \\[y\\]", "--ginkgo.skip=b"]);
    }

    #[test]
    fn conformance_run_reports_each_spec_with_its_outcome() {
        let directory = std::env::temp_dir().join(format!("kube-ipvs-e2e-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/e2e/fake_e2e_test.sh");
        let flags = ["--ginkgo.focus=a b".to_owned()];
        let specs = run_in(&directory, Path::new("/k"), &program, &flags).unwrap();
        let lines: Vec<String> = specs.iter().map(Spec::line).collect();
        let log = fs::read_to_string(directory.join(LOG)).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(
            lines,
            [
                "spec [sig-network] Services should serve [Conformance] ... ok (12 s)",
                "spec [sig-network] Conntrack should forget ... FAILED (1 min 01 s)\n  timed out",
                "spec [sig-network] Services should need zones ... could not run here (0 s)\n  Requires more than one zone",
            ]
        );
        assert!(log.contains("--kubeconfig=/k\n--ginkgo.focus=a b\n"), "{log}");
    }

    #[test]
    fn conformance_run_without_a_report_fails() {
        let directory = std::env::temp_dir().join(format!("kube-ipvs-e2e-none-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let error = run_in(&directory, Path::new("/k"), Path::new("/bin/false"), &[]).unwrap_err();
        fs::remove_dir_all(&directory).unwrap();
        assert!(error.to_string().contains("without a report"), "{error}");
    }
}
