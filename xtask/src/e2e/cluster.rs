//! Runs the scenarios on a cluster with kubectl.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::scenarios::{self, Scenario};
use super::step::{Expected, Known, Step};
use crate::janitor::Janitor;

/// All objects of the scenarios are in this namespace, which is deleted at the end.
const NAMESPACE: &str = "kube-ipvs-e2e";
/// When a failing step is given up. A change takes time to reach all nodes, so this only ends a hang.
const HANG: Duration = Duration::from_secs(600);
/// Between two tries: each of them queries the API server.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Cluster {
    kubeconfig: PathBuf,
}

impl Cluster {
    pub(super) fn new(kubeconfig: &Path) -> Result<Self> {
        let path = kubeconfig.canonicalize();
        Ok(Self { kubeconfig: path.with_context(|| format!("--kubeconfig {}", kubeconfig.display()))? })
    }

    pub(super) fn run(&self, filter: Option<&str>) -> Result<()> {
        let all = scenarios::all();
        let chosen: Vec<&Scenario> =
            all.iter().filter(|scenario| filter.is_none_or(|filter| scenario.name.contains(filter))).collect();
        ensure!(!chosen.is_empty(), "no scenario matches the filter");
        // It fails if the namespace exists: then another user owns it.
        self.kubectl(&["create", "namespace", NAMESPACE], None)?;
        let away = ["delete", "namespace", NAMESPACE, "--wait=false"];
        let janitor = Janitor::new(&[&["kubectl".to_owned()], &*self.flags(), &away.map(str::to_owned)].concat())?;
        let mut known = Known::new();
        scenarios::pods().iter().try_for_each(|step| self.take(step, &mut known)).context("creating the pods")?;
        let mut failed = Vec::new();
        for Scenario { name, steps } in chosen {
            let result = steps.iter().try_for_each(|step| self.take(step, &mut known));
            println!("scenario {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
            if let Err(error) = result {
                println!("  {error:#}");
                failed.push(*name);
            }
        }
        janitor.finish()?;
        ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
        Ok(())
    }

    /// Repeats a step until its output is as expected.
    fn take(&self, step: &Step, known: &mut Known) -> Result<()> {
        let step = step.with(known)?;
        let own = ["--namespace", NAMESPACE];
        let words: Vec<&str> = own.into_iter().chain(step.words.iter().map(String::as_str)).collect();
        let start = Instant::now();
        loop {
            let said = self.kubectl(&words, step.input.as_deref());
            let failure = match said.and_then(|said| step.judge(&said, known)) {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            if step.expected == Expected::Success || start.elapsed() > HANG {
                bail!("kubectl {}: {failure:#}", step.words.join(" "));
            }
            thread::sleep(PAUSE);
        }
    }

    fn flags(&self) -> Vec<String> {
        vec!["--kubeconfig".to_owned(), self.kubeconfig.to_string_lossy().into_owned()]
    }

    /// Runs kubectl, which must succeed, and returns its output.
    pub(super) fn kubectl(&self, words: &[&str], input: Option<&str>) -> Result<String> {
        let mut child = Command::new("kubectl")
            .args(self.flags())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            // If kubectl ends before it has read its input, its own error says why.
            let _ = stdin.write_all(input.unwrap_or_default().as_bytes());
        }
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {}\n{said}{errors}", words.join(" "), output.status);
        Ok(said)
    }
}
