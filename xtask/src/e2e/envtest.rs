//! `cargo xtask e2e --cluster envtest`: the bench's scenarios on a real etcd and kube-apiserver, which also run on the
//! bench.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::E2e;
use crate::progress::Progress;
use crate::testbench::{Bench, Job};
use crate::workspace::{SCENARIOS, Workspace};

/// envtest's default directory.
const USUAL_PLACE: &str = "/usr/local/kubebuilder/bin";
const NEEDED: [&str; 2] = ["etcd", "kube-apiserver"];
/// Optional programs, and the scenarios that need them.
const OPTIONAL: [(&str, &str); 2] = [("kube-controller-manager", "mysql::"), ("kube-proxy", "takeover::")];
/// When the machine is given up. Each scenario has a much shorter timeout.
const HANG: Duration = Duration::from_secs(6 * 3600);
const TESTS: &str = "envtest";
const SCRIPT: &str =
    "KUBE_IPVS_CONTROL_PLANE=\"$KUBE_IPVS_ROOT/control-plane\" exec \"$KUBE_IPVS_ROOT/tests/$0\" \"$@\"";

pub(super) fn run(args: &E2e) -> Result<()> {
    let place = env::var_os("KUBEBUILDER_ASSETS").map_or_else(|| PathBuf::from(USUAL_PLACE), PathBuf::from);
    let programs = Programs::among(&place, |path| path.is_file())?;
    let workspace = Workspace::load()?;
    let bench = Bench::prepare(&workspace, args.kernel.as_deref(), true)?;
    let features = ["--features", "control-plane"];
    let built =
        workspace.build(&[&["test", "--package", SCENARIOS, "--test", TESTS, "--no-run"], &features[..]].concat())?;
    let tests = built.iter().find(|test| test.target == TESTS).context("cargo did not build this test")?;
    let daemon = workspace.build_daemon(&[])?;

    let mut job = Job::new(
        ["sh", "-c", SCRIPT, &*tests.file_name().to_string_lossy()]
            .map(str::to_owned)
            .into_iter()
            .chain(programs.flags(args.filter.as_deref()))
            .collect(),
    );
    job.timeout = HANG;
    job.servers = true;
    job.marks = true;
    job.executables(built.iter().chain([&daemon]));
    for program in programs.all() {
        job.file(&place.join(program), Path::new("control-plane").join(program));
    }
    job.manifests(&workspace.root);
    for (program, scenarios) in &programs.absent {
        println!("not run: {scenarios} needs {program}, which {} does not have", place.display());
    }
    let mut progress = Progress::new(&workspace.bench_directory()?.join("envtest.log"))?;
    progress.begin("cargo xtask e2e --cluster envtest", 0);
    let status = bench.run(&job, &mut progress);
    progress.print_table();
    ensure!(status? == 0, "some scenarios failed on the real API server");
    ensure!(progress.counts().passed > 0, "no scenario matches the filter");
    Ok(())
}

#[derive(Debug)]
struct Programs {
    /// The entries of [`OPTIONAL`] that are not installed.
    absent: Vec<(&'static str, &'static str)>,
}

impl Programs {
    fn among(place: &Path, exists: impl Fn(&Path) -> bool) -> Result<Self> {
        let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !exists(&place.join(name))).collect();
        ensure!(
            missing.is_empty(),
            "{} does not have {}. Run `go run sigs.k8s.io/controller-runtime/tools/setup-envtest@latest use -p path`, \
             which downloads both and prints their folder. Set KUBEBUILDER_ASSETS to that folder",
            place.display(),
            missing.join(" and ")
        );
        Ok(Self { absent: OPTIONAL.into_iter().filter(|(name, _)| !exists(&place.join(name))).collect() })
    }

    fn all(&self) -> impl Iterator<Item = &'static str> {
        let optional = OPTIONAL.into_iter().filter(|entry| !self.absent.contains(entry));
        NEEDED.into_iter().chain(optional.map(|(name, _)| name))
    }

    /// Flags of the tests. One API server serves one test at a time.
    fn flags(&self, filter: Option<&str>) -> Vec<String> {
        let skipped = self.absent.iter().flat_map(|(_, scenarios)| ["--skip", scenarios]);
        let flags = ["--test-threads=1"].into_iter().chain(skipped).chain(filter);
        flags.map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_control_plane_programs_are_all_named_in_one_error() {
        let error = Programs::among(Path::new("/assets"), |_| false).unwrap_err().to_string();
        assert!(error.starts_with("/assets does not have etcd and kube-apiserver."), "{error}");
        let error = Programs::among(Path::new("/assets"), |path| path.ends_with("etcd")).unwrap_err();
        assert!(error.to_string().starts_with("/assets does not have kube-apiserver."), "{error}");
    }

    #[test]
    fn scenarios_of_absent_optional_programs_are_skipped() {
        let some = Programs::among(Path::new("/a"), |path| !path.ends_with("kube-controller-manager")).unwrap();
        assert_eq!(some.flags(Some("web")), ["--test-threads=1", "--skip", "mysql::", "web"]);
        assert_eq!(some.all().collect::<Vec<_>>(), ["etcd", "kube-apiserver", "kube-proxy"]);
        let all = Programs::among(Path::new("/a"), |_| true).unwrap();
        assert_eq!(all.flags(None), ["--test-threads=1"]);
        assert_eq!(all.all().count(), 4);
    }
}
