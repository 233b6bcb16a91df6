//! Shortens a run that fails.

use super::{
    objects::Shape,
    step::{Run, Step, World},
};

/// Removes chunks of steps, and then single steps, as long as the run still fails.
pub(super) fn shrink(run: &Run, fails: impl Fn(&Run) -> bool) -> Run {
    let mut shortest = run.clone();
    let mut size = shortest.steps.len().div_ceil(2).max(1);
    loop {
        let before = shortest.steps.len();
        let mut start = 0;
        while start < shortest.steps.len() {
            let mut shorter = shortest.clone();
            shorter.steps.drain(start..(start + size).min(before).min(shorter.steps.len()));
            if fails(&shorter) {
                shortest = shorter;
            } else {
                start += size;
            }
        }
        match size {
            1 if shortest.steps.len() == before => return simplify(shortest, fails),
            1 => {}
            _ => size = size.div_ceil(2),
        }
    }
}

const SIMPLER: [fn(&mut Shape); 9] = [
    |shape| shape.ports.truncate(1),
    |shape| shape.v6 = false,
    |shape| shape.external = None,
    |shape| (shape.balancer, shape.ranges) = (None, 0),
    |shape| shape.ranges = 0,
    |shape| shape.node_ports = false,
    |shape| shape.affinity = 0,
    |shape| (shape.local, shape.local_inside) = (false, false),
    |shape| shape.hashed = false,
];

/// Simplifies the settings and the Services, as long as the run still fails.
fn simplify(mut run: Run, fails: impl Fn(&Run) -> bool) -> Run {
    let keep_if_fails = |run: &mut Run, simpler: Run| {
        if simpler != *run && fails(&simpler) {
            *run = simpler;
        }
    };
    let plain = Run { world: World::default(), ..run.clone() };
    keep_if_fails(&mut run, plain);
    for index in 0..run.steps.len() {
        for simplify in SIMPLER {
            let mut simpler = run.clone();
            if let Step::Service(shape) = &mut simpler.steps[index] {
                simplify(shape);
            }
            keep_if_fails(&mut run, simpler);
        }
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortest_run_keeps_only_the_steps_that_its_failure_needs() {
        let step = |time| Step::Advance(time);
        let run = Run { world: World { period: 7, ..World::default() }, steps: (0..100).map(step).collect() };
        let needed = [step(3), step(50), step(99)];
        let shortest = shrink(&run, |run| needed.iter().all(|step| run.steps.contains(step)));
        assert_eq!(shortest, Run { world: World::default(), steps: needed.to_vec() });
    }
}
