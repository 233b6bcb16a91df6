//! Checks the machine before anything is compiled. Each error is one sentence that names the problem and the remedy.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::testbench::{Bench, Needed, ensure_installed, is_installed};
use crate::workspace::Workspace;

/// Requirements of a command besides a supported system.
pub(crate) struct Needs {
    /// GB on the disk of the target directory, if that is empty.
    pub(crate) disk: u64,
    /// GB for the compiler and the bench's machine.
    pub(crate) memory: u64,
    pub(crate) servers: bool,
}

/// Checks the machine, installs missing packages, and returns a bench that can run jobs.
pub(crate) fn run(workspace: &Workspace, kernel: Option<&str>, needs: &Needs) -> Result<Bench> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    check_distribution(&release, is_installed("apt-get"))?;
    check_memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), memory_limit(), needs.memory)?;
    check_disk(workspace, needs.disk)?;
    Bench::prepare(workspace, kernel, needs.servers)
}

/// Installs those of a command's programs that are missing.
pub(crate) fn install(needed: &[Needed]) -> Result<()> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    check_distribution(&release, is_installed("apt-get"))?;
    ensure_installed(needed)
}

/// The names of the packages, and the kernel, are Debian's. Without apt the bench reports missing programs itself.
fn check_distribution(release: &str, has_apt: bool) -> Result<()> {
    let value = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let (id, version, name) = (value("ID"), value("VERSION_ID"), value("PRETTY_NAME"));
    let oldest = match id.as_str() {
        "debian" => 12.0,
        "ubuntu" => 24.04,
        _ if has_apt => return Ok(()),
        _ => bail!(
            "{} has no apt-get, with which this command installs ipvsadm, nft, qemu and others. Run it on Debian 12 or \
             Ubuntu 24.04 or newer, for example in a virtual machine or a privileged container",
            if name.is_empty() { "this system" } else { &name }
        ),
    };
    ensure!(
        has_apt,
        "{name} has no apt-get, with which this command installs the programs of the test bench: install \
                      the package apt"
    );
    // Debian testing has no version.
    let known = version.parse::<f64>().ok();
    ensure!(
        known.is_none_or(|version| version >= oldest),
        "{name} is too old for the test bench: use Debian 12 or Ubuntu 24.04 or newer"
    );
    Ok(())
}

/// The memory limit of a container in bytes, from either version of cgroups.
fn memory_limit() -> Option<u64> {
    let files = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    files.iter().find_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
}

fn check_memory(meminfo: &str, limit: Option<u64>, needed: u64) -> Result<()> {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    let Some(available) = field("MemAvailable") else { return Ok(()) };
    let limit = limit.map_or(u64::MAX, |limit| limit / 1024);
    ensure!(
        limit >= needed * 1_000_000,
        "this container can use {:.1} GB of memory and this command needs {needed} GB: raise its limit",
        limit as f64 / 1e6
    );
    ensure!(
        available >= needed * 1_000_000,
        "{:.1} GB of memory are available and this command needs {needed} GB: end other programs, or give the machine \
         more memory",
        available as f64 / 1e6
    );
    Ok(())
}

/// A build reuses the target directory, so its size counts as free.
fn check_disk(workspace: &Workspace, needed: u64) -> Result<()> {
    let disk = workspace.target.ancestors().find(|directory| directory.is_dir()).unwrap_or(&workspace.root);
    let free = kilobytes("df", &["--output=avail", "-k"], disk)?;
    let used = if workspace.target.is_dir() { kilobytes("du", &["-sk"], &workspace.target)? } else { 0 };
    ensure!(
        free + used >= needed * 1_000_000,
        "{:.1} GB are free for {} and this command needs {needed} GB: make room, or set CARGO_TARGET_DIR to a directory \
         on a larger disk",
        free as f64 / 1e6,
        workspace.target.display()
    );
    Ok(())
}

fn kilobytes(program: &str, flags: &[&str], path: &Path) -> Result<u64> {
    let output = Command::new(program).args(flags).arg(path).output();
    let output = output.with_context(|| format!("starting {program}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let number = said.split_whitespace().find_map(|word| word.parse().ok());
    number.with_context(|| format!("{program} printed no number for {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distribution(release: &str, has_apt: bool) -> String {
        check_distribution(release, has_apt).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn unsupported_distributions_are_rejected_by_name() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n";
        assert_eq!(distribution(debian, true), "");
        assert_eq!(distribution("PRETTY_NAME=\"Debian GNU/Linux forky/sid\"\nID=debian\n", true), "");
        let old = distribution("PRETTY_NAME=\"Ubuntu 22.04.5 LTS\"\nID=ubuntu\nVERSION_ID=\"22.04\"\n", true);
        assert!(old.starts_with("Ubuntu 22.04.5 LTS is too old"), "{old}");
        let fedora = distribution("PRETTY_NAME=\"Fedora Linux 42\"\nID=fedora\nVERSION_ID=42\n", false);
        assert!(fedora.starts_with("Fedora Linux 42 has no apt-get"), "{fedora}");
        assert!(distribution(debian, false).contains("install the package apt"));
        assert!(distribution("", false).starts_with("this system has no apt-get"));
    }

    #[test]
    fn too_little_memory_is_rejected() {
        let meminfo = "MemTotal:       24000000 kB\nMemAvailable:    2100000 kB\n";
        let error = check_memory(meminfo, None, 5).unwrap_err().to_string();
        assert!(error.starts_with("2.1 GB of memory are available and this command needs 5 GB"), "{error}");
        assert!(check_memory(meminfo, None, 2).is_ok());
        assert!(check_memory("", None, 5).is_ok());
        // A container can have less memory than its machine. Without a limit, cgroups report a very large number.
        assert!(check_memory(meminfo, Some(1_000_000_000), 2).is_err());
        assert!(check_memory(meminfo, Some(i64::MAX as u64), 2).is_ok());
    }
}
