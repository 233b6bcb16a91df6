//! Runs kube-ipvs, or an example of the libraries, on a node of the cluster: one-shot commands and daemons.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::namespace::Namespace;
use crate::wait::eventually;

/// The daemon's directory for its record. Each node gets its own, as on real nodes.
const RUNTIME: &str = "/run/kube-ipvs";

/// The program under test: `KUBE_IPVS_BIN`, or `kube-ipvs` on the PATH.
fn program() -> String {
    std::env::var("KUBE_IPVS_BIN").unwrap_or_else(|_| "kube-ipvs".into())
}

pub(crate) fn located() -> Result<PathBuf> {
    let program = PathBuf::from(program());
    if program.components().count() > 1 {
        return Ok(fs::canonicalize(&program)?);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|directory| directory.join(&program));
    found.find(|path| path.is_file()).with_context(|| format!("{} is not on the PATH", program.display()))
}

/// Runs kube-ipvs on one node.
#[derive(Debug, Clone)]
pub struct ProxyCommand {
    namespace: Arc<Namespace>,
    node: String,
    runtime: PathBuf,
    log: PathBuf,
    program: PathBuf,
    /// The programs that run it, with arguments, each of which execs the next.
    wrapper: Vec<String>,
    /// Shell commands that run before, and after, the node's directory is mounted over /run/kube-ipvs.
    before: &'static str,
    then: &'static str,
}

impl ProxyCommand {
    pub(crate) fn new(namespace: &Arc<Namespace>, node: &str, directory: &Path) -> Result<Self> {
        let runtime = directory.join(format!("{node}.run"));
        fs::create_dir_all(&runtime)?;
        fs::create_dir_all(RUNTIME)?;
        let log = directory.join(format!("{node}.log"));
        let (namespace, node) = (Arc::clone(namespace), node.to_owned());
        Ok(Self {
            namespace,
            node,
            runtime,
            log,
            program: program().into(),
            wrapper: vec!["confined".to_owned()],
            before: "",
            then: "",
        })
    }

    pub(crate) fn of(self, program: &str) -> Self {
        Self { program: program.into(), wrapper: Vec::new(), ..self }
    }

    /// Runs it under kube-proxy's name, and so with kube-proxy's command line.
    pub fn as_kube_proxy(mut self) -> Result<Self> {
        let directory = self.runtime.with_extension("bin");
        fs::create_dir_all(&directory)?;
        self.program = directory.join("kube-proxy");
        if !self.program.exists() {
            std::os::unix::fs::symlink(located()?, &self.program)?;
        }
        Ok(self)
    }

    /// Runs it under another program, which must exec it, instead of `confined`: strace rejects a call by making it an
    /// unknown one, which the profile does not allow.
    #[must_use]
    pub fn under(self, wrapper: &[String]) -> Self {
        Self { wrapper: wrapper.to_vec(), ..self }
    }

    /// Runs it in a container with a read-only /proc/sys.
    #[must_use]
    pub fn without_sysctls(mut self) -> Self {
        self.before = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && ";
        self
    }

    /// Runs it on a node with a read-only /run.
    #[must_use]
    pub fn with_read_only_run(mut self) -> Self {
        self.then = "mount -o remount,bind,ro /run/kube-ipvs && ";
        self
    }

    /// Runs it on a node with a full /run.
    #[must_use]
    pub fn with_full_run(mut self) -> Self {
        self.then = "mount -t tmpfs -o size=4k none /run/kube-ipvs && head -c 4096 /dev/zero > /run/kube-ipvs/fill && ";
        self
    }

    /// `ip netns exec` gives the process the node's network and a private mount namespace. There the node's directory
    /// is mounted over /run/kube-ipvs. `confined` applies the seccomp profile of the manifests. Each step execs the
    /// next, so the process id is the daemon's.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.namespace.name(), "sh", "-c"]);
        let Self { before, then, .. } = self;
        command.arg(format!("{before}mount --bind \"$0\" {RUNTIME} && {then}exec \"$@\""));
        command.arg(&self.runtime).args(&self.wrapper).arg(&self.program).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a one-shot command (`ls`, `diff`, `cleanup` ...). Returns its output and exit status.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments)
            .output()
            .with_context(|| format!("running {} {}", self.program.display(), arguments.join(" ")))
    }

    /// Runs a one-shot command and returns its standard output. Fails if the command fails.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            let (program, arguments) = (self.program.display(), arguments.join(" "));
            bail!("{program} {arguments} on {}: {}\n{text}{errors}", self.node, output.status);
        }
        Ok(text)
    }

    /// Starts the daemon on a folder of manifests.
    pub fn start(&self, manifests: &Path, extra: &[&str]) -> Result<Proxy> {
        self.start_on(["--manifests", manifests.to_str().context("a path that is not UTF-8")?], extra)
    }

    /// Starts the daemon on the API server that a kubeconfig names.
    pub fn start_with_kubeconfig(&self, kubeconfig: &Path, extra: &[&str]) -> Result<Proxy> {
        self.start_on(["--kubeconfig", kubeconfig.to_str().context("a path that is not UTF-8")?], extra)
    }

    fn start_on(&self, source: [&str; 2], extra: &[&str]) -> Result<Proxy> {
        let mut arguments = vec!["run", source[0], source[1], "--hostname-override", &self.node];
        arguments.extend(extra);
        self.spawn(&arguments)
    }

    /// Starts the daemon with this command line.
    pub fn spawn(&self, arguments: &[&str]) -> Result<Proxy> {
        Proxy::launch(self.command(arguments), &self.log)
    }
}

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    log: PathBuf,
    log_start: u64,
}

impl Proxy {
    /// Runs a command that execs the daemon.
    pub(crate) fn launch(mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let log_start = file.metadata()?.len();
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        Ok(Self { child, log: log.to_owned(), log_start })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process without an id")?;
        kill_process(pid, signal).context("signalling the daemon")
    }

    /// Stops the process (SIGSTOP).
    pub fn stand_still(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Continues the process (SIGCONT).
    pub fn go_on(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM and waits until the daemon ends.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        eventually(|| {
            self.child.try_wait()?.with_context(|| format!("the daemon goes on after SIGTERM; {}", self.log_text()))
        })
    }

    /// Sends SIGKILL, so that the daemon cannot clean up.
    pub fn kill_nine(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until the daemon ends by itself.
    pub fn await_end(mut self) -> Result<(ExitStatus, String)> {
        let status =
            eventually(|| self.child.try_wait()?.with_context(|| format!("the daemon goes on; {}", self.log_text())))?;
        Ok((status, self.log_text()))
    }

    /// Fails if the daemon has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the daemon ended: {status}\n{}", self.log_text()),
        }
    }

    /// The log of this run of the daemon.
    pub fn log_text(&self) -> String {
        let read = || -> Result<String> {
            let mut file = File::open(&self.log)?;
            file.seek(SeekFrom::Start(self.log_start))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|error| format!("(no log: {error:#})"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
