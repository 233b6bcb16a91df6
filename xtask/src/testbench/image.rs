//! The initramfs: a small Debian-like root of the host's own programs and libraries, the kernel's modules, and the
//! job's files.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use super::cpio::Tree;
use super::job::Job;
use super::kernel::Kernel;
use super::{modules, packages};

/// Optional programs of the host. The first ones replace applets of busybox that would run other applets instead of the
/// real `ip` and `ping`. bash is for the interactive shell, the rest for debugging.
const HANDY: &[&str] = &[
    "date", "env", "setpriv", "timeout", "nohup", "xargs", "setsid", "unshare", "nsenter", "ping", "bash", "tcpdump",
    "ethtool",
];

const IPTABLES: &[&str] = &["iptables", "ip6tables"];

const CONFIGURATION: &[&str] = &["/etc/protocols", "/etc/services", "/etc/iproute2", "/etc/ethertypes"];

pub(crate) const ROOT: &str = "/kube-ipvs";

pub(crate) fn write(kernel: &Kernel, cache: &Path, job: &Job, scratch: &Path, image: &Path) -> Result<()> {
    let mut tree = Tree::new();
    base(&mut tree)?;
    if job.servers {
        servers(&mut tree)?;
    }
    modules::add(&mut tree, &modules::staged(kernel, cache)?)?;
    payload(&mut tree, job, scratch)?;
    tree.text("/init", include_str!("init.sh"), 0o755);
    tree.text("/job", job.script(ROOT), 0o755);
    let file = File::create(image).with_context(|| format!("creating {}", image.display()))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    tree.write(&mut out)?;
    out.flush()?;
    Ok(())
}

fn base(tree: &mut Tree) -> Result<()> {
    for directory in ["bin", "sbin", "lib", "lib64"] {
        tree.symlink(format!("/{directory}"), format!("usr/{directory}"));
        tree.directory(format!("/usr/{directory}"));
    }
    for directory in ["/dev", "/proc", "/sys", "/run", "/tmp", "/root", "/etc", "/var/lib"] {
        tree.directory(directory);
    }
    tree.symlink("/var/run", "/run");
    tree.symlink("/etc/mtab", "/proc/self/mounts");
    tree.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", 0o644);
    tree.text("/etc/group", "root:x:0:\nnogroup:x:65534:\n", 0o644);
    tree.text("/etc/hosts", "127.0.0.1 localhost bench\n::1 localhost bench\n", 0o644);
    tree.text("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n", 0o644);
    for path in CONFIGURATION.iter().map(Path::new) {
        if path.is_dir() {
            tree.copy_directory(path, path)?;
        } else if path.is_file() {
            tree.file(path, path)?;
        }
    }

    let required = packages::ORACLES.iter().map(|(program, _)| *program).filter(|program| *program != "iptables");
    for program in required.chain(["dash", "kmod"]) {
        let found = packages::find(program).with_context(|| format!("{program} is not installed"))?;
        add_program(tree, &found, &standard_place(&found))?;
    }
    for found in HANDY.iter().filter_map(|program| packages::find(program)) {
        add_program(tree, &found, &standard_place(&found))?;
    }
    tree.symlink("/usr/bin/sh", "dash");
    for name in ["modprobe", "lsmod", "insmod", "rmmod", "modinfo", "depmod"] {
        let kmod =
            packages::find("kmod").map_or_else(|| PathBuf::from("/usr/bin/kmod"), |found| standard_place(&found));
        tree.symlink(format!("/usr/sbin/{name}"), kmod);
    }
    add_iptables(tree)?;
    add_busybox(tree)
}

/// The servers of scenarios. The database needs its messages and character sets.
fn servers(tree: &mut Tree) -> Result<()> {
    for (program, _) in packages::SERVERS {
        let found = packages::find(program).with_context(|| format!("{program} is not installed"))?;
        add_program(tree, &found, &standard_place(&found))?;
    }
    for directory in ["/usr/share/mysql/english", "/usr/share/mysql/charsets"].map(Path::new) {
        if directory.is_dir() {
            tree.copy_directory(directory, directory)?;
        }
    }
    Ok(())
}

/// Both kinds of iptables, and the extensions that iptables loads as libraries at run time.
fn add_iptables(tree: &mut Tree) -> Result<()> {
    for kind in ["nft", "legacy"] {
        let Some(multi) = packages::find(&format!("xtables-{kind}-multi")) else { continue };
        add_program(tree, &multi, &standard_place(&multi))?;
        for name in IPTABLES {
            for action in ["", "-save", "-restore"] {
                tree.symlink(format!("/usr/sbin/{name}-{kind}{action}"), standard_place(&multi));
                if kind == "nft" {
                    tree.symlink(format!("/usr/sbin/{name}{action}"), standard_place(&multi));
                }
            }
        }
    }
    let extensions = Path::new("/usr/lib/x86_64-linux-gnu/xtables");
    if extensions.is_dir() {
        tree.copy_directory(extensions, extensions)?;
    }
    Ok(())
}

/// Busybox's applets come last on PATH: they replace only missing programs.
fn add_busybox(tree: &mut Tree) -> Result<()> {
    let busybox = packages::find("busybox").context("busybox is not installed")?;
    add_program(tree, &busybox, Path::new("/usr/bin/busybox"))?;
    let sh = Shell::new()?;
    let applets = cmd!(sh, "{busybox} --list").quiet().read()?;
    for applet in applets.lines() {
        tree.symlink(format!("/usr/lib/busybox/{applet}"), "/usr/bin/busybox");
    }
    // Scripts use these paths.
    for applet in ["cat", "sleep", "true", "false", "env"] {
        let place = format!("/usr/bin/{applet}");
        if !tree.contains(&place) {
            tree.symlink(place, "busybox");
        }
    }
    Ok(())
}

/// A program outside the usual directories moves to /usr/bin, so that PATH finds it.
fn standard_place(program: &Path) -> PathBuf {
    let name = program.file_name().unwrap_or_default();
    let system = program.parent().is_some_and(|directory| directory.ends_with("sbin"));
    Path::new(if system { "/usr/sbin" } else { "/usr/bin" }).join(name)
}

fn payload(tree: &mut Tree, job: &Job, scratch: &Path) -> Result<()> {
    tree.symlink("/with", Path::new(ROOT).join("with"));
    for directory in ["bin", "with"] {
        tree.directory(Path::new(ROOT).join(directory));
    }
    for file in job.files() {
        let guest = Path::new(ROOT).join(&file.guest);
        if file.host.is_dir() {
            add_directory(tree, &file.host, &guest)?;
        } else if file.strip {
            // A program and an example can have the same name.
            let stripped = scratch.join(file.guest.to_string_lossy().replace('/', "-"));
            strip(&file.host, &stripped)?;
            add_libraries(tree, &file.host)?;
            tree.file(&stripped, &guest)?;
        } else {
            add_program(tree, &file.host, &guest)?;
        }
    }
    Ok(())
}

fn add_directory(tree: &mut Tree, host: &Path, guest: &Path) -> Result<()> {
    tree.directory(guest);
    for entry in fs::read_dir(host).with_context(|| format!("reading {}", host.display()))? {
        let host = entry?.path();
        let guest = guest.join(host.file_name().unwrap_or_default());
        if host.is_dir() { add_directory(tree, &host, &guest)? } else { add_program(tree, &host, &guest)? }
    }
    Ok(())
}

/// A copy without debug information. Symbols stay, so that backtraces are readable.
fn strip(program: &Path, stripped: &Path) -> Result<()> {
    let sh = Shell::new()?;
    cmd!(sh, "strip --strip-debug -o {stripped} {program}").quiet().run()?;
    Ok(())
}

fn add_program(tree: &mut Tree, host: &Path, guest: &Path) -> Result<()> {
    tree.file(host, guest)?;
    add_libraries(tree, host)
}

/// Adds the shared libraries of an executable at the host's paths.
fn add_libraries(tree: &mut Tree, program: &Path) -> Result<()> {
    let mut magic = [0; 4];
    let short = File::open(program)?.read_exact(&mut magic).is_err();
    if short || magic != *b"\x7fELF" || !packages::is_executable(program) {
        return Ok(());
    }
    let sh = Shell::new()?;
    // ldd fails for a static executable, which needs no libraries.
    let listed = cmd!(sh, "ldd {program}").quiet().ignore_status().ignore_stderr().read()?;
    for library in parse_ldd(&listed) {
        if !tree.contains(library) {
            tree.file(library, library)?;
        }
    }
    Ok(())
}

fn parse_ldd(listed: &str) -> impl Iterator<Item = &Path> {
    listed.lines().filter_map(|line| {
        let location = line.split_once("=>").map_or(line, |(_, location)| location);
        location.trim().split(' ').next().filter(|path| path.starts_with('/')).map(Path::new)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_output_yields_library_paths() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                      \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let libraries: Vec<_> = parse_ldd(listed).collect();
        assert_eq!(libraries, [Path::new("/lib/x86_64-linux-gnu/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]);
        assert_eq!(parse_ldd("\tstatically linked\n").count(), 0);
    }
}
