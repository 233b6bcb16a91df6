//! Debian's programs on a node: a root directory with their packages, which `cargo xtask neighbours` takes along.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use scenarios::{Cluster, Namespace, Program, eventually};

/// The node's own /run, /sys and /etc. /sys is read-only, as in a container: then systemd-networkd waits for no udev.
/// The last command starts the system bus, which firewalld and NetworkManager need.
const SETUP: &str = "root=$1 etc=$2
mount -t tmpfs tmpfs $root/run
mkdir $root/run/dbus $root/run/lock
mount -t proc proc $root/proc
mount -t sysfs -o ro sysfs $root/sys
mount --bind /dev $root/dev
cp -a $root/etc $etc
mount --bind $etc $root/etc
exec chroot $root dbus-daemon --system --nofork --nopidfile";

/// Debian's root directory as one node sees it.
pub(crate) struct Debian {
    node: Arc<Namespace>,
    root: PathBuf,
    etc: PathBuf,
    logs: PathBuf,
    /// Its mount namespace has the node's own directories.
    bus: Program,
}

impl Debian {
    pub(crate) fn on(cluster: &Cluster, name: &str) -> Result<Self> {
        let (node, logs) = (Arc::clone(cluster.at(name)?), cluster.directory().join(format!("{name}.debian")));
        fs::create_dir_all(&logs)?;
        let (root, etc) = (unpacked()?, logs.join("etc"));
        let directories = [&root, &etc].map(|directory| directory.display().to_string());
        let arguments = ["--mount", "--propagation", "private", "sh", "-ec", SETUP, "setup"].map(str::to_owned);
        let log = logs.join("dbus-daemon.log");
        let bus = Program::start(&node, "unshare", &[&arguments[..], &directories].concat(), &log)?;
        let debian = Self { node, root, etc, logs, bus };
        eventually(|| debian.run("test", &["-S", "/run/dbus/system_bus_socket"]))
            .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(debian)
    }

    fn words(&self, program: &str, arguments: &[&str]) -> Vec<String> {
        let (namespace, root) = (format!("--mount=/proc/{}/ns/mnt", self.bus.id()), self.root.display().to_string());
        [&[namespace.as_str(), "chroot", &root, program], arguments].concat().into_iter().map(str::to_owned).collect()
    }

    /// Runs one of Debian's programs. Fails if the program fails.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let words = self.words(program, arguments);
        self.node.run("nsenter", &words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs commands, with words separated by spaces.
    pub(crate) fn run_all<'a>(&self, commands: impl IntoIterator<Item = &'a str>) -> Result<()> {
        commands.into_iter().try_for_each(|command| {
            let words: Vec<_> = command.split(' ').collect();
            self.run(words[0], &words[1..]).map(drop)
        })
    }

    /// Starts one of Debian's daemons. Its output goes to a log.
    pub(crate) fn start(&self, program: &str, arguments: &[&str]) -> Result<Program> {
        let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
        Program::start(&self.node, "nsenter", &self.words(program, arguments), &self.logs.join(format!("{name}.log")))
    }

    /// Writes a file below /etc.
    pub(crate) fn configure(&self, file: &str, text: &str) -> Result<()> {
        let path = self.etc.join(file);
        fs::create_dir_all(path.parent().context("a file has a directory")?)?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }
}

/// The root directory, which is unpacked once.
fn unpacked() -> Result<PathBuf> {
    static UNPACKED: Mutex<bool> = Mutex::new(false);
    let place = std::env::var_os("KUBE_IPVS_ROOT").context("`cargo xtask neighbours` runs these scenarios")?;
    let (archive, root) = (Path::new(&place).join("debian.tar"), Path::new(&place).join("debian"));
    let mut is_unpacked = UNPACKED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*is_unpacked {
        fs::create_dir_all(&root)?;
        let status = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&root).status()?;
        ensure!(status.success(), "unpacking {}: {status}", archive.display());
        *is_unpacked = true;
    }
    Ok(root)
}
