//! One named network namespace: made, configured, entered, and gone with everything that ran in it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::wait::eventually;

/// Where `ip netns` keeps the names.
const NAMES: &str = "/run/netns";

/// A network namespace with a name that `ip netns` knows; deleted, with its processes killed, when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
    gone: AtomicBool,
}

impl Namespace {
    /// Makes all of `names` by one run of `ip`: under emulation a process costs more than anything it does.
    pub fn create_all(names: &[String]) -> Result<Vec<Arc<Self>>> {
        let lines: String = names.iter().map(|name| format!("netns add {name}\n")).collect();
        batch(&[], &lines)?;
        names
            .iter()
            .map(|name| {
                let path = format!("{NAMES}/{name}");
                let file = File::open(&path).with_context(|| format!("opening {path}"))?;
                Ok(Arc::new(Self { name: name.clone(), file, gone: AtomicBool::new(false) }))
            })
            .collect()
    }

    /// Makes one.
    pub fn create(name: &str) -> Result<Arc<Self>> {
        let mut all = Self::create_all(&[name.to_owned()])?;
        all.pop().context("ip made no namespace")
    }

    /// Kills what runs in them and deletes all of them by one run of `ip`.
    pub fn delete_all<'a>(namespaces: impl IntoIterator<Item = &'a Self>) -> Result<()> {
        let mut lines = String::new();
        for namespace in namespaces {
            if !namespace.gone.swap(true, Ordering::SeqCst) {
                namespace.kill_processes();
                lines.push_str(&format!("netns del {}\n", namespace.name));
            }
        }
        if lines.is_empty() { Ok(()) } else { batch(&["-force"], &lines) }
    }

    /// The name, as `ip netns exec` takes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread inside the namespace and waits for it. Sockets opened by `work` stay in the namespace
    /// and may be used from any thread afterwards; processes started by it stay there too.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = thread::Builder::new().name(self.name.clone()).spawn_scoped(scope, || {
                self.move_this_thread()?;
                work()
            })?;
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Starts a thread that lives inside the namespace.
    pub fn spawn<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<thread::JoinHandle<Result<T>>> {
        let namespace = Arc::clone(self);
        let thread = thread::Builder::new().name(self.name.clone()).spawn(move || {
            namespace.move_this_thread()?;
            Ok(work())
        })?;
        Ok(thread)
    }

    fn move_this_thread(&self) -> Result<()> {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("entering the network namespace {}", self.name))
    }

    /// Runs lines of `ip` commands inside, by one process.
    pub fn ip(&self, lines: &str) -> Result<()> {
        batch(&["-n", &self.name], lines)
    }

    /// Its addresses, without the loopback and link-local ones.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        let listing = self.run("ip", &["-br", "addr", "show", "scope", "global"])?;
        let words = listing.split_whitespace().filter_map(|word| word.split('/').next()?.parse().ok());
        Ok(words.collect())
    }

    /// Sets values under /proc/sys/net, by names such as `ipv4.ip_forward`.
    pub fn sysctls(&self, values: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            for (name, value) in values {
                let path = format!("/proc/sys/net/{}", name.replace('.', "/"));
                fs::write(&path, value).with_context(|| format!("writing {value} to {path}"))?;
            }
            Ok(())
        })
    }

    /// Reads the beginning of a file of the namespace under /proc/net, such as `ip_vs`: as much as the kernel gives at
    /// once, which is a page at most.
    pub fn proc_net_page(&self, file: &str) -> Result<String> {
        // Not /proc/net: that is the main thread's, which stays outside.
        let path = format!("/proc/thread-self/net/{file}");
        self.enter(|| {
            let mut page = vec![0; 65_536];
            let length = File::open(&path).and_then(|mut file| file.read(&mut page));
            page.truncate(length.with_context(|| format!("reading {path} in {}", self.name))?);
            Ok(String::from_utf8(page)?)
        })
    }

    /// Runs a program inside and hands back what it said, whatever its exit status.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        self.enter(|| {
            Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .output()
                .with_context(|| format!("running {program} in {}", self.name))
        })
    }

    /// Runs a program inside that must succeed, and returns its standard output.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.output(program, arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!(
                "{program} {} in {}: {}\n{text}{}",
                arguments.join(" "),
                self.name,
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(text)
    }

    /// Kills every process whose main thread is inside.
    fn kill_processes(&self) {
        use std::os::unix::fs::MetadataExt;
        let Ok(own) = self.file.metadata().map(|data| data.ino()) else { return };
        let inside = || {
            let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
            processes.filter_map(move |entry| {
                let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
                let namespace = fs::metadata(entry.path().join("ns/net")).ok()?;
                (namespace.ino() == own).then_some(pid)
            })
        };
        let killed = eventually(|| {
            let found: Vec<Pid> = inside().filter_map(Pid::from_raw).collect();
            for pid in &found {
                let _ = kill_process(*pid, Signal::KILL);
            }
            ensure!(found.is_empty(), "processes that outlive SIGKILL in {}: {found:?}", self.name);
            Ok(())
        });
        if let Err(error) = killed {
            eprintln!("{error:#}");
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = Self::delete_all([&*self]) {
            eprintln!("could not delete the namespace {}: {error:#}", self.name);
        }
    }
}

/// Runs `ip OPTIONS -batch -` over `lines`.
pub(crate) fn batch(options: &[&str], lines: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("running ip (iproute2)")?;
    if let Some(mut input) = child.stdin.take() {
        // An ip that stops at a bad line closes its input; what it says about the line is the better message.
        let _ = input.write_all(lines.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("ip {} -batch failed: {said}\nThe lines were:\n{lines}", options.join(" "));
    }
    Ok(())
}
