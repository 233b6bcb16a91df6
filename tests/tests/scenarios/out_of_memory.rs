//! A daemon without memory: its allocations fail, or the kernel kills it at its container's limit.

mod group;

use std::os::unix::process::ExitStatusExt;

use anyhow::{Context, Result, ensure};
use group::Group;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use scenarios::{Cluster, Proxy, Service, TestResult, Transport, eventually, scenario};

use crate::{
    common::{WEB_ADDRESS, await_first_sync, web_cluster},
    faults::{NODE, await_rolled_out, deploy, ensure_healthy, prepare},
    restart::{hold, still_held},
};

const FLAGS: [&str; 2] = ["--ipvs-sync-period", "1s"];
/// Less than the daemon has already: it gets no more memory from the kernel.
const LIMIT: u64 = 1 << 20;
/// More than fits into the memory that the daemon has.
const SERVICES: u32 = 600;

/// In bytes: `resources.limits.memory` of the manifests.
const MANIFESTS_LIMIT: u64 = 512 << 20;

fn limit_memory(proxy: &Proxy) -> Result<()> {
    let pid = i32::try_from(proxy.id()).ok().and_then(Pid::from_raw).context("a process without an id")?;
    let maximum = getrlimit(Resource::Data).maximum;
    prlimit(Some(pid), Resource::Data, Rlimit { current: Some(LIMIT), maximum }).context("prlimit").map(drop)
}

fn many() -> String {
    let service = |number| {
        let address = format!("10.96.{}.{}", 16 + number / 200, 1 + number % 200);
        Service::new(&format!("many-{number}")).cluster_ip(&address).port(80).to_string()
    };
    (0..SERVICES).map(service).collect::<Vec<_>>().join("---\n")
}

/// Deploys another version of the Service, and waits until the node serves all Services.
fn ensure_caught_up(cluster: &Cluster) -> Result<()> {
    deploy(cluster, true)?;
    await_rolled_out(cluster)?;
    cluster.at(NODE)?.await_service("TCP 10.96.18.200:80", &[])?;
    eventually(|| ensure_healthy(cluster))
}

/// The first allocation that fails ends the daemon. Services stay served, and the next start applies the changes.
#[test]
fn daemon_out_of_memory_ends_and_the_next_start_catches_up() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let (_servers, mut foreign) = prepare(cluster)?;
        let node = cluster.at(NODE)?;
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        await_first_sync(node)?;
        let mut held = hold(cluster)?;
        limit_memory(&proxy)?;
        cluster.manifests.write("many", &many())?;
        let (status, log) = proxy.await_end()?;
        ensure!(!status.success() && log.contains("memory allocation"), "{status}: {log}");
        still_held(&mut held)?;
        cluster.at("visitor")?.connect(Transport::Tcp, WEB_ADDRESS)?.say()?;

        let _proxy = cluster.start_proxy(NODE, &FLAGS)?;
        ensure_caught_up(cluster)?;
        still_held(&mut held)?;
        foreign.say().map(drop)?;
        Ok(())
    })
}

/// The limit is what the daemon uses already, so the changes do not fit.
#[test]
fn daemon_killed_at_the_memory_limit_of_its_container_catches_up_with_the_next_start() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let (_servers, mut foreign) = prepare(cluster)?;
        let node = cluster.at(NODE)?;
        let group = Group::new(&cluster.directory().join("cgroup"))?;
        let start = || cluster.kube_ipvs(NODE)?.under(&group.wrapper()).start(cluster.manifests.directory(), &FLAGS);
        let proxy = start()?;
        await_first_sync(node)?;
        let mut held = hold(cluster)?;
        group.limit(group.used()?)?;
        cluster.manifests.write("many", &many())?;
        let (status, log) = proxy.await_end()?;
        ensure!(status.signal() == Some(Signal::KILL.as_raw()), "{status}: {log}");
        ensure!(group.kills()? == 1, "the kernel killed {} processes of the container", group.kills()?);
        still_held(&mut held)?;
        cluster.at("visitor")?.connect(Transport::Tcp, WEB_ADDRESS)?.say()?;

        group.limit(MANIFESTS_LIMIT)?;
        let _proxy = start()?;
        ensure_caught_up(cluster)?;
        ensure!(group.kills()? == 1, "the kernel killed the daemon again");
        still_held(&mut held)?;
        foreign.say().map(drop)?;
        Ok(())
    })
}
