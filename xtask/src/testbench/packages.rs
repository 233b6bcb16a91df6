//! The distribution's programs that the bench needs. Missing ones are installed.

use std::env;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::{fs, process::Command};

use anyhow::{Context, Result, bail, ensure};

/// A program and its Debian or Ubuntu package.
pub(crate) type Needed = (&'static str, &'static str);

/// Programs for commands under test: independent tools that read back the kernel's state, and real clients.
pub(crate) const ORACLES: &[Needed] = &[
    ("ipvsadm", "ipvsadm"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("tc", "iproute2"),
    ("bridge", "iproute2"),
    ("conntrack", "conntrack"),
    ("iptables", "iptables"),
    ("ipset", "ipset"),
    ("curl", "curl"),
    ("strace", "strace"),
    ("dig", "bind9-dnsutils"),
];

/// Real servers for scenarios, their clients, and other programs of a node. They are large, so only jobs that request
/// them get them.
pub(crate) const SERVERS: &[Needed] = &[
    ("dnsmasq", "dnsmasq-base"),
    ("mariadbd", "mariadb-server-core"),
    ("mariadb", "mariadb-client-core"),
    ("keepalived", "keepalived"),
];

pub(crate) const MACHINE: &[Needed] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("kmod", "kmod"),
    ("depmod", "kmod"),
    ("strip", "binutils"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];

pub(crate) fn ensure_installed(needed: &[Needed]) -> Result<()> {
    ensure_all(needed, |program| find(program).is_some())
}

/// Does the same as [`ensure_installed`] for files, which `needed` names by their paths.
pub(crate) fn ensure_files(needed: &[Needed]) -> Result<()> {
    ensure_all(needed, |file| Path::new(file).exists())
}

fn ensure_all(needed: &[Needed], is_there: impl Fn(&str) -> bool) -> Result<()> {
    let missing = needed.iter().filter(|(program, _)| !is_there(program));
    let mut packages: Vec<&str> = missing.map(|&(_, package)| package).collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    ensure!(find("apt-get").is_some(), "these Debian packages are needed, and there is no apt-get: {list}");
    ensure!(
        is_root(),
        "packages are missing, and only root can install them. Run this command as root, or run `sudo apt-get install \
         --no-install-recommends {list}` first"
    );
    eprintln!("xtask: installing {list}, without a change of this machine's kernel");
    if apt_install(&packages).is_err() {
        eprintln!("xtask: refreshing apt's package lists first");
        let complaints = update_lists()?;
        apt_install(&packages).with_context(|| format!("apt cannot install {list}: {MIRRORS}{complaints}"))?;
    }
    for (program, package) in needed {
        ensure!(is_there(program), "the package {package} is installed, and {program} is missing");
    }
    Ok(())
}

pub(crate) const MIRRORS: &str = "check this machine's network, its proxy settings and the mirrors in \
                                  /etc/apt/sources.list*, then try again\n";

/// Returns apt's complaints. An unreachable mirror is no failure for apt, because other lists can be enough.
pub(crate) fn update_lists() -> Result<String> {
    apt_get(&["update"])
}

fn apt_install(packages: &[&str]) -> Result<String> {
    apt_get(&[&["install", "--yes", "--no-install-recommends"], packages].concat())
}

/// Runs apt-get quietly and returns its complaints.
fn apt_get(args: &[&str]) -> Result<String> {
    let output = Command::new("apt-get")
        // The system's own upgrades can hold the lock for a long time.
        .args(["-qq", "-o", "DPkg::Lock::Timeout=3600"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .context("starting apt-get")?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("apt-get {} failed:\n{}", args.join(" "), complaints.trim_end());
    }
    Ok(complaints.into_owned())
}

pub(crate) fn program(name: &str) -> Result<PathBuf> {
    find(name).with_context(|| format!("there is no {name}"))
}

/// Looks on PATH and in the directories of system programs, which a user's PATH often lacks.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|directory| directory.join(program)).find(|file| is_executable(file))
}

pub(crate) fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
