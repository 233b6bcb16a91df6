//! `cargo xtask chart`: checks the Helm chart with helm, and compares its output with the golden files.

mod helm;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;
use xshell::{Shell, cmd};

use crate::workspace::Workspace;

pub(crate) const CHART: &str = "charts/kube-ipvs";
/// The folder of the golden files: `NAME.yaml` is the chart rendered with `NAME.values.yaml`.
pub(crate) const GOLDEN: &str = "golden";
const VALUES: &str = ".values.yaml";

/// Checks the Helm chart, and compares its output with charts/kube-ipvs/golden
#[derive(Args)]
pub(crate) struct Chart {
    /// Write the golden files instead of comparing them
    #[arg(long)]
    write: bool,
}

pub(crate) fn run(args: &Chart) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    match args.write {
        true => write(&workspace)?,
        false => check(&workspace)?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    check_dashboard(workspace)?;
    let mut differences = Vec::new();
    for golden in Golden::render_all(workspace)? {
        let recorded = fs::read_to_string(&golden.path).unwrap_or_default();
        differences.extend(golden.difference(&recorded));
    }
    ensure!(differences.is_empty(), "{}If the change is meant: cargo xtask chart --write", differences.concat());
    Ok(())
}

/// No golden file contains the dashboard, so that the repository has only one copy of it.
fn check_dashboard(workspace: &Workspace) -> Result<()> {
    let helm = helm::find_or_download(&workspace.target)?;
    let chart = workspace.root.join(CHART);
    let sh = Shell::new()?;
    let template = cmd!(sh, "{helm} template kube-ipvs {chart} --show-only templates/dashboard.yaml");
    let rendered = template
        .args(["--set", "dashboard.enabled=true,apiServer.server=https://unused"])
        .quiet()
        .ignore_stderr()
        .read()?;
    let source = fs::read_to_string(workspace.root.join("manifests/dashboard.json"))?;
    let expected: String = source.lines().map(|line| format!("    {line}\n")).collect();
    ensure!(
        rendered.contains(expected.trim_end()),
        "the chart's dashboard is not manifests/dashboard.json:\n{rendered}"
    );
    Ok(())
}

fn write(workspace: &Workspace) -> Result<()> {
    for golden in Golden::render_all(workspace)? {
        println!("{}", golden.path.display());
        fs::write(&golden.path, golden.rendered).with_context(|| format!("writing {}", golden.path.display()))?;
    }
    Ok(())
}

struct Golden {
    path: PathBuf,
    rendered: String,
}

impl Golden {
    fn render_all(workspace: &Workspace) -> Result<Vec<Self>> {
        let helm = helm::find_or_download(&workspace.target)?;
        let chart = workspace.root.join(CHART);
        let sh = Shell::new()?;
        let render = |values: PathBuf| {
            cmd!(sh, "{helm} lint --strict --quiet {chart} --values {values}").quiet().ignore_stderr().run()?;
            let template = cmd!(sh, "{helm} template kube-ipvs {chart} --namespace kube-system --values {values}");
            // On standard error, helm warns that the dashboard is a symbolic link.
            let rendered = template.quiet().ignore_stderr().read()?;
            Ok(Self { path: recorded_at(&values), rendered: rendered + "\n" })
        };
        values_files(&chart)?.into_iter().map(render).collect()
    }

    fn difference(&self, recorded: &str) -> Option<String> {
        let (old, new): (Vec<_>, Vec<_>) = (recorded.lines().collect(), self.rendered.lines().collect());
        let only = |sign, of: &[&str], other: &[&str]| -> String {
            let lines = of.iter().filter(|line| !other.contains(line));
            lines.map(|line| format!("  {sign} {line}\n")).collect()
        };
        let lines = only('-', &old, &new) + &only('+', &new, &old);
        (old != new).then(|| format!("{} differs from the chart:\n{lines}", self.path.display()))
    }
}

fn values_files(chart: &Path) -> Result<Vec<PathBuf>> {
    let folder = chart.join(GOLDEN);
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let mut values: Vec<_> = paths.into_iter().filter(|path| path.to_string_lossy().ends_with(VALUES)).collect();
    values.sort();
    Ok(values)
}

fn recorded_at(values: &Path) -> PathBuf {
    values.with_extension("").with_extension("yaml")
}
