//! The test bench: a real kernel with ip_vs, anywhere.
//!
//! Where the host's own kernel has ip_vs and we are root, a job runs in namespaces of its own. Everywhere else it
//! runs in a virtual machine under qemu, with a distribution's kernel and an initramfs made on the spot; KVM is used
//! where it works. KUBE_IPVS_BENCH=host or =vm decides otherwise.

mod cpio;
mod host;
mod image;
mod job;
mod kernel;
mod modules;
mod packages;
mod stream;
mod vm;

use std::env;
use std::io::Write;

use anyhow::{Result, bail};

pub(crate) use job::Job;
pub(crate) use stream::copy_output;

use crate::workspace::Workspace;

/// Whether a program is there, also in the directories of system programs.
pub(crate) fn is_installed(program: &str) -> bool {
    packages::find(program).is_some()
}

/// Where jobs run.
pub(crate) enum Bench {
    Host(host::Host),
    Vm(vm::Vm),
}

impl Bench {
    /// Chooses and prepares the bench. `kernel` names a kernel package for the virtual machine.
    pub(crate) fn choose(workspace: &Workspace, kernel: Option<&str>) -> Result<Self> {
        let wish = env::var("KUBE_IPVS_BENCH").ok();
        let kernel = kernel.map(str::to_owned).or_else(|| env::var("KUBE_IPVS_BENCH_KERNEL").ok());
        let on_host = match wish.as_deref() {
            Some("host") => true,
            Some("vm") => false,
            Some(other) => bail!("KUBE_IPVS_BENCH={other}: it is host or vm"),
            None => kernel.is_none() && host::has_ip_vs(),
        };
        Ok(if on_host {
            Self::Host(host::Host::prepare(workspace)?)
        } else {
            Self::Vm(vm::Vm::prepare(workspace, kernel.as_deref())?)
        })
    }

    /// Runs a job and gives its exit status; its standard output goes to `out`, its standard error to ours.
    pub(crate) fn run(&self, job: &Job, out: &mut dyn Write) -> Result<u8> {
        if job.servers {
            packages::ensure_installed(packages::SERVERS)?;
        }
        match self {
            Self::Host(host) => host.run(job, out),
            Self::Vm(vm) => vm.run(job, out),
        }
    }
}
