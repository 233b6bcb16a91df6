//! The bench on a host whose own kernel has ip_vs. The job runs as root in separate network, mount and process
//! namespaces, so its changes to IPVS, nftables and addresses do not stay.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use super::job::Job;
use super::packages;
use super::stream::{Output, copy_output};
use crate::janitor::Janitor;
use crate::workspace::Workspace;

pub(crate) struct Host {
    directory: PathBuf,
}

/// Whether jobs can run here: this needs root and a kernel with ip_vs, which can be a module that is not loaded yet.
pub(crate) fn has_ip_vs() -> bool {
    let loaded = || Path::new("/proc/net/ip_vs").exists();
    let load = || {
        let sh = Shell::new()?;
        cmd!(sh, "modprobe --quiet ip_vs").quiet().ignore_stderr().run()
    };
    // Root in a container can see the module and still lack the permission to create namespaces.
    let allowed = || {
        let sh = Shell::new()?;
        cmd!(sh, "unshare --net --mount --pid --fork true").quiet().ignore_stderr().run()
    };
    packages::is_root() && (loaded() || (load().is_ok() && loaded())) && allowed().is_ok()
}

/// Private mounts of directories that show a network namespace: /sys, and /run with its named namespaces.
const SURROUNDINGS: &str =
    "mount -t sysfs sys /sys && mount -t tmpfs tmpfs /run && ip link set lo up && exec sh \"$1\"";

impl Host {
    pub(crate) fn prepare(workspace: &Workspace) -> Result<Self> {
        ensure!(packages::is_root(), "KUBE_IPVS_BENCH=host needs root");
        Ok(Self { directory: workspace.bench_directory()?.join("host") })
    }

    pub(crate) fn run(&self, job: &Job, out: &mut dyn Output) -> Result<u8> {
        ensure!(
            !job.net,
            "on the host's own kernel, a job cannot reach the network outside its namespace: set \
                           KUBE_IPVS_BENCH=vm"
        );
        let root = self.directory.join(std::process::id().to_string());
        let janitor = Janitor::removing(&root)?;
        for file in job.files() {
            let place = root.join(&file.guest);
            if let Some(parent) = place.parent() {
                fs::create_dir_all(parent)?;
            }
            symlink(&file.host, &place).with_context(|| format!("linking {}", place.display()))?;
        }
        fs::create_dir_all(root.join("bin"))?;
        let script = root.join("job");
        fs::write(&script, job.script(&root.to_string_lossy()))?;

        eprintln!("bench: using this host's own kernel, in private namespaces");
        let started = Instant::now();
        let seconds = job.timeout.as_secs().to_string();
        let unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
        let mut command = Command::new(if job.interactive { "unshare" } else { "timeout" });
        if job.interactive {
            command.args(&unshare[1..]);
        } else {
            // In the foreground, so that Ctrl-C reaches the job too. Killing unshare ends all processes in it.
            command.args(["--foreground", "--signal=KILL", &seconds]).args(unshare);
        }
        command.args(["sh", "-c", SURROUNDINGS, "sh"]).arg(&script);
        let status = if job.interactive {
            command.stdout(Stdio::inherit()).status().context("starting unshare")?
        } else {
            copy_output(&mut command, out)?
        };
        janitor.finish()?;
        ensure!(job.interactive || started.elapsed() < job.timeout, "the command was not done after {seconds} s");
        // As in a shell: 128 plus the number of the signal.
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
        Ok(u8::try_from(code).unwrap_or(1))
    }
}
