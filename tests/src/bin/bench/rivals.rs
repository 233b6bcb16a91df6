//! The same state, loaded by the usual tools: `nft -f`, `ipvsadm -R` and `ip -batch`.

use std::{
    collections::BTreeSet,
    env,
    fmt::Write,
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use scenarios::VIP_DEVICE;

use crate::node::Place;

/// The files that the programs load.
pub(crate) struct Rivals {
    ruleset: PathBuf,
    servers: PathBuf,
    addresses: PathBuf,
}

impl Rivals {
    /// Lets the programs dump the state of a namespace.
    pub(crate) fn of(place: &Place) -> Result<Self> {
        let run = |program, arguments: &[&str]| place.namespace().run(program, arguments);
        let [ruleset, servers, addresses] =
            ["ruleset", "servers", "addresses"].map(|name| env::temp_dir().join(format!("bench-{name}")));
        // nft cannot read its own list of some rules, and a node has few of them. The elements of sets are many.
        let sets = [run("nft", &["list", "sets"])?, run("nft", &["list", "maps"])?];
        fs::write(&ruleset, sets.concat())?;
        fs::write(&servers, run("ipvsadm", &["-S", "-n"])?)?;
        let listed = run("ip", &["-oneline", "address"])?;
        let (mut lines, mut devices) = (String::new(), BTreeSet::new());
        for line in listed.lines() {
            // 2: kube-ipvs0    inet 10.96.0.1/32 scope global kube-ipvs0 ...
            let mut words = line.split_whitespace().skip(1);
            let (device, address) = (words.next().context("ip prints no device")?, words.nth(1));
            if !device.starts_with(VIP_DEVICE) {
                continue;
            }
            if devices.insert(device) {
                writeln!(lines, "link add {device} type dummy")?;
            }
            writeln!(lines, "address add {} dev {device}", address.context("ip prints no address")?)?;
        }
        fs::write(&addresses, lines)?;
        Ok(Self { ruleset, servers, addresses })
    }

    /// Loads the files in the namespace of this thread, and returns the time of the three programs together.
    pub(crate) fn load(&self) -> Result<Duration> {
        let start = Instant::now();
        run(Command::new("nft").arg("-f").arg(&self.ruleset))?;
        run(Command::new("ipvsadm").arg("-R").stdin(File::open(&self.servers)?))?;
        run(Command::new("ip").arg("-batch").arg(&self.addresses))?;
        Ok(start.elapsed())
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.stderr(Stdio::inherit()).status().with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
