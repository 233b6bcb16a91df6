//! An endpoint changes while the engine checks the kernel for drift: does the change wait?

use std::time::Duration;

use anyhow::{Result, ensure};
use proxier::{Config, Engine, linux::LinuxKernel};

use crate::{
    clock::{measure, milliseconds},
    node::{Node, config, sync},
    report::{Report, quantile},
    rounds::rounds,
    shape::Shape,
};

const CHANGES: usize = 500;
const INTERVAL: Duration = Duration::from_millis(100);

pub(crate) fn run(shape: Shape, report: &mut Report) -> Result<()> {
    // Endpoints do not drain. Otherwise the engine would count their connections together with the checks.
    let config = Config { drain_cap: Duration::ZERO, ..config() };
    let mut node = Node::start("verified", config, shape.events())?;
    let (mut now, mut is_away) = (Duration::ZERO, false);
    // Time passes only before every second change. The halves alternate, so that both see the same kernel.
    let mut sample = || {
        let (now, is_away) = (&mut now, &mut is_away);
        node.enter(|engine, kernel| {
            let mut change = |engine: &mut Engine, kernel: &mut LinuxKernel, now| -> Result<f64> {
                *is_away = !*is_away;
                let spent = sync(engine, kernel, vec![shape.moved(0, *is_away)], now)?;
                Ok(milliseconds(spent.wall))
            };
            let [mut alone, mut verified, mut checks] = [const { Vec::new() }; 3];
            for _ in 0..CHANGES {
                alone.push(change(engine, kernel, *now)?);
                *now += INTERVAL;
                verified.push(change(engine, kernel, *now)?);
                while engine.next_sync() <= *now {
                    let (report, spent) = measure(|| Ok(engine.sync(kernel, *now)))?;
                    ensure!(report.unavailable.is_none() && report.plan.is_empty(), "{}", report.plan);
                    checks.push(milliseconds(spent.wall));
                }
            }
            Ok([alone, verified, checks])
        })
    };
    let [samples] = rounds(shape, [&mut sample])?;

    let of = |half: usize, part| samples.iter().map(|halves| quantile(&halves[half], part)).collect::<Vec<f64>>();
    let [alone, verified] = [0, 1].map(|half| of(half, 0.99));
    let mut table = report.table("change-while-verifying", shape.name, &format!("{shape}, {CHANGES} changes each"));
    table.figure("time stands still: median of one change", "ms", &of(0, 0.5));
    table.figure("ten changes a second: median", "ms", &of(1, 0.5));
    table.figure("time stands still: p99", "ms", &alone);
    table.figure("ten changes a second: p99", "ms", &verified);
    table.figure("ten changes a second: longest", "ms", &of(1, 1.0));
    table.figure("the checks between the changes: p90", "ms", &of(2, 0.9));
    table.figure("the checks between the changes: longest", "ms", &of(2, 1.0));
    table.ratio("p99 with checks of the kernel / without", &verified, &alone, Some(2.0));
    Ok(())
}
