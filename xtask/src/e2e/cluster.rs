//! Running the scenarios on a cluster, by kubectl.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::scenarios::{self, Scenario};
use super::step::{Expected, Known, Step};
use crate::janitor::Janitor;

/// The only thing that is made, and removed again.
const NAMESPACE: &str = "kube-ipvs-e2e";
/// When a step that is still wrong is given up: what was applied takes its way to all nodes. It only ends a hang.
const HANG: Duration = Duration::from_secs(600);
/// Between two tries: each of them asks the API server.
const PAUSE: Duration = Duration::from_secs(1);

/// A cluster that exists.
#[derive(Debug)]
pub(super) struct Cluster {
    kubeconfig: PathBuf,
}

impl Cluster {
    pub(super) fn new(kubeconfig: &Path) -> Result<Self> {
        let path = kubeconfig.canonicalize();
        Ok(Self { kubeconfig: path.with_context(|| format!("--kubeconfig {}", kubeconfig.display()))? })
    }

    /// Runs those of the scenarios that have `filter` in their names, in a namespace of their own.
    pub(super) fn run(&self, filter: Option<&str>) -> Result<()> {
        let all = scenarios::all();
        let chosen: Vec<&Scenario> =
            all.iter().filter(|scenario| filter.is_none_or(|filter| scenario.name.contains(filter))).collect();
        ensure!(!chosen.is_empty(), "no scenario has that in its name");
        // It fails if the namespace exists already: then another user owns it.
        self.kubectl(&["create", "namespace", NAMESPACE], None)?;
        let away = ["delete", "namespace", NAMESPACE, "--wait=false"];
        let janitor = Janitor::new(&[&["kubectl".to_owned()], &*self.flags(), &away.map(str::to_owned)].concat())?;
        let mut known = Known::new();
        scenarios::pods().iter().try_for_each(|step| self.take(step, &mut known)).context("making the pods")?;
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

    /// Takes a step, as often as it takes until it is right.
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

    /// Runs kubectl, which must succeed; returns what it said.
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
            // One that ends before it has read says why.
            let _ = stdin.write_all(input.unwrap_or_default().as_bytes());
        }
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {}\n{said}{errors}", words.join(" "), output.status);
        Ok(said)
    }
}
