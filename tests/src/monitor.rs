//! What a node's kernel reports about its addresses, devices and nftables, as `ip monitor` and `nft monitor` print it.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};

use crate::namespace::Namespace;
use crate::programs::Program;
use crate::wait::eventually;

/// The name of the tables and devices that the monitor itself makes.
const MARK: &str = "monitor-";

/// The notices of a namespace since the start of the monitor.
#[derive(Debug)]
pub struct Monitor {
    namespace: Arc<Namespace>,
    logs: [PathBuf; 2],
    marks: Cell<u8>,
    /// The lengths of the logs at the start.
    from: [usize; 2],
    _programs: [Program; 2],
}

impl Monitor {
    /// Starts the monitor and waits until it receives notices.
    pub fn start(namespace: &Arc<Namespace>, directory: &Path) -> Result<Self> {
        let logs = ["ip", "nft"].map(|program| directory.join(format!("{}.{program}.log", namespace.name())));
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let programs = [
            Program::start(namespace, "ip", &words("-o monitor address link"), &logs[0])?,
            Program::start(namespace, "nft", &words("monitor"), &logs[1])?,
        ];
        let mut monitor =
            Self { namespace: Arc::clone(namespace), logs, marks: Cell::new(0), from: [0; 2], _programs: programs };
        // Each look makes another mark, because the programs can miss the first ones.
        eventually(|| monitor.mark().and_then(|mark| monitor.ensure_seen(mark)))?;
        monitor.from = monitor.read()?.map(|text| text.len());
        Ok(monitor)
    }

    /// All notices so far, except those of the monitor's own marks.
    pub fn notices(&self) -> Result<Vec<String>> {
        let mark = self.mark()?;
        eventually(|| self.ensure_seen(mark))?;
        let texts = self.read()?;
        let lines = texts.iter().zip(self.from).flat_map(|(text, from)| text[from..].lines());
        let is_own = |line: &str| line.contains(MARK) || line.starts_with("# new generation");
        Ok(lines.filter(|line| !line.trim().is_empty() && !is_own(line)).map(str::to_owned).collect())
    }

    /// Makes and removes a device and a table, so that each program has something to report.
    fn mark(&self) -> Result<u8> {
        let mark = self.marks.get() + 1;
        self.marks.set(mark);
        self.namespace.ip(&format!("link add {MARK}{mark} type dummy\nlink del {MARK}{mark}"))?;
        let table = format!("table ip {MARK}{mark}");
        self.namespace.run("nft", &[format!("add {table}; delete {table}").as_str()])?;
        Ok(mark)
    }

    fn ensure_seen(&self, mark: u8) -> Result<()> {
        let [ip, nft] = self.read()?;
        // Each notice is one line, and the last one of a mark is its removal.
        let device = format!(": {MARK}{mark}: ");
        let is_gone = ip.lines().any(|line| line.starts_with("Deleted") && line.contains(&device));
        ensure!(is_gone, "`ip monitor` has not reported mark {mark}");
        let table = format!("delete table ip {MARK}{mark}");
        ensure!(nft.lines().any(|line| line == table), "`nft monitor` has not reported mark {mark}");
        Ok(())
    }

    fn read(&self) -> Result<[String; 2]> {
        let [ip, nft] = &self.logs;
        Ok([fs::read_to_string(ip)?, fs::read_to_string(nft)?])
    }
}
