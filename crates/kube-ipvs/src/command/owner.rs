//! The loop of the one thread that owns the kernel.

use std::{
    mem::take,
    process::ExitCode,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::Context;
use proxier::{Engine, Turn, linux::LinuxKernel, model::Event};

use super::{
    Clock,
    takeover::{Progress, Succession},
};
use crate::{
    announce::Announcer,
    config::Configuration,
    serve::{Call, Measuring, Status, Taken},
    source::Changes,
};

/// What reaches the thread that owns the kernel.
pub(super) enum Input {
    World(Changes),
    Addresses(Event),
    /// Who answers over HTTP wants something.
    Call(Call),
    Stop,
    Failed(anyhow::Error),
}

/// The loop of the thread that owns the kernel: wait for input, take it all in, take a turn. After a turn that changed
/// something the next one comes no earlier than `ipvs.minSyncPeriod` later.
pub(super) fn own(
    mut engine: Engine,
    mut kernel: LinuxKernel,
    inputs: &Receiver<Input>,
    configuration: &Configuration,
    status: &Status,
    mut announcer: Announcer,
) -> anyhow::Result<ExitCode> {
    let clock = Clock::start();
    let pause = configuration.ipvs.min_sync_period.0;
    let mut measuring = Measuring::new(configuration);
    let mut succession = Succession::new(configuration);
    let (mut earliest, mut has_news) = (Duration::ZERO, false);
    // No turn before both are known: what nobody wants is removed.
    let (mut has_world, mut has_addresses) = (false, false);
    let (mut taken, mut asks, mut unread) = (Taken::default(), Vec::new(), Vec::new());
    loop {
        let complete = has_world && has_addresses;
        let first = if complete {
            let due = if has_news { Duration::ZERO } else { engine.next_turn() };
            let due = succession.due().unwrap_or(Duration::MAX).min(due.max(earliest));
            match inputs.recv_timeout(due.saturating_sub(clock.now())) {
                Err(RecvTimeoutError::Timeout) => None,
                input => Some(input.context("all sources have ended")?),
            }
        } else {
            Some(inputs.recv().context("all sources have ended")?)
        };
        for input in first.into_iter().chain(inputs.try_iter()) {
            match input {
                Input::World(mut changes) => {
                    (has_news, has_world) = (true, true);
                    status.taken(&changes);
                    taken.add(&changes);
                    let (uids, what) = (take(&mut changes.uids), take(&mut changes.announcements));
                    announcer.told(uids, what, clock.now());
                    unread = take(&mut changes.unread);
                    take_in(&mut engine, changes);
                }
                Input::Addresses(event) => {
                    (has_news, has_addresses) = (true, true);
                    engine.event(event);
                }
                Input::Call(Call::Measure(ask)) => asks.push(ask),
                Input::Call(Call::Announce(announcement)) => announcer.announce(announcement, clock.now()),
                Input::Failed(error) => return Err(error),
                Input::Stop => {
                    tracing::info!("stopping; what is in the kernel stays and goes on serving");
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
        let mut has_turned = false;
        let is_due = has_news || engine.next_turn() <= clock.now();
        if has_world && has_addresses && is_due && clock.now() >= earliest {
            has_news = false;
            let start = Instant::now();
            let turn = engine.turn(&mut kernel, clock.now());
            status.turned(&engine, &turn, take(&mut taken), start, kernel.take_meter());
            if !turn.plan.is_empty() {
                earliest = clock.now() + pause;
            }
            tell(&turn);
            announcer.turned(&turn, clock.now());
            has_turned = true;
        }
        if has_turned || succession.due().is_some() {
            let progress = if engine.is_settled() { Progress::Settled } else { Progress::Unsettled(&unread) };
            succession.go_on(&mut kernel, progress, clock.now(), &mut announcer);
        }
        for ask in asks.drain(..) {
            measuring.measure(ask, &engine, || kernel.traffic(), status);
            status.metered(kernel.take_meter());
        }
    }
}

fn take_in(engine: &mut Engine, changes: Changes) {
    for problem in &changes.problems {
        tracing::error!("{problem}");
    }
    for note in &changes.notes {
        if note.is_prominent() {
            tracing::info!("{note}");
        } else {
            tracing::debug!("{note}");
        }
    }
    engine.set_complete(changes.complete);
    changes.events.into_iter().for_each(|event| engine.event(event));
}

/// Says what a turn did. The changes themselves are for the debug log: a first sync has thousands.
fn tell(turn: &Turn) {
    /// The first failures say what is wrong; ten thousand say no more.
    const MOST: usize = 20;
    if let Some(unusable) = &turn.unusable {
        tracing::error!("{unusable}; trying again");
        return;
    }
    for reason in &turn.skipped {
        tracing::warn!("{reason}");
    }
    for failure in turn.failures.iter().take(MOST) {
        tracing::error!("{failure}; trying again");
    }
    if turn.failures.len() > MOST {
        tracing::error!("and {} more failures", turn.failures.len() - MOST);
    }
    if !turn.plan.is_empty() {
        let failed = turn.failures.len();
        tracing::info!(changes = turn.plan.changes().len(), failed, "synced");
        tracing::debug!("plan:\n{}", turn.plan);
    }
}
