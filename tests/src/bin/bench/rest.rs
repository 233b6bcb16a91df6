//! The cost of checking the kernel during an hour without changes.

use std::time::Duration;

use anyhow::{Result, ensure};
use proxier::{Engine, linux::LinuxKernel};

use crate::{
    clock::{measure, milliseconds},
    node::{Node, Place, config},
    report::Report,
    rounds::rounds,
    shape::Shape,
};

const HOUR: Duration = Duration::from_secs(3600);

/// One hour after a first sync. Times are in milliseconds.
struct Hour {
    first_sync: f64,
    checks: f64,
    longest: f64,
    audits: f64,
}

pub(crate) fn run(shape: Shape, report: &mut Report) -> Result<()> {
    let mut hour = || {
        let mut node = Node::open(Place::new("rest")?, config())?;
        let first_sync = node.deliver(shape.events())?;
        let hour = node.enter(rest)?;
        Ok(Hour { first_sync: milliseconds(first_sync.processor), ..hour })
    };
    let [hours] = rounds(shape, [&mut hour])?;

    let of = |figure: fn(&Hour) -> f64| hours.iter().map(figure).collect::<Vec<f64>>();
    let (first_sync, checks) = (of(|hour| hour.first_sync), of(|hour| hour.checks));
    let mut table = report.table("rest", shape.name, &format!("{shape}, one hour"));
    table.figure("processor time of a first sync", "ms", &first_sync);
    table.figure("processor time of an hour without changes", "ms", &checks);
    table.figure("the longest sync in it", "ms", &of(|hour| hour.longest));
    table.figure("reads of the whole kernel in it", "reads", &of(|hour| hour.audits));
    table.ratio("an hour without changes / a first sync", &checks, &first_sync, Some(1.0));
    Ok(())
}

/// Makes all syncs of an hour, each when the engine asks for it, without waiting in between.
fn rest(engine: &mut Engine, kernel: &mut LinuxKernel) -> Result<Hour> {
    let mut hour = Hour { first_sync: 0.0, checks: 0.0, longest: 0.0, audits: 0.0 };
    let mut now = engine.next_sync();
    while now <= HOUR {
        let (report, spent) = measure(|| Ok(engine.sync(kernel, now)))?;
        ensure!(report.unavailable.is_none(), "{:?}", report.unavailable);
        ensure!(report.plan.is_empty(), "at {now:?} the engine found a difference:\n{}", report.plan);
        hour.checks += milliseconds(spent.processor);
        hour.longest = hour.longest.max(milliseconds(spent.wall));
        hour.audits += f64::from(u8::from(report.is_full));
        let next = engine.next_sync();
        ensure!(next > now, "at {now:?} the engine asks for the next sync at {next:?}");
        now = next;
    }
    Ok(hour)
}
