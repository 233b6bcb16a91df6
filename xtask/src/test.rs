//! `cargo xtask test`: all tests. Ordinary tests run here; tests that need a kernel with ip_vs run on the bench, in one
//! boot. If the bench cannot start, the command fails: a skipped test would look like a passed one.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::platform::Platform;
use crate::preflight::{self, Needs};
use crate::progress::Progress;
use crate::steps::Steps;
use crate::testbench::{Bench, Hung, Job, copy_output};
use crate::workspace::{Executable, SCENARIOS, Sort, Workspace, cargo};

pub(crate) const STEPS: usize = 4;
/// GB, measured from an empty target directory and rounded up.
const NEEDS: Needs = Needs { disk: 4, memory: 5, servers: true };
/// How many tests of this host run in parallel on each processor: most tests wait most of the time.
const WAITING: usize = 4;
/// When the whole run is given up. Each scenario has a much shorter timeout.
const TIMEOUT: Duration = Duration::from_secs(6 * 3600);

/// Runs all tests: the ordinary ones here, those that need a kernel on the bench
#[derive(Args, Default)]
pub(crate) struct Test {
    /// Only tests whose name contains one of these
    filters: Vec<String>,
    /// Only tests whose whole name is one of these
    #[arg(long, requires = "filters")]
    exact: bool,
    /// Only the tests that need no kernel: no virtual machine, and minutes
    #[arg(long, conflicts_with = "kernel_only")]
    host: bool,
    /// Only the tests that need a kernel
    #[arg(long)]
    kernel_only: bool,
    /// Use the daemon as its image has it: optimised for size, and a panic ends it
    #[arg(long)]
    image: bool,
    /// How many tests of one executable run at a time on the bench; if not given, as many as its processors can run
    #[arg(long)]
    test_threads: Option<usize>,
    /// The bench's kernel: a package, or a directory with boot/vmlinuz* and lib/modules/*
    #[arg(long, value_name = "PACKAGE")]
    kernel: Option<String>,
    /// A kube-ipvs of another version, for the scenario of an upgrade and a downgrade
    #[arg(long, value_name = "FILE")]
    other_build: Option<PathBuf>,
}

pub(crate) fn run(args: &Test) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    steps(args, &workspace, &mut Steps::new(&workspace, args.steps())?)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the tests as steps of a larger run, and prints the time of each step and a table of all results.
pub(crate) fn steps(args: &Test, workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let mut progress = Progress::new(&workspace.bench_directory()?.join("tests.log"))?;
    let result = all(args, workspace, steps, &mut progress);
    steps.print();
    progress.print_table();
    result?;
    ensure!(progress.counts().passed > 0, "no test matches the filter");
    Ok(())
}

fn all(args: &Test, workspace: &Workspace, steps: &mut Steps, progress: &mut Progress) -> Result<()> {
    let prepare = || preflight::run(workspace, args.kernel.as_deref(), &NEEDS);
    let bench = if args.host { None } else { Some(steps.run("preparing the bench for the tests", prepare)?) };
    let built = steps.run("building the tests", || Built::build(args, workspace))?;
    // A failure on this host does not skip the tests on the bench.
    let mut results = Vec::new();
    if !args.kernel_only {
        results.push(steps.run("tests of this host", || on_host(args, workspace, &built, progress)));
    }
    if let Some(bench) = bench {
        results.push(steps.run("tests on the bench", || built.on_bench(args, &bench, workspace, progress)));
    }
    results.into_iter().collect()
}

impl Test {
    fn steps(&self) -> usize {
        STEPS - usize::from(self.host) * 2 - usize::from(self.kernel_only)
    }

    fn choice(&self) -> impl Iterator<Item = String> {
        self.filters.iter().cloned().chain(self.exact.then(|| "--exact".to_owned()))
    }

    /// The names of the chosen tests of these executables.
    fn names(&self, executables: &[Executable]) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for executable in executables {
            let mut command = Command::new(&executable.path);
            let output = command.arg("--list").args(self.choice()).output();
            let output = output.with_context(|| format!("running {}", executable.path.display()))?;
            let listed = String::from_utf8_lossy(&output.stdout);
            names.extend(listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned));
        }
        Ok(names)
    }
}

struct Built {
    for_host: Vec<Executable>,
    for_bench: Vec<Executable>,
    /// Programs and examples on the PATH of the tests on the bench.
    programs: Vec<Executable>,
}

impl Built {
    /// Uses one cargo command where possible: each choice of packages has other features, and so more crates to
    /// compile.
    fn build(args: &Test, workspace: &Workspace) -> Result<Self> {
        let all = workspace.build(&["test", "--workspace", "--no-run"])?;
        let (tests, mut programs): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.sort == Sort::Test);
        let (mut for_bench, for_host): (Vec<_>, Vec<_>) = tests.into_iter().partition(|test| test.package == SCENARIOS);
        for (package, test) in workspace.kernel_tests() {
            ensure!(!test.tested, "{package}: `cargo test` would run {} without a kernel: set test = false", test.name);
        }
        for_bench.extend(workspace.build(&["test", "--workspace", "--no-run", "--test", "kernel*"])?);
        if args.image {
            programs.retain(|program| program.target != "kube-ipvs");
            programs.push(workspace.build_published_daemon(Platform::Host)?);
        }
        Ok(Self { for_host, for_bench, programs })
    }

    /// If the machine hangs, the tests without a result run on another one. If that hangs too, they have failed.
    fn on_bench(&self, args: &Test, bench: &Bench, workspace: &Workspace, progress: &mut Progress) -> Result<()> {
        let names = args.names(&self.for_bench)?;
        let failed_before = progress.counts().failed;
        progress.begin("cargo xtask test --kernel-only --exact", names.len());
        let mut status = bench.run(&self.job(args, bench, workspace, args.choice()), progress);
        if let Err(error) = &status
            && let Some(hung) = error.downcast_ref::<Hung>()
        {
            eprintln!("bench: {hung}");
            let rest = progress.machine_hung(&hung.to_string(), names);
            // Without a name, all tests would run.
            status = if rest.is_empty() {
                Ok(0)
            } else {
                bench.run(&self.job(args, bench, workspace, rest.into_iter().chain(["--exact".to_owned()])), progress)
            };
        }
        let status = status.context("the tests on the bench did not finish")?;
        ensure!(status == 0 && progress.counts().failed == failed_before, "some tests failed on the bench");
        Ok(())
    }

    fn job(&self, args: &Test, bench: &Bench, workspace: &Workspace, tests: impl Iterator<Item = String>) -> Job {
        let mut command: Vec<String> = vec!["sh".into(), "-c".into(), script(&self.for_bench), "tests".into()];
        command.push(format!("--test-threads={}", args.test_threads.unwrap_or_else(|| bench.tests_at_once())));
        command.extend(tests);
        let mut job = Job::new(command);
        job.timeout = TIMEOUT;
        job.servers = true;
        job.marks = true;
        job.executables(self.for_bench.iter().chain(&self.programs));
        job.manifests(&workspace.root);
        if let Some(other) = &args.other_build {
            job.file(other, "bin/kube-ipvs-other");
        }
        job
    }
}

/// Runs all executables, even if one of them fails.
fn script(tests: &[Executable]) -> String {
    let mut script = String::from("failed=\n");
    for test in tests {
        let name = test.file_name().display();
        script.push_str(&format!("\"$KUBE_IPVS_ROOT/tests/{name}\" \"$@\" || failed=\"$failed {}\"\n", test.target));
    }
    script + "[ -z \"$failed\" ] || { echo \"failed:$failed\"; exit 1; }\n"
}

fn on_host(args: &Test, workspace: &Workspace, built: &Built, progress: &mut Progress) -> Result<()> {
    progress.begin("cargo xtask test --host --exact", args.names(&built.for_host)?.len());
    let mut cargo = cargo();
    cargo
        .args(["test", "--quiet", "--no-fail-fast", "--workspace", "--exclude", SCENARIOS, "--", "--format=pretty"])
        .arg(format!("--test-threads={}", WAITING * thread::available_parallelism().map_or(1, usize::from)))
        .args(args.choice())
        .current_dir(&workspace.root);
    let status = copy_output(&mut cargo, progress)?;
    ensure!(status.success(), "some tests failed");
    Ok(())
}
