//! A proxy under test: its process, processor time and memory.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use scenarios::Namespace;

use crate::network::{NODE, POD_NETWORK};

/// kube-ipvs keeps its record here. A new node has none.
const RECORD: &str = "/run/kube-ipvs";

#[derive(Debug, Clone)]
pub(super) struct Program {
    /// For the tables, such as `kube-proxy v1.36.2 nftables`.
    pub(super) name: String,
    arguments: Vec<String>,
}

impl Program {
    pub(super) fn ours(kubeconfig: &str) -> Self {
        let arguments = ["kube-ipvs", "run", "--kubeconfig", kubeconfig, "--hostname-override", NODE];
        let arguments = arguments.into_iter().chain(["--cluster-cidr", POD_NETWORK]).map(str::to_owned).collect();
        Self { name: "kube-ipvs".into(), arguments }
    }

    /// kube-proxy with its defaults, except that it reads JSON, and leaves the limits of conntrack alone: they apply to
    /// the machine.
    pub(super) fn kube_proxy(mode: &str, kubeconfig: &str) -> Result<Self> {
        let version = Command::new("kube-proxy").arg("--version").output().context("running kube-proxy --version")?;
        let version = String::from_utf8_lossy(&version.stdout).trim().replace("Kubernetes ", "");
        let file = std::env::temp_dir().join("bench-kube-proxy.yaml");
        let configuration = format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: {mode}\n\
             hostnameOverride: {NODE}\nclusterCIDR: {POD_NETWORK}\nconntrack: {{maxPerCore: 0, min: 0}}\n\
             clientConnection: {{kubeconfig: {kubeconfig}, contentType: application/json}}\n"
        );
        fs::write(&file, configuration)?;
        let arguments = vec!["kube-proxy".to_owned(), format!("--config={}", file.display())];
        Ok(Self { name: format!("kube-proxy {version} {mode}"), arguments })
    }

    /// Starts the program on a node. `is_new` says whether the node is new.
    pub(super) fn start(&self, node: &Namespace, is_new: bool) -> Result<Daemon> {
        if is_new {
            let _ = fs::remove_dir_all(RECORD);
        }
        let log = std::env::temp_dir().join(format!("bench-{}.log", self.arguments[0]));
        let output = File::create(&log)?;
        let mut command = Command::new(&self.arguments[0]);
        command.args(&self.arguments[1..]).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let start = Instant::now();
        let child = node.enter(|| command.spawn().with_context(|| format!("starting {}", self.name)))?;
        Ok(Daemon { child, log, start })
    }
}

/// A running proxy. Dropping it kills it.
pub(super) struct Daemon {
    child: Child,
    log: PathBuf,
    pub(super) start: Instant,
}

impl Daemon {
    /// Fails if the proxy has ended, or after hours.
    pub(super) fn check(&mut self) -> Result<()> {
        /// Ends only a hang.
        const HANG: Duration = Duration::from_secs(6 * 3600);
        let log = || fs::read_to_string(&self.log).unwrap_or_default();
        if let Some(status) = self.child.try_wait()? {
            bail!("the proxy ended: {status}\n{}", log());
        }
        ensure!(self.start.elapsed() < HANG, "the proxy serves nothing:\n{}", log());
        Ok(())
    }

    /// The processor time of the process and of the programs that it has started, in seconds.
    pub(super) fn processor_time(&self) -> Result<f64> {
        let processes = fs::read_dir("/proc")?.flatten().filter_map(|entry| {
            let text = fs::read_to_string(entry.path().join("stat")).ok()?;
            Process::parse(&text)
        });
        let ticks = ticks_of(self.child.id(), &processes.collect::<Vec<_>>());
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// A line of `/proc/PID/status`, in MiB.
    pub(super) fn memory(&self, name: &str) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).context("no such line")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }

    /// Waits until the process has been almost idle for some seconds.
    pub(super) fn settle(&mut self) -> Result<()> {
        const LOOK: Duration = Duration::from_secs(1);
        const QUIET: u32 = 5;
        /// In seconds.
        const IDLE: f64 = 0.1;
        let mut quiet = 0;
        while quiet < QUIET {
            self.check()?;
            let before = self.processor_time()?;
            sleep(LOOK);
            let spent = self.processor_time()? - before;
            quiet = if spent <= IDLE { quiet + 1 } else { 0 };
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Process {
    id: u32,
    parent: u32,
    /// Of the process and of its children that have ended.
    ticks: u64,
}

impl Process {
    /// Parses `/proc/PID/stat`. The name is in parentheses, and can contain spaces.
    fn parse(stat: &str) -> Option<Self> {
        let (head, rest) = stat.rsplit_once(") ")?;
        let id = head.split(' ').next()?.parse().ok()?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let parent = fields.get(1)?.parse().ok()?;
        // utime, stime, cutime and cstime.
        let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
        Some(Self { id, parent, ticks })
    }
}

/// The ticks of a process and of all its descendants.
fn ticks_of(root: u32, processes: &[Process]) -> u64 {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for process in processes {
        children.entry(process.parent).or_default().push(process.id);
    }
    let mut family = vec![root];
    let mut at = 0;
    while let Some(id) = family.get(at) {
        family.extend(children.remove(id).unwrap_or_default());
        at += 1;
    }
    processes.iter().filter(|process| family.contains(&process.id)).map(|process| process.ticks).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_includes_programs_that_run_and_that_have_ended() {
        let stat = |id: u32, parent: u32, times: &str| {
            let text = format!("{id} (nft (x) y) S {parent} 1 1 0 -1 4194560 9 9 9 9 {times} 20 0 1 0 100");
            Process::parse(&text).unwrap()
        };
        let processes =
            [stat(7, 1, "1 2 30 40"), stat(8, 7, "100 200 0 0"), stat(9, 8, "1000 0 0 0"), stat(3, 1, "5 5 5 5")];
        assert_eq!(ticks_of(7, &processes), 1373);
    }
}
