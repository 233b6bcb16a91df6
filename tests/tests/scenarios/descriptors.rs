//! A daemon that can open no file and no socket.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use scenarios::{Proxy, TestResult, eventually, scenario};

use crate::{
    common::{await_first_sync, web_cluster},
    faults::{NODE, State, await_rolled_out, deploy, ensure_healthy, prepare},
    restart::{hold, still_held},
};

const FLAGS: [&str; 2] = ["--ipvs-sync-period", "1s"];
/// Too few for a daemon. Each limit stops it at another file or socket.
const TOO_FEW: [u64; 7] = [4, 7, 10, 13, 16, 20, 26];

fn limit_descriptors(proxy: &Proxy, current: Option<u64>) -> Result<()> {
    let pid = i32::try_from(proxy.id()).ok().and_then(Pid::from_raw).context("a process without an id")?;
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(Some(pid), Resource::Nofile, Rlimit { current, maximum }).context("prlimit").map(drop)
}

fn await_complaint(proxy: &Proxy) -> Result<()> {
    eventually(|| {
        let log = proxy.log_text();
        ensure!(log.contains("Too many open files"), "the log says nothing:\n{log}");
        Ok(())
    })
}

/// Services stay served, and kube-ipvs applies the missed changes as soon as it can open files again.
#[test]
fn daemon_out_of_descriptors_keeps_the_state_and_catches_up() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let (_servers, mut foreign) = prepare(cluster)?;
        let node = cluster.at(NODE)?;
        let mut proxy = cluster.start_proxy(NODE, &FLAGS)?;
        await_first_sync(node)?;
        let before = State::read(node)?;
        let mut held = hold(cluster)?;
        limit_descriptors(&proxy, Some(4))?;
        await_complaint(&proxy)?;
        deploy(cluster, true)?;
        // It cannot accept the connection, so a kubelet's probe fails. Any time limit gives the same result.
        let probe = node.output("curl", &["-sSf", "--max-time", "2", "http://127.0.0.1:10256/livez"])?;
        ensure!(!probe.status.success(), "a daemon that cannot open files says that it is healthy");
        still_held(&mut held)?;
        State::read(node)?.ensure_is(&before)?;
        proxy.check_alive()?;

        limit_descriptors(&proxy, getrlimit(Resource::Nofile).maximum)?;
        await_rolled_out(cluster)?;
        eventually(|| ensure_healthy(cluster))?;
        still_held(&mut held)?;
        foreign.say().map(drop)?;
        Ok(())
    })
}

/// A start with too few descriptors ends with an error or waits. It harms nothing, and the next start completes it.
#[test]
fn start_with_too_few_descriptors_is_completed_by_the_next() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let (_servers, mut foreign) = prepare(cluster)?;
        let node = cluster.at(NODE)?;
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        await_first_sync(node)?;
        let wanted = State::read(node)?;
        let mut held = hold(cluster)?;
        proxy.terminate()?;
        for limit in TOO_FEW {
            let wrapper = ["sh", "-c", &format!("ulimit -n {limit} && exec \"$@\""), "sh"].map(str::to_owned);
            let kube_ipvs = cluster.kube_ipvs(NODE)?.under(&wrapper);
            let mut proxy = kube_ipvs.start(cluster.manifests.directory(), &FLAGS)?;
            let outcome = eventually(|| {
                let log = proxy.log_text();
                ensure!(log.contains("Too many open files") || proxy.check_alive().is_err(), "the log says:\n{log}");
                Ok(log)
            });
            let log = outcome.with_context(|| format!("{limit} descriptors"))?;
            println!("{limit} descriptors: {log}");
            proxy.kill_nine()?;
            let proxy = cluster.start_proxy(NODE, &FLAGS)?;
            await_first_sync(node)?;
            let state = State::read(node)?.ensure_is(&wanted).and_then(|()| still_held(&mut held));
            state.with_context(|| format!("after {limit} descriptors"))?;
            proxy.terminate()?;
        }
        foreign.say().map(drop)?;
        Ok(())
    })
}
