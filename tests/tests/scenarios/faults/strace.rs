//! Faults of system calls, which strace injects into the daemon's main thread. That thread owns the kernel, and its
//! only sockets are netlink sockets.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process};
use scenarios::{Cluster, Proxy, eventually};

/// What happens at one system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A send fails once. The kernel gets none of its requests.
    SendFails,
    /// Three sends in a row fail.
    SendsFail,
    /// The kernel rejects one request of a send, and executes the others. Only nftables executes none.
    RequestFails,
    /// The kernel executes the requests, and reports that it lost replies. The replies stay in the queue.
    Overrun,
    /// The kernel executes the requests, and the first reply has an impossible length.
    BadReply,
    /// SIGKILL before a send.
    KilledBefore,
    /// SIGKILL between a send and its reply.
    KilledAfter,
}

impl Fault {
    pub(crate) const ALL: [Self; 7] = [
        Self::SendFails,
        Self::Overrun,
        Self::KilledBefore,
        Self::RequestFails,
        Self::SendsFail,
        Self::BadReply,
        Self::KilledAfter,
    ];

    fn system_call(self) -> &'static str {
        match self {
            Self::SendFails | Self::SendsFail | Self::RequestFails | Self::KilledBefore => "sendto",
            Self::Overrun | Self::BadReply | Self::KilledAfter => "recvfrom",
        }
    }

    pub(crate) fn kills(self) -> bool {
        matches!(self, Self::KilledBefore | Self::KilledAfter)
    }

    /// The fault in strace's words, at the call `at`, counted from 1.
    fn injection(self, at: usize) -> String {
        let call = self.system_call();
        match self {
            Self::SendFails | Self::Overrun => format!("{call}:error=ENOBUFS:when={at}"),
            Self::SendsFail => format!("{call}:error=ENOMEM:when={at}..{}", at + 2),
            // The daemon stops and then repeats the call. Meanwhile the test makes the request invalid.
            Self::RequestFails => format!("{call}:error=EINTR:signal=STOP:when={at}"),
            Self::BadReply => format!("{call}:poke_exit=@arg2=08000000:when={at}"),
            Self::KilledBefore | Self::KilledAfter => format!("{call}:signal=KILL:when={at}"),
        }
    }
}

/// The faults to try, each at its call.
pub(crate) type Choice = Vec<(Fault, usize)>;

/// Chooses faults for a phase whose undisturbed run made these calls. CI tries each fault once, spread over the phase.
/// A request fails in the longest send of each socket. `KUBE_IPVS_FAULTS_STEP=1` tries each fault at each call.
pub(crate) fn choose(undisturbed: &Log) -> Result<Choice> {
    let calls = |fault: Fault| undisturbed.count(fault.system_call());
    let parts = Fault::ALL.len();
    match std::env::var("KUBE_IPVS_FAULTS_STEP") {
        Err(_) => {
            let mut all: Choice = undisturbed.longest_sends()?.map(|at| (Fault::RequestFails, at)).collect();
            for (part, fault) in Fault::ALL.into_iter().enumerate() {
                if fault != Fault::RequestFails {
                    all.push((fault, 1 + calls(fault)? * (2 * part + 1) / (2 * parts)));
                }
            }
            Ok(all)
        }
        Ok(step) => {
            let step: usize = step.parse().context("KUBE_IPVS_FAULTS_STEP")?;
            let mut all = Choice::new();
            for fault in Fault::ALL {
                all.extend((1..=calls(fault)?).step_by(step).map(|at| (fault, at)));
            }
            Ok(all)
        }
    }
}

/// The system calls that strace has seen.
#[derive(Debug, Clone)]
pub(crate) struct Log(PathBuf);

impl Log {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        Self(cluster.directory().join("strace.log"))
    }

    fn text(&self) -> Result<String> {
        fs::read_to_string(&self.0).with_context(|| format!("reading {}", self.0.display()))
    }

    fn count(&self, call: &str) -> Result<usize> {
        let count = self.text()?.lines().filter(|line| line.starts_with(call)).count();
        ensure!(count > 0, "strace has seen no {call}");
        Ok(count)
    }

    /// The longest send of each socket, as the number of its call.
    fn longest_sends(&self) -> Result<impl Iterator<Item = usize>> {
        let mut longest: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
        for (call, at) in self.text()?.lines().filter(|line| line.starts_with("sendto")).zip(1..) {
            let [socket, _, length] = arguments(call)?;
            let other = longest.entry(socket).or_default();
            *other = (*other).max((length, at));
        }
        ensure!(longest.len() > 1, "all sends use one socket");
        Ok(longest.into_values().map(|(_, at)| at))
    }

    /// Waits until the fault has happened. The spot checks make further calls until it does.
    pub(crate) fn await_fault(&self, fault: Fault, proxy: &Proxy) -> Result<()> {
        let call = eventually(|| {
            let text = self.text()?;
            let call = text.lines().find(|line| line.contains("INJECTED") || line.contains("killed by SIGKILL"));
            call.map(str::to_owned).context("no fault was injected yet")
        })?;
        if fault == Fault::RequestFails {
            spoil_request(&call, proxy.id()).with_context(|| format!("spoiling a request of {call}"))?;
            proxy.go_on()?;
        }
        Ok(())
    }

    /// strace's command line.
    pub(crate) fn command(&self, fault: Option<(Fault, usize)>) -> Vec<String> {
        let mut words: Vec<String> =
            ["strace", "-e", "trace=sendto,recvfrom", "-e", "raw=all", "-e", "signal=KILL", "-o"]
                .map(str::to_owned)
                .into();
        words.push(self.0.to_string_lossy().into_owned());
        if let Some((fault, at)) = fault {
            words.extend(["-e".to_owned(), format!("inject={}", fault.injection(at))]);
        }
        words
    }

    /// The same for a program that strace starts. The program is strace's parent, so it keeps the process id.
    pub(crate) fn wrapper(&self, fault: Option<(Fault, usize)>) -> Result<Vec<String>> {
        let _ = fs::remove_file(&self.0);
        Ok([self.command(fault), vec!["-D".into(), "-q".into()]].concat())
    }

    /// Attaches strace to a running daemon.
    pub(crate) fn attach(&self, proxy: &Proxy, fault: Option<(Fault, usize)>) -> Result<Attached> {
        let _ = fs::remove_file(&self.0);
        let said = self.0.with_extension("said");
        let command = self.command(fault);
        let child = Command::new(&command[0])
            .args(&command[1..])
            .args(["-p", &proxy.id().to_string()])
            .stdin(Stdio::null())
            .stderr(File::create(&said)?)
            .spawn()
            .context("starting strace")?;
        let attached = Attached { child };
        await_attached(&said)?;
        Ok(attached)
    }
}

fn await_attached(said: &Path) -> Result<()> {
    eventually(|| {
        let said = fs::read_to_string(said)?;
        ensure!(said.contains("attached"), "strace says: {said}");
        Ok(())
    })
}

/// Dropping it detaches strace. The daemon goes on.
pub(crate) struct Attached {
    child: Child,
}

impl Drop for Attached {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// The socket, address and length of a send that strace logged as `sendto(SOCKET, ADDRESS, LENGTH, …`.
fn arguments(call: &str) -> Result<[u64; 3]> {
    let number = |word: &str| u64::from_str_radix(word.trim().trim_start_matches("0x"), 16);
    let all: Vec<u64> = call.split(['(', ',']).skip(1).take(3).map(number).collect::<Result<_, _>>()?;
    all.try_into().map_err(|all| anyhow!("{call} has the arguments {all:?}"))
}

/// Gives the middle request of a send an unknown type. The process must have stopped before it repeats the call.
fn spoil_request(call: &str, process: u32) -> Result<()> {
    let [_, address, length] = arguments(call)?;
    let memory = File::options().read(true).write(true).open(format!("/proc/{process}/mem"))?;
    let mut bytes = vec![0; usize::try_from(length)?];
    memory.read_exact_at(&mut bytes, address)?;
    let requests = starts(&bytes)?;
    let middle = requests[requests.len() / 2];
    println!("request {} of {} is invalid", requests.len() / 2 + 1, requests.len());
    // The type follows the length of four bytes.
    Ok(memory.write_all_at(&u16::MAX.to_ne_bytes(), address + middle as u64 + 4)?)
}

/// Where each netlink message begins.
fn starts(bytes: &[u8]) -> Result<Vec<usize>> {
    let (mut starts, mut at) = (Vec::new(), 0);
    while let Some(length) = bytes.get(at..at + 4) {
        starts.push(at);
        let length = u32::from_ne_bytes(length.try_into()?);
        ensure!(length >= 16, "a message of {length} bytes");
        at += usize::try_from(length)?.next_multiple_of(4);
    }
    ensure!(!starts.is_empty(), "a send without a message");
    Ok(starts)
}
