//! `cargo xtask neighbours`: scenarios beside firewalls and network managers as Debian packages them, on the bench.
//!
//! Installing these packages would start their daemons on this machine. So this command unpacks them into a root
//! directory of their own, and takes it to the bench as an archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use xshell::{Shell, cmd};

use crate::preflight;
use crate::progress::Progress;
use crate::testbench::{Bench, Job, Needed, ensure_files};
use crate::workspace::{SCENARIOS, Workspace};

const TESTS: &str = "neighbours";
/// systemd-networkd is in systemd.
const PACKAGES: &str = "dbus,firewalld,network-manager,systemd,ufw";
const SUITE: &str = "bookworm";
const MAKER: &[Needed] = &[("mmdebstrap", "mmdebstrap")];
const KEYS: &[Needed] = &[("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring")];
/// When the machine is given up. Each scenario has a much shorter timeout.
const HANG: Duration = Duration::from_secs(6 * 3600);

/// Runs the scenarios beside Debian's firewalld, ufw, NetworkManager and systemd-networkd, on the bench
#[derive(Args)]
pub(crate) struct Neighbours {
    /// Only scenarios whose name contains one of these
    filters: Vec<String>,
    /// The bench's kernel: a package, or a directory with boot/vmlinuz* and lib/modules/*
    #[arg(long, value_name = "PACKAGE")]
    kernel: Option<String>,
}

pub(crate) fn run(args: &Neighbours) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let archive = archive(&workspace.bench_directory()?)?;
    let bench = Bench::prepare(&workspace, args.kernel.as_deref(), false)?;
    let built = workspace.build(&["test", "--package", SCENARIOS, "--test", TESTS, "--no-run"])?;
    let tests = built.iter().find(|test| test.target == TESTS).context("cargo did not build this test")?;
    let programs = workspace.build_programs()?;

    let script = "exec \"$KUBE_IPVS_ROOT/tests/$0\" \"$@\"";
    let threads = format!("--test-threads={}", bench.tests_at_once());
    let command = ["sh", "-c", script, &tests.file_name().to_string_lossy(), &threads].map(str::to_owned);
    let mut job = Job::new(command.into_iter().chain(args.filters.iter().cloned()).collect());
    job.timeout = HANG;
    job.marks = true;
    job.executables(std::iter::once(tests).chain(&programs));
    job.file(&archive, "debian.tar");
    job.manifests(&workspace.root);
    let mut progress = Progress::new(&workspace.bench_directory()?.join("neighbours.log"))?;
    progress.begin("cargo xtask neighbours", 0);
    let status = bench.run(&job, &mut progress);
    progress.print_table();
    ensure!(status? == 0, "some scenarios failed beside Debian's programs");
    ensure!(progress.counts().passed > 0, "no scenario matches the filter");
    Ok(ExitCode::SUCCESS)
}

/// The archive of the root directory. It is made once, which takes minutes.
fn archive(cache: &Path) -> Result<PathBuf> {
    let archive = cache.join(format!("neighbours-{SUITE}-{}.tar", PACKAGES.replace(',', "-")));
    if archive.exists() {
        return Ok(archive);
    }
    preflight::install(MAKER)?;
    ensure_files(KEYS)?;
    eprintln!("bench: making a root directory of {SUITE} with {PACKAGES}");
    let unfinished = cache.join("neighbours.unfinished.tar");
    let without = ["doc", "locale", "man"].map(|directory| format!("--dpkgopt=path-exclude=/usr/share/{directory}/*"));
    let sh = Shell::new()?;
    let made = cmd!(sh, "mmdebstrap --quiet --variant=minbase --include={PACKAGES} {without...} {SUITE} {unfinished}");
    made.run().context("making a root directory of Debian's packages")?;
    fs::rename(&unfinished, &archive)?;
    Ok(archive)
}
