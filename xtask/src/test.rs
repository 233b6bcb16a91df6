//! `cargo xtask test`: every test there is. The ordinary ones run here; those that need a kernel with ip_vs run on
//! the bench, in one boot. Where the bench cannot start this fails: a skipped test would look like a passed one.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::image;
use crate::steps::Steps;
use crate::tally::Tally;
use crate::testbench::{Bench, Job, copy_output};
use crate::workspace::{Executable, SCENARIOS, Workspace};

/// Runs all tests: the ordinary ones here, those that need a kernel on the bench
#[derive(Args)]
pub(crate) struct Test {
    /// Only tests whose name contains one of these
    filters: Vec<String>,
    /// Only the tests that need a kernel
    #[arg(long)]
    kernel_only: bool,
    /// With the daemon as its image has it: optimised for size, and a panic ends it
    #[arg(long)]
    image: bool,
    /// How many tests of one executable run at a time on the bench
    #[arg(long, default_value_t = 4)]
    test_threads: usize,
    /// How long the tests on the bench may take, all in all
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
    /// The bench's kernel: a package, or a directory with boot/vmlinuz* and lib/modules/*
    #[arg(long, value_name = "PACKAGE")]
    kernel: Option<String>,
}

impl Default for Test {
    fn default() -> Self {
        Self {
            filters: Vec::new(),
            kernel_only: false,
            image: false,
            test_threads: 4,
            timeout: 3600,
            kernel: None,
        }
    }
}

pub(crate) fn run(args: &Test) -> Result<ExitCode> {
    steps(args, &mut Steps::new())?;
    Ok(ExitCode::SUCCESS)
}

/// The tests as steps of a larger run, closed by where the time went and the sum of all results.
pub(crate) fn steps(args: &Test, steps: &mut Steps) -> Result<()> {
    let workspace = Workspace::load()?;
    let mut out = Tally::new(io::stdout());
    let result = all(args, &workspace, steps, &mut out);
    steps.print();
    println!("\n{}\n", out.counts);
    result?;
    ensure!(out.counts.passed > 0, "no test has that in its name");
    Ok(())
}

fn all(args: &Test, workspace: &Workspace, steps: &mut Steps, out: &mut dyn Write) -> Result<()> {
    if !args.kernel_only {
        steps.run("tests of this host", || on_host(args, workspace, out))?;
    }
    let executables = steps.run("building the tests for the bench", || build(workspace))?;
    steps.run("tests on the bench", || on_bench(args, workspace, &executables, out))
}

fn on_host(args: &Test, workspace: &Workspace, out: &mut dyn Write) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["test", "--workspace", "--exclude", SCENARIOS, "--"])
        .args(&args.filters)
        .current_dir(&workspace.root);
    let status = copy_output(&mut cargo, out)?;
    ensure!(status.success(), "some tests failed");
    Ok(())
}

/// The tests of the scenarios, and the kernel tests of the other crates.
fn build(workspace: &Workspace) -> Result<Vec<Executable>> {
    let mut executables = workspace.build(&["test", "--package", SCENARIOS, "--no-run"])?;
    // Its ordinary binaries are among what cargo built; they are no tests.
    executables
        .retain(|executable| executable.path.parent().is_some_and(|directory| directory.ends_with("deps")));
    let kernel_tests = workspace.kernel_tests();
    for (package, test) in &kernel_tests {
        ensure!(
            !test.tested,
            "{package}: `cargo test` would run {} without a kernel; give it test = false",
            test.name
        );
    }
    let mut packages: Vec<&str> = kernel_tests.iter().map(|(package, _)| *package).collect();
    packages.dedup();
    if !packages.is_empty() {
        let mut command = vec!["test", "--no-run", "--test", "kernel*"];
        command.extend(packages.iter().flat_map(|package| ["--package", package]));
        let built = workspace.build(&command)?;
        executables.extend(built.into_iter().filter(|executable| executable.target.starts_with("kernel")));
    }
    Ok(executables)
}

fn on_bench(args: &Test, workspace: &Workspace, tests: &[Executable], out: &mut dyn Write) -> Result<()> {
    let mut script = String::from("failed=\n");
    for test in tests {
        let name = test.file_name().display();
        script.push_str(&format!("echo '     Running {} ({name})'\n", test.target));
        script.push_str(&format!(
            "\"$KUBE_IPVS_ROOT/tests/{name}\" \"$@\" || failed=\"$failed {}\"\n",
            test.target
        ));
    }
    script.push_str("[ -z \"$failed\" ] || { echo \"failed:$failed\"; exit 1; }\n");

    let mut command: Vec<String> = vec!["sh".into(), "-c".into(), script, "tests".into()];
    command.push(format!("--test-threads={}", args.test_threads));
    command.extend_from_slice(&args.filters);
    let mut job = Job::new(command);
    job.timeout = Duration::from_secs(args.timeout);
    job.servers = true;
    for test in tests {
        job.executable(&test.path, PathBuf::from("tests").join(test.file_name()));
    }
    for binary in workspace.build_binaries(if args.image { image::PROFILE } else { &[] })? {
        job.executable(&binary.path, PathBuf::from("bin").join(binary.file_name()));
    }
    job.manifests(&workspace.root);
    let bench = Bench::choose(workspace, args.kernel.as_deref())?;
    let status = bench.run(&job, out).context("the tests on the bench did not finish")?;
    ensure!(status == 0, "some tests failed on the bench");
    Ok(())
}
