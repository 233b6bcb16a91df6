//! One endpoint changes: does the time depend on the number of Services?

use anyhow::Result;

use crate::{
    clock::{Spent, milliseconds},
    node::{Node, config, sync},
    report::{Report, quantile},
    rounds::rounds,
    shape::Shape,
};

const FEW: u32 = 10;
const CHANGES: u32 = 200;

pub(crate) fn run(shape: Shape, report: &mut Report) -> Result<()> {
    if shape.services <= FEW {
        println!("\nchange, {shape}: needs more than {FEW} Services");
        return Ok(());
    }
    let mut few = Changing::start("few", shape.with_services(FEW))?;
    let mut many = Changing::start("many", shape)?;
    let [few, many] = rounds(shape, [&mut || few.sample(), &mut || many.sample()])?;

    let of = |samples: &[Spent], time: fn(&Spent) -> std::time::Duration| -> Vec<f64> {
        samples.iter().map(|spent| milliseconds(time(spent))).collect()
    };
    let [few_processor, many_processor] = [&few, &many].map(|samples| of(samples, |spent| spent.processor));
    let all = shape.services;
    let mut table = report.table("change", shape.name, &format!("{shape}, medians of {CHANGES} changes"));
    table.figure(&format!("processor time of one change among {FEW} Services"), "ms", &few_processor);
    table.figure(&format!("processor time of one change among {all} Services"), "ms", &many_processor);
    table.figure(&format!("event to last reply among {FEW} Services"), "ms", &of(&few, |spent| spent.wall));
    table.figure(&format!("event to last reply among {all} Services"), "ms", &of(&many, |spent| spent.wall));
    table.ratio(&format!("processor time among {all} / {FEW} Services"), &many_processor, &few_processor, Some(1.3));
    Ok(())
}

/// A node whose first Service has an endpoint that moves.
struct Changing {
    node: Node,
    shape: Shape,
    is_away: bool,
}

impl Changing {
    fn start(name: &str, shape: Shape) -> Result<Self> {
        Ok(Self { node: Node::start(name, config(), shape.events())?, shape, is_away: false })
    }

    /// The median of many changes.
    fn sample(&mut self) -> Result<Spent> {
        let Self { node, shape, is_away } = self;
        let times = node.enter(|engine, kernel| {
            let change = |_| {
                *is_away = !*is_away;
                sync(engine, kernel, vec![shape.moved(0, *is_away)], Default::default())
            };
            (0..CHANGES).map(change).collect::<Result<Vec<Spent>>>()
        })?;
        let median = |time: fn(&Spent) -> std::time::Duration| {
            let times: Vec<f64> = times.iter().map(|spent| time(spent).as_secs_f64()).collect();
            std::time::Duration::from_secs_f64(quantile(&times, 0.5))
        };
        Ok(Spent { wall: median(|spent| spent.wall), processor: median(|spent| spent.processor) })
    }
}
