use std::{
    ops::ControlFlow,
    process::ExitCode,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
};

use anyhow::Context;
use proxier::{Engine, Turn, linux::LinuxKernel, model::Event};
use tokio::signal::unix::{SignalKind, signal};

use super::{Clock, Source};
use crate::source::{
    addresses,
    manifests::{self, Changes},
};

/// What reaches the thread that owns the kernel.
enum Input {
    Manifests(Changes),
    Addresses(Event),
    Stop,
    Failed(anyhow::Error),
}

pub(super) fn run(source: &Source) -> anyhow::Result<ExitCode> {
    log_to_stderr();
    let manifests = source.open()?;
    let engine = source.engine()?;
    let kernel = source.kernel()?;
    let (sender, inputs) = channel();
    let to_owner = sender.clone();
    thread::Builder::new().name("manifests".into()).spawn(move || {
        let owner = TellsOfPanic(to_owner);
        manifests::follow(manifests, |changes| match owner.0.send(Input::Manifests(changes)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        });
    })?;
    thread::Builder::new().name("host".into()).spawn(move || {
        let owner = TellsOfPanic(sender);
        if let Err(error) = follow_host(&owner.0) {
            let _ = owner.0.send(Input::Failed(error));
        }
    })?;
    serve(engine, kernel, &inputs)
}

/// A way to the owner that tells it when the thread which has it panics. Otherwise the daemon would go on, look
/// healthy, and follow nothing.
struct TellsOfPanic(Sender<Input>);

impl Drop for TellsOfPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            let name = thread::current().name().unwrap_or_default().to_owned();
            let _ = self.0.send(Input::Failed(anyhow::anyhow!("the thread {name:?} panicked")));
        }
    }
}

/// Delivers the host's addresses and its wish that we stop.
fn follow_host(owner: &Sender<Input>) -> anyhow::Result<()> {
    addresses::runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let follow = addresses::follow(|event| owner.send(Input::Addresses(event)).is_ok());
        tokio::select! {
            outcome = follow => outcome,
            _ = terminate.recv() => Ok(owner.send(Input::Stop)?),
            _ = interrupt.recv() => Ok(owner.send(Input::Stop)?),
        }
    })
}

/// The loop of the thread that owns the kernel: wait for input, take it all in, take a turn.
fn serve(mut engine: Engine, mut kernel: LinuxKernel, inputs: &Receiver<Input>) -> anyhow::Result<ExitCode> {
    let clock = Clock::start();
    // No turn before both are known: what nobody wants is removed.
    let (mut has_manifests, mut has_addresses) = (false, false);
    loop {
        let complete = has_manifests && has_addresses;
        let first = if complete {
            match inputs.recv_timeout(engine.next_turn().saturating_sub(clock.now())) {
                Err(RecvTimeoutError::Timeout) => None,
                input => Some(input.context("all sources have ended")?),
            }
        } else {
            Some(inputs.recv().context("all sources have ended")?)
        };
        for input in first.into_iter().chain(inputs.try_iter()) {
            match input {
                Input::Manifests(changes) => {
                    has_manifests = true;
                    take_in(&mut engine, changes);
                }
                Input::Addresses(event) => {
                    has_addresses = true;
                    engine.event(event);
                }
                Input::Failed(error) => return Err(error),
                Input::Stop => {
                    tracing::info!("stopping; what is in the kernel stays and goes on serving");
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
        if has_manifests && has_addresses {
            let turn = engine.turn(&mut kernel, clock.now());
            tell(&turn);
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

fn log_to_stderr() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("KUBE_IPVS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}
