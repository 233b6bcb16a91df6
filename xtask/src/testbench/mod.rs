//! The test bench: a real kernel with ip_vs, anywhere.
//!
//! If the host's own kernel has ip_vs and the user is root, a job runs in separate namespaces. Otherwise it runs in a
//! virtual machine under qemu, with a distribution's kernel and a generated initramfs. The machine uses KVM if that
//! works. KUBE_IPVS_BENCH=host or =vm overrides the choice.

mod cpio;
mod host;
mod image;
mod job;
mod kernel;
mod kvm;
mod modules;
mod packages;
mod silence;
mod stream;
mod vm;

use std::env;

use anyhow::{Result, bail, ensure};

pub(crate) use job::Job;
pub(crate) use packages::{Needed, ensure_files, ensure_installed, find};
pub(crate) use stream::{Output, Terminal, copy_output};
pub(crate) use vm::Hung;

use crate::workspace::Workspace;

/// Also looks in the directories of system programs.
pub(crate) fn is_installed(program: &str) -> bool {
    packages::find(program).is_some()
}

pub(crate) enum Bench {
    Host(host::Host),
    Vm(vm::Vm),
}

impl Bench {
    /// Chooses the bench and installs its requirements, with the servers of scenarios or without. `kernel` names a
    /// kernel package for the virtual machine.
    pub(crate) fn prepare(workspace: &Workspace, kernel: Option<&str>, servers: bool) -> Result<Self> {
        let wish = env::var("KUBE_IPVS_BENCH").ok();
        let kernel = kernel.map(str::to_owned).or_else(|| env::var("KUBE_IPVS_BENCH_KERNEL").ok());
        let on_host = match wish.as_deref() {
            Some("host") => true,
            Some("vm") => false,
            Some(other) => bail!("KUBE_IPVS_BENCH={other} is invalid: use host or vm"),
            None => kernel.is_none() && host::has_ip_vs(),
        };
        ensure!(
            on_host || cfg!(target_arch = "x86_64"),
            "the kernel of this machine has no IPVS, and the bench's virtual machine is for x86_64 only: load ip_vs here \
             (modprobe ip_vs, as root), or use an x86_64 machine"
        );
        let machine = if on_host { &[][..] } else { packages::MACHINE };
        let servers = if servers { packages::SERVERS } else { &[] };
        packages::ensure_installed(&[packages::ORACLES, machine, servers].concat())?;
        Ok(if on_host {
            Self::Host(host::Host::prepare(workspace)?)
        } else {
            Self::Vm(vm::Vm::prepare(workspace, kernel.as_deref())?)
        })
    }

    /// How many scenarios run in parallel. They wait more than they work. Under emulation they work all the time and
    /// slow each other down: on two processors eight take a quarter longer than three.
    pub(crate) fn tests_at_once(&self) -> usize {
        match self {
            Self::Host(_) => 4 * std::thread::available_parallelism().map_or(1, usize::from),
            Self::Vm(vm) if vm.kvm => 4 * vm.processors,
            Self::Vm(vm) => vm.processors + 1,
        }
    }

    /// Runs a job, passes its output to `out` and returns its exit status.
    pub(crate) fn run(&self, job: &Job, out: &mut dyn Output) -> Result<u8> {
        match self {
            Self::Host(host) => host.run(job, out),
            Self::Vm(vm) => vm.run(job, out),
        }
    }
}
