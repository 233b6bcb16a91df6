//! Faults of the kernel while kube-ipvs reads and writes it, at each netlink send and each reply: of a first sync, of a
//! roll-out and of a resync. `takeover::faults` has those of a takeover.

mod state;
mod strace;

use anyhow::{Context, Result, ensure};
use scenarios::{Cluster, Conversation, Proxy, Server, Service, Slice, TestResult, Transport, eventually, scenario};

pub(crate) use state::{FOREIGN, State, add_foreign};
use strace::Fault;
pub(crate) use strace::{Log, choose};

use crate::{
    common::{WEB, all_web, await_first_sync, web_cluster, web_slice},
    restart::{drift, hold, still_held},
};

pub(crate) const NODE: &str = "node-3";

/// Two states of the Services: before and after a roll-out. A pod of `web` leaves, `second` moves, `third` comes.
fn objects(is_after: bool) -> String {
    let web = Service::new("web").node_port_type().cluster_ip("10.96.0.80");
    let web = web.port_line("port: 80, targetPort: 8080, nodePort: 30080");
    let second = Service::new("second").cluster_ip("10.96.0.81").port(80);
    let (pods, pod) = if is_after { (vec!["web-1", "web-2"], "10.244.2.2") } else { (all_web(), "10.244.1.2") };
    let second_slice = Slice::of("second").port(8080).ready(pod);
    let mut all = format!("{web}---\n{}---\n{second}---\n{second_slice}", web_slice(&pods));
    if is_after {
        let third = Service::new("third").cluster_ip("10.96.0.82").port(80);
        all += &format!("---\n{third}---\n{}", Slice::of("third").port(8080).ready("10.244.2.3"));
    }
    all
}

pub(crate) fn deploy(cluster: &Cluster, is_after: bool) -> Result<()> {
    cluster.manifests.write("all", &objects(is_after))
}

pub(crate) fn prepare(cluster: &Cluster) -> Result<(Vec<Server>, Conversation)> {
    let servers = all_web().iter().map(|pod| cluster.echo(pod, Transport::Tcp, 8080)).collect::<Result<_>>()?;
    let node = cluster.at(NODE)?;
    add_foreign(node, "10.244.1.2:8080")?;
    deploy(cluster, false)?;
    Ok((servers, cluster.at("visitor")?.connect(Transport::Tcp, FOREIGN)?))
}

/// Waits until a roll-out is complete and its removed endpoint without connections is gone.
pub(crate) fn await_rolled_out(cluster: &Cluster) -> Result<()> {
    let node = cluster.at(NODE)?;
    node.await_service(WEB, &["10.244.1.2:8080 1", "10.244.2.2:8080 1", "10.244.2.3:8080 0"])?;
    node.await_service("TCP 10.96.0.81:80", &["10.244.2.2:8080 1"])?;
    node.await_service("TCP 10.96.0.82:80", &["10.244.2.3:8080 1"]).map(drop)
}

pub(crate) fn ensure_healthy(cluster: &Cluster) -> Result<()> {
    let node = cluster.at(NODE)?;
    ["healthz", "livez", "readyz"]
        .iter()
        .try_for_each(|path| node.run("curl", &["-sSf", &format!("http://127.0.0.1:10256/{path}")]).map(drop))
}

/// Waits until the daemon has ended or is ready. Restarts it if it has ended, as a kubelet does.
pub(crate) fn await_ready(cluster: &Cluster, mut proxy: Proxy, flags: &[&str]) -> Result<Proxy> {
    let node = cluster.at(NODE)?;
    let has_ended = eventually(|| match proxy.check_alive() {
        Err(_) => Ok(true),
        Ok(()) => node.run("curl", &["-sSf", "http://127.0.0.1:10256/readyz"]).map(|_| false),
    })?;
    if has_ended {
        proxy = cluster.start_proxy(NODE, flags)?;
        await_first_sync(node)?;
    }
    Ok(proxy)
}

/// When the daemon says that it is ready, all Services are served exactly. Only a rejected request can wait longer.
#[test]
fn first_sync_with_a_fault_at_any_call_ends_in_the_same_state() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let (_servers, mut foreign) = prepare(cluster)?;
        let node = cluster.at(NODE)?;
        let log = Log::new(cluster);
        let kube_ipvs = cluster.kube_ipvs(NODE)?;
        let start = |fault| kube_ipvs.clone().under(&log.wrapper(fault)?).start(cluster.manifests.directory(), &[]);
        let proxy = start(None)?;
        await_first_sync(node)?;
        let (wanted, faults) = (State::read(node)?, choose(&log)?);
        proxy.terminate()?;
        println!("{} faults of a first sync", faults.len());
        for (fault, at) in faults {
            println!("{fault:?} at call {at}");
            kube_ipvs.run(&["cleanup"])?;
            let proxy = start(Some((fault, at)))?;
            let outcome = || -> Result<Proxy> {
                log.await_fault(fault, &proxy)?;
                let proxy = await_ready(cluster, proxy, &[])?;
                // One rejected VIP does not keep the node from serving the others: it is retried after readiness.
                if fault == Fault::RequestFails {
                    wanted.awaited(node)?;
                    eventually(|| ensure_healthy(cluster))?;
                } else {
                    State::read(node)?.ensure_is(&wanted)?;
                    ensure_healthy(cluster)?;
                }
                foreign.say()?;
                Ok(proxy)
            };
            outcome().with_context(|| format!("{fault:?} at call {at}"))?.terminate()?;
        }
        Ok(())
    })
}

/// Lets a fault happen while a running daemon carries out each change, again and again. `change` makes the change with
/// this number, and returns the state that must follow.
fn disturb(cluster: &Cluster, flags: &[&str], change: impl Fn(usize) -> Result<State>) -> Result<()> {
    let node = cluster.at(NODE)?;
    let mut foreign = cluster.at("visitor")?.connect(Transport::Tcp, FOREIGN)?;
    let start = || cluster.kube_ipvs(NODE)?.under(&[]).start(cluster.manifests.directory(), flags);
    let mut proxy = start()?;
    await_first_sync(node)?;
    let mut held = hold(cluster)?;
    let log = Log::new(cluster);
    let attached = log.attach(&proxy, None)?;
    change(0)?.awaited(node)?;
    drop(attached);
    let faults = choose(&log)?;
    println!("{} faults", faults.len());
    for (number, (fault, at)) in faults.into_iter().enumerate() {
        println!("{fault:?} at call {at}");
        let attached = log.attach(&proxy, Some((fault, at)))?;
        let wanted = change(number + 1)?;
        let mut outcome = || -> Result<()> {
            log.await_fault(fault, &proxy)?;
            if fault.kills() {
                proxy = start()?;
                await_first_sync(node)?;
            }
            wanted.awaited(node)?;
            still_held(&mut held)?;
            foreign.say()?;
            eventually(|| ensure_healthy(cluster))
        };
        outcome().with_context(|| format!("{fault:?} at call {at}"))?;
        drop(attached);
    }
    proxy.check_alive()
}

/// Roll-outs there and back.
#[test]
fn roll_out_with_a_fault_at_any_call_ends_in_the_same_state() -> TestResult {
    // Only the changes and their failures cause syncs.
    const FLAGS: [&str; 2] = ["--ipvs-sync-period", "1h"];
    scenario(web_cluster(), |cluster| {
        let _servers = prepare(cluster)?;
        let node = cluster.at(NODE)?;
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        await_first_sync(node)?;
        let before = State::read(node)?;
        // With a connection to each pod, as later.
        let _held = hold(cluster)?;
        deploy(cluster, true)?;
        await_rolled_out(cluster)?;
        let after = State::read(node)?;
        ensure!(after != before, "the roll-out changes nothing");
        deploy(cluster, false)?;
        before.awaited(node)?;
        proxy.terminate()?;
        disturb(cluster, &FLAGS, |number| {
            let is_after = number % 2 == 0;
            deploy(cluster, is_after)?;
            Ok(if is_after { after.clone() } else { before.clone() })
        })
    })
}

#[test]
fn resync_with_a_fault_at_any_call_repairs_the_drift() -> TestResult {
    const FLAGS: [&str; 2] = ["--ipvs-sync-period", "1s"];
    const DRIFT: &str = "nft delete table ip kube-ipvs; ip addr del 10.96.0.81/32 dev kube-ipvs0; \
                         ipvsadm -D -t 10.96.0.81:80; ipvsadm -e -t 10.96.0.80:80 -r 10.244.2.2:8080 -m -w 0";
    scenario(web_cluster(), |cluster| {
        let _servers = prepare(cluster)?;
        let node = cluster.at(NODE)?;
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        await_first_sync(node)?;
        let wanted = State::read(node)?;
        proxy.terminate()?;
        disturb(cluster, &FLAGS, |_| {
            drift(node, DRIFT)?;
            Ok(wanted.clone())
        })
    })
}
