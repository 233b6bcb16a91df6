//! Compares ways to make addresses local: how the times to bind and unbind them grow with their number. There is no
//! goal.

mod way;

use anyhow::Result;

use crate::{node::Place, report::Report, rounds::rounds, shape::Shape};
use way::Way;

const SIZES: [u32; 7] = [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000];
/// From this size on, a round takes minutes on an emulated kernel.
const LARGE: u32 = 16_000;

/// Milliseconds for each 1,000 addresses.
#[derive(Clone, Copy)]
struct Sample {
    bind: f64,
    unbind: f64,
}

pub(crate) fn run(report: &mut Report) -> Result<()> {
    for size in SIZES {
        let (rounds_of_size, warm_up) = if size < LARGE { (5, 1) } else { (1, 0) };
        let shape = Shape { rounds: rounds_of_size, warm_up, ..Shape::DEFAULT };
        let sample = |way: Way| -> Result<Sample> {
            let place = Place::new("addresses")?;
            let (bind, unbind) = place.enter(|| way.measure(size))?;
            let each = |time: std::time::Duration| time.as_secs_f64() * 1000.0 / f64::from(size / 1000);
            Ok(Sample { bind: each(bind), unbind: each(unbind) })
        };
        let [mut device, mut routes, mut devices] = Way::ALL.map(|way| move || sample(way));
        let samples = rounds(shape, [&mut device, &mut routes, &mut devices])?;

        let mut table = report.table("addresses", &size.to_string(), &format!("{size} addresses, time for each 1,000"));
        for (way, samples) in Way::ALL.iter().zip(&samples) {
            let of = |time: fn(&Sample) -> f64| samples.iter().map(time).collect::<Vec<f64>>();
            table.figure(&format!("{way}: bind"), "ms", &of(|sample| sample.bind));
            table.figure(&format!("{way}: unbind"), "ms", &of(|sample| sample.unbind));
        }
    }
    Ok(())
}
