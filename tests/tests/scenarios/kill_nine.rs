//! kill -9 at any moment of a first sync.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use scenarios::{
    Cluster, Namespace, Proxy, Service, Sets, Slice, TestResult, VIP_DEVICE, eventually, patience, scenario,
};

use crate::common::await_first_sync;

const SERVICES: usize = 200;
/// How many moments of a full sync are tried. They alternate: some time after the daemon has created its device, and
/// when the kernel has a virtual server, or a little later. If no kill hits the daemon while it writes, more moments
/// are tried.
const MOMENTS: u32 = 8;
/// The maximum number of moments.
const MOST_MOMENTS: u32 = 24;
/// The maximum time from the daemon's first sign to the latest kill.
const LONGEST_WRITING: Duration = Duration::from_secs(10);

fn manifests() -> String {
    let mut text = String::new();
    for number in 0..SERVICES {
        let (high, low) = (number / 250, number % 250 + 1);
        let name = format!("s{number}");
        let service = Service::new(&name).cluster_ip(&format!("10.96.{high}.{low}")).port(80);
        let slice = Slice::of(&name).port(8080);
        let slice = slice.ready(&format!("10.244.{high}.{low}")).ready(&format!("10.245.{high}.{low}"));
        let _ = write!(text, "{service}---\n{slice}---\n");
    }
    text
}

struct State {
    ipvs: String,
    vips: Vec<std::net::IpAddr>,
    sets: Sets,
}

impl State {
    fn read(node: &Namespace) -> Result<Self> {
        Ok(Self { ipvs: node.ipvsadm()?.configuration(), vips: node.vips()?, sets: node.nft_sets()? })
    }

    /// Reads the state with all Services. Linux 6.1 lists a large table in parts, and omits entries while other
    /// namespaces change theirs.
    fn read_complete(node: &Namespace) -> Result<Self> {
        let state = Self::read(node)?;
        let lines = state.ipvs.lines().count();
        ensure!(lines == SERVICES * 3, "{lines} lines of IPVS for {SERVICES} services of two endpoints");
        Ok(state)
    }

    fn ensure_is(&self, wanted: &Self) -> Result<()> {
        let lines = |state: &Self| state.ipvs.lines().count();
        ensure!(self.ipvs == wanted.ipvs, "IPVS: {} lines instead of {}", lines(self), lines(wanted));
        ensure!(self.vips == wanted.vips, "VIPs: {} instead of {}", self.vips.len(), wanted.vips.len());
        for (name, elements) in &wanted.sets {
            let found = self.sets.get(name);
            let count = found.map(Vec::len);
            ensure!(found == Some(elements), "nft set {name}: {count:?} instead of {} elements", elements.len());
        }
        ensure!(self.sets.len() == wanted.sets.len(), "nft has other sets: {:?}", self.sets.keys());
        Ok(())
    }
}

fn await_all_services(node: &Namespace) -> Result<()> {
    eventually(|| {
        let table = node.ip_vs()?;
        let ready = table.0.iter().filter(|service| service.real_servers.len() == 2).count();
        ensure!(ready == SERVICES, "{ready} of {SERVICES} services");
        Ok(())
    })?;
    eventually(|| {
        let vips = node.vips()?.len();
        ensure!(vips == SERVICES, "{vips} of {SERVICES} VIPs");
        Ok(())
    })
}

fn is_midway(node: &Namespace) -> Result<bool> {
    let found = node.ipvsadm()?.0.len() + node.vips()?.len();
    Ok((1..SERVICES * 2).contains(&found))
}

/// Waits for the first object that a sync creates. It polls fast, because the rest follows at once.
fn await_device(node: &Namespace) -> Result<()> {
    await_in_a_hurry("device", || node.has_device(VIP_DEVICE))
}

/// Waits for the first virtual server and leaves the daemon stopped. The daemon is stopped during each check, so it
/// makes no progress, however slow the check is.
fn stop_at_a_virtual_server(node: &Namespace, proxy: &mut Proxy) -> Result<()> {
    await_in_a_hurry("virtual server", || {
        proxy.stand_still()?;
        let is_there = node.proc_net_page("ip_vs")?.lines().count() > 3;
        if !is_there {
            proxy.go_on()?;
        }
        Ok(is_there)
    })
}

fn await_in_a_hurry(what: &str, mut is_there: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !is_there()? {
        ensure!(start.elapsed() < patience(), "there is no {what}");
        // Short, so that the test sees the first sign before the rest follows.
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn clean_up(cluster: &Cluster) -> Result<()> {
    cluster.kube_ipvs("node-1")?.run(&["cleanup"])?;
    let state = State::read(cluster.at("node-1")?)?;
    ensure!(state.ipvs.is_empty(), "cleanup left in IPVS:\n{}", state.ipvs);
    ensure!(state.vips.is_empty() && state.sets.is_empty(), "cleanup left VIPs or nft tables");
    Ok(())
}

/// After each kill, a restarted daemon reaches the state of an undisturbed sync.
#[test]
fn first_sync_killed_at_any_moment_is_completed_by_the_next() -> TestResult {
    scenario(Cluster::builder(), |cluster| {
        cluster.manifests.write("many", &manifests())?;
        let node = cluster.at("node-1")?;
        let proxy = cluster.start_proxy("node-1", &[])?;
        await_device(node)?;
        let start = Instant::now();
        await_all_services(node)?;
        // The first sync can be slow because of other tests.
        let writing = start.elapsed().min(LONGEST_WRITING);
        proxy.terminate()?;
        let wanted = eventually(|| State::read_complete(node))?;
        clean_up(cluster)?;

        let (mut midway, mut moment) = (0, 0);
        while moment < MOMENTS || midway == 0 && moment < MOST_MOMENTS {
            let mut proxy = cluster.start_proxy("node-1", &[])?;
            await_device(node)?;
            let eighths = moment % MOMENTS;
            let delay = if moment % 2 == 0 {
                writing * (eighths * eighths) / (MOMENTS * MOMENTS)
            } else {
                stop_at_a_virtual_server(node, &mut proxy)?;
                if eighths > 1 {
                    proxy.go_on()?;
                }
                Duration::from_millis(u64::from(eighths / 2))
            };
            // The test varies the moment of the kill. The progress at that moment does not matter.
            thread::sleep(delay);
            proxy.kill_nine()?;
            midway += usize::from(is_midway(node)?);
            let proxy = cluster.start_proxy("node-1", &[])?;
            await_first_sync(node)?;
            let result = eventually(|| State::read(node)?.ensure_is(&wanted));
            result.with_context(|| format!("moment {moment}: killed {delay:?} after its sign"))?;
            proxy.terminate()?;
            clean_up(cluster)?;
            moment += 1;
        }
        println!("writing took {writing:?}; {midway} kills came in between");
        ensure!(midway > 0, "no kill came in between: writing took {writing:?} in all");
        Ok(())
    })
}
