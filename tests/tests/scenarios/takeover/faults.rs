//! Faults of the kernel during a takeover.

use anyhow::{Context, Result, ensure};
use scenarios::{Proxy, TestResult, Transport, eventually, scenario};

use super::{
    Backend, FLAGS, NODE, SERVED, await_taken_over, cluster, deploy,
    kube_proxy::{leave_behind, prepare, sets},
};
use crate::faults::{FOREIGN, Log, State, add_foreign, await_ready, choose};

#[test]
fn takeover_with_a_fault_at_any_call_ends_in_the_same_state() -> TestResult {
    scenario(cluster(), |cluster| {
        let _servers = deploy(cluster)?;
        let node = cluster.at(NODE)?;
        prepare(node, Backend::Nft)?;
        add_foreign(node, "10.244.1.2:9090")?;
        let mut foreign = cluster.at("visitor")?.connect(Transport::Tcp, FOREIGN)?;
        let log = Log::new(cluster);
        let kube_ipvs = cluster.kube_ipvs(NODE)?;
        let start = |fault| kube_ipvs.clone().under(&log.wrapper(fault)?).start(cluster.manifests.directory(), &FLAGS);
        let proxy = start(None)?;
        await_taken_over(&proxy)?;
        // kube-proxy's draining endpoint stays until the next look at its connections.
        node.await_service(SERVED[0], &["10.244.1.2:8080 1", "10.244.2.2:8080 1", "10.244.2.3:8080 1"])?;
        cluster.await_settled(NODE, &FLAGS)?;
        let (wanted, faults) = (State::read(node)?, choose(&log)?);
        proxy.terminate()?;
        println!("{} faults of a takeover", faults.len());
        for (fault, at) in faults {
            println!("{fault:?} at call {at}");
            kube_ipvs.run(&["cleanup"])?;
            leave_behind(node, Backend::Nft)?;
            let mut held = cluster.at("visitor")?.connect(Transport::Tcp, "10.96.0.81:7")?;
            let name = held.say()?.name;
            let proxy = start(Some((fault, at)))?;
            let outcome = || -> Result<Proxy> {
                log.await_fault(fault, &proxy)?;
                let proxy = await_ready(cluster, proxy, &FLAGS)?;
                eventually(|| {
                    let sets = sets(node)?;
                    ensure!(sets.is_empty(), "sets of kube-proxy are left: {sets:?}");
                    Ok(())
                })?;
                wanted.awaited(node)?;
                ensure!(held.say()?.name == name, "a connection moved");
                foreign.say()?;
                Ok(proxy)
            };
            outcome().with_context(|| format!("{fault:?} at call {at}"))?.terminate()?;
        }
        Ok(())
    })
}
