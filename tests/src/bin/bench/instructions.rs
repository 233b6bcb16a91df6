//! The engine under valgrind, which counts its instructions: without a kernel, a clock or a system call.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use proxier::ipvs_netlink::VirtualServer;
use proxier::{
    Completeness, Engine, Plan, State, SyncReport,
    kernel::{ConnectionCounts, Kernel, KernelUnavailable, Report},
    model::{Event, VirtualServerKey},
};

use crate::{node::config, shape::Shape};

const CHANGES: u32 = 100;

/// Runs a case: `first-sync SERVICES` or `change SERVICES`. Prints how often it calls [`counted_sync`].
pub(crate) fn run(words: &[String]) -> Result<()> {
    let [case, services] = words else { bail!("bench instructions CASE SERVICES") };
    let shape = Shape::DEFAULT.with_services(services.parse()?);
    let mut engine = Engine::new(config(), BTreeSet::new());
    engine.set_complete(Completeness::Complete);
    let mut kernel = Accepting;
    let is_done = |report: &SyncReport| !report.plan.is_empty() && report.failures.is_empty();
    match case.as_str() {
        "first-sync" => {
            ensure!(is_done(&counted_sync(&mut engine, &mut kernel, shape.events())), "there was nothing to do");
            println!("1");
        }
        "change" => {
            shape.events().into_iter().for_each(|event| engine.apply(event));
            engine.sync(&mut kernel, Duration::ZERO);
            let all = shape.services.min(CHANGES);
            // After its first move, an endpoint drains, so later moves change only weights.
            (0..all).for_each(|service| engine.apply(shape.moved(service, true)));
            engine.sync(&mut kernel, Duration::ZERO);
            for number in 0..CHANGES {
                // Each Service in turn, because the cost depends a little on the place of its name in the hash tables.
                let event = shape.moved(number % all, number / all % 2 == 1);
                ensure!(is_done(&counted_sync(&mut engine, &mut kernel, vec![event])), "there was nothing to do");
            }
            println!("{CHANGES}");
        }
        other => bail!("there is no case {other:?}"),
    }
    Ok(())
}

/// valgrind finds this function by its name, and counts its instructions alone.
#[inline(never)]
fn counted_sync(engine: &mut Engine, kernel: &mut Accepting, events: Vec<Event>) -> SyncReport {
    events.into_iter().for_each(|event| engine.apply(event));
    engine.sync(kernel, Duration::ZERO)
}

/// A kernel that starts empty and accepts every change without any work.
struct Accepting;

impl Kernel for Accepting {
    fn prepare(&mut self) -> Result<(), KernelUnavailable> {
        Ok(())
    }

    fn read_state(&mut self, _: &State) -> Result<State, KernelUnavailable> {
        Ok(State::default())
    }

    fn virtual_servers(
        &mut self,
        _: &[VirtualServerKey],
    ) -> Result<BTreeMap<VirtualServerKey, VirtualServer>, KernelUnavailable> {
        Ok(BTreeMap::new())
    }

    fn connections(&mut self, _: &[VirtualServerKey]) -> Result<ConnectionCounts, KernelUnavailable> {
        Ok(ConnectionCounts::new())
    }

    fn apply(&mut self, _: &Plan) -> Report {
        Report::default()
    }
}
