//! A named network namespace. Deleting it also kills every process in it.

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

/// The directory in which `ip netns` keeps the names.
const NAMES: &str = "/run/netns";

/// A network namespace with a name that `ip netns` knows. Dropping it kills its processes and deletes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
    gone: AtomicBool,
}

impl Namespace {
    /// Creates all of `names` with one run of `ip`, because under emulation starting a process is expensive.
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

    /// Creates one namespace.
    pub fn create(name: &str) -> Result<Arc<Self>> {
        let mut all = Self::create_all(&[name.to_owned()])?;
        all.pop().context("ip made no namespace")
    }

    /// Kills the processes in the namespaces and deletes all of them with one run of `ip`.
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

    /// Runs `work` on a thread inside the namespace and waits for it. Sockets and processes that `work` creates stay in
    /// the namespace. Any thread can use such a socket later.
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

    /// Starts a thread inside the namespace.
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

    /// Runs lines of `ip` commands inside the namespace, in one process.
    pub fn ip(&self, lines: &str) -> Result<()> {
        batch(&["-n", &self.name], lines)
    }

    /// The namespace's addresses, without loopback and link-local ones.
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

    /// Reads the beginning of a file of the namespace under /proc/net, such as `ip_vs`. One read returns at most a
    /// page.
    pub fn proc_net_page(&self, file: &str) -> Result<String> {
        // /proc/net belongs to the main thread, which stays outside the namespace.
        let path = format!("/proc/thread-self/net/{file}");
        self.enter(|| {
            let mut page = vec![0; 65_536];
            let length = File::open(&path).and_then(|mut file| file.read(&mut page));
            page.truncate(length.with_context(|| format!("reading {path} in {}", self.name))?);
            Ok(String::from_utf8(page)?)
        })
    }

    /// Runs a program inside the namespace. Returns its output and exit status.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        self.enter(|| {
            Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .output()
                .with_context(|| format!("running {program} in {}", self.name))
        })
    }

    /// Runs a program inside the namespace and returns its standard output. Fails if the program fails.
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

    /// Kills every process whose main thread is inside the namespace.
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
        // If ip stops at a bad line, it closes its input. Its error message says more than EPIPE.
        let _ = input.write_all(lines.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("ip {} -batch failed: {said}\nThe lines were:\n{lines}", options.join(" "));
    }
    Ok(())
}
