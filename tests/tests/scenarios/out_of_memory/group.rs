//! A control group with a memory limit, as a container has.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
};

/// A control group (version 2) below the root of the bench.
pub(crate) struct Group(PathBuf);

impl Group {
    /// Mounts the control groups at `place`, and creates a group there.
    pub(crate) fn new(place: &Path) -> Result<Self> {
        fs::create_dir_all(place)?;
        mount("cgroup2", place, "cgroup2", MountFlags::empty(), None).context("mounting cgroup2")?;
        let group = Self(place.join(format!("kube-ipvs-{}", std::process::id())));
        fs::create_dir(&group.0)?;
        let enabled = fs::write(place.join("cgroup.subtree_control"), "+memory");
        match enabled {
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                Err(error).context("a container cannot limit its own memory further: set KUBE_IPVS_BENCH=vm")
            }
            enabled => enabled.context("enabling the memory controller of cgroup2").map(|()| group),
        }
    }

    /// A command line that joins the group, and execs the daemon with the seccomp profile of the manifests.
    pub(crate) fn wrapper(&self) -> [String; 4] {
        let join = format!("echo $$ > {}/cgroup.procs && exec confined \"$@\"", self.0.display());
        ["sh".into(), "-c".into(), join, "sh".into()]
    }

    /// Sets the limit, in bytes. If the group uses more, the kernel kills one of its processes.
    pub(crate) fn limit(&self, bytes: u64) -> Result<()> {
        fs::write(self.0.join("memory.max"), bytes.to_string()).context("setting the memory limit")
    }

    /// The used memory, in bytes.
    pub(crate) fn used(&self) -> Result<u64> {
        Ok(fs::read_to_string(self.0.join("memory.current"))?.trim().parse()?)
    }

    /// How many processes of the group the kernel has killed at the limit.
    pub(crate) fn kills(&self) -> Result<u64> {
        let events = fs::read_to_string(self.0.join("memory.events"))?;
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(kills.context("memory.events has no oom_kill")?.parse()?)
    }
}

impl Drop for Group {
    /// The daemon of the group has ended.
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
        if let Some(place) = self.0.parent() {
            let _ = rustix::mount::unmount(place, rustix::mount::UnmountFlags::empty());
        }
    }
}
