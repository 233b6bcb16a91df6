use std::{
    fs,
    ops::ControlFlow,
    path::Path,
    process::ExitCode,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use anyhow::Context;
use proxier::{Engine, Turn, linux::LinuxKernel, model::Event};
use tokio::signal::unix::{SignalKind, signal};

use super::{Clock, Source, World, log, takeover::Succession};
use crate::{
    config::Resolved,
    host,
    source::{Changes, addresses, kubernetes::KubernetesSource, manifests},
};

/// What reaches the thread that owns the kernel.
enum Input {
    World(Changes),
    Addresses(Event),
    Stop,
    Failed(anyhow::Error),
}

pub(super) fn run(source: &Source) -> anyhow::Result<ExitCode> {
    let Resolved { configuration, warnings, without_effect, file } = source.options.resolve()?;
    log::start(&configuration.logging);
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if !without_effect.is_empty() {
        tracing::info!("without effect here: {}", without_effect.join(", "));
    }
    let world = source.open(&configuration)?;
    let engine = super::engine(&configuration)?;
    // It loads the modules whose parameters are set next.
    let kernel = super::kernel(&configuration)?;
    host::prepare(&configuration).iter().for_each(|failure| tracing::warn!("{failure}"));
    let (sender, inputs) = channel();
    if let Some((path, content)) = file {
        let to_owner = sender.clone();
        let owner = TellsOfPanic(to_owner);
        thread::Builder::new()
            .name("config".into())
            .spawn(move || await_other_content(&owner.0, &path, &content))?;
    }
    let to_owner = sender.clone();
    match world {
        World::Manifests(manifests) => follow("manifests", to_owner, |owner| {
            manifests::follow(manifests, |changes| deliver(owner, changes));
            Ok(())
        })?,
        World::Kubernetes(kubernetes) => {
            follow("kubernetes", to_owner, |owner| follow_kubernetes(*kubernetes, owner))?;
        }
    }
    follow("host", sender, follow_host)?;
    let succession = Succession::new(&configuration);
    serve(engine, kernel, &inputs, configuration.ipvs.min_sync_period.0, succession)
}

/// Starts a thread that tells the owner of something.
fn follow(
    name: &str,
    owner: Sender<Input>,
    work: impl FnOnce(&Sender<Input>) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    thread::Builder::new().name(name.into()).spawn(move || {
        let owner = TellsOfPanic(owner);
        if let Err(error) = work(&owner.0) {
            let _ = owner.0.send(Input::Failed(error));
        }
    })?;
    Ok(())
}

/// How often the configuration's file is looked at.
const LOOK: Duration = Duration::from_secs(3);

/// Waits until the configuration's file says something else, and then has the process end: it is to be started anew.
fn await_other_content(owner: &Sender<Input>, path: &Path, content: &str) {
    // It may be gone for a moment while it is replaced.
    while fs::read_to_string(path).map_or(true, |found| found == content) {
        thread::sleep(LOOK);
    }
    let end = anyhow::anyhow!("{} has changed: ending, to be started anew with it", path.display());
    let _ = owner.send(Input::Failed(end));
}

fn deliver(owner: &Sender<Input>, changes: Changes) -> ControlFlow<()> {
    match owner.send(Input::World(changes)) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

fn follow_kubernetes(kubernetes: KubernetesSource, owner: &Sender<Input>) -> anyhow::Result<()> {
    addresses::runtime()?.block_on(kubernetes.follow(|changes| deliver(owner, changes)))
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

/// The loop of the thread that owns the kernel: wait for input, take it all in, take a turn. After a turn that changed
/// something the next one comes no earlier than `pause` later.
fn serve(
    mut engine: Engine,
    mut kernel: LinuxKernel,
    inputs: &Receiver<Input>,
    pause: Duration,
    mut succession: Succession,
) -> anyhow::Result<ExitCode> {
    let clock = Clock::start();
    let (mut earliest, mut has_news) = (Duration::ZERO, false);
    // No turn before both are known: what nobody wants is removed.
    let (mut has_world, mut has_addresses) = (false, false);
    loop {
        let complete = has_world && has_addresses;
        let first = if complete {
            let due = if has_news { Duration::ZERO } else { engine.next_turn() };
            match inputs.recv_timeout(due.max(earliest).saturating_sub(clock.now())) {
                Err(RecvTimeoutError::Timeout) => None,
                input => Some(input.context("all sources have ended")?),
            }
        } else {
            Some(inputs.recv().context("all sources have ended")?)
        };
        for input in first.into_iter().chain(inputs.try_iter()) {
            has_news = true;
            match input {
                Input::World(changes) => {
                    has_world = true;
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
        if has_world && has_addresses && clock.now() >= earliest {
            has_news = false;
            let turn = engine.turn(&mut kernel, clock.now());
            if !turn.plan.is_empty() {
                earliest = clock.now() + pause;
            }
            tell(&turn);
            succession.go_on(&mut kernel, engine.is_settled(), clock.now());
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
