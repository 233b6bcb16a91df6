//! Runs measurements in rounds. A round takes each of them once, so that a slow or fast minute affects all alike.

use anyhow::Result;

use crate::{clock::settle, shape::Shape};

/// A measurement that returns its sample.
pub(crate) type Load<'a, T> = &'a mut dyn FnMut() -> Result<T>;

/// Returns the samples of each load. The order within a round is random and the same in each run of the benchmark.
pub(crate) fn rounds<T, const N: usize>(shape: Shape, loads: [Load<'_, T>; N]) -> Result<[Vec<T>; N]> {
    let mut samples = [const { Vec::new() }; N];
    let mut order: [usize; N] = std::array::from_fn(|number| number);
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..shape.warm_up + shape.rounds {
        random.shuffle(&mut order);
        for number in order {
            settle()?;
            let sample = loads[number]()?;
            if round >= shape.warm_up {
                samples[number].push(sample);
            }
        }
    }
    Ok(samples)
}
