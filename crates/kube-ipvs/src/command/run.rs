use std::{
    ops::ControlFlow,
    process::ExitCode,
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context;
use proxier::linux::TrafficReader;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    RunArgs, Source,
    config_file::ConfigFile,
    inbox::Inbox,
    log,
    sync_loop::{Input, SyncLoop},
    watchdog,
};
use crate::{
    config::{LoadedConfig, OwnFlags},
    events::{self, EventRecorder},
    host,
    recording::{self, Recorded, Recording},
    runtime,
    serve::{self, Status},
    source::{Changes, addresses, manifests},
};

pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let LoadedConfig { configuration, warnings, without_effect, flags, file } = args.options.resolve()?;
    log::start(&configuration.logging);
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if !without_effect.is_empty() {
        tracing::info!("these settings have no effect in kube-ipvs: {}", without_effect.join(", "));
    }
    let _claim = super::claim::claim()?;
    let source = args.open(&configuration)?;
    let config = super::engine_config(&configuration)?;
    let addresses = addresses::list()?;
    // It loads the modules whose parameters are set next.
    let mut kernel = super::kernel(&config, configuration.kernel())?;
    // Where they cannot be read, the first sync says so.
    kernel.dropping_chains().iter().flatten().for_each(|chain| tracing::warn!("{chain}"));
    host::prepare(&configuration).iter().for_each(|failure| tracing::warn!("{failure}"));
    let (sender, inputs) = channel();
    let status = Arc::new(Status::new(&configuration));
    let (to_serve, published) = (configuration.clone(), Arc::clone(&status));
    let mut traffic = TrafficReader::open().context("cannot read the counters of Services")?;
    let serving = follow("serve", sender.clone(), move |owner| {
        let owner = owner.clone();
        // An owner thread that has ended answers no call.
        let call = move |call| drop(owner.send(Input::Call(call)));
        let (read, limits) = (move |keys: &[_]| traffic.read(keys), serve::Limits::default());
        runtime::of_this_thread()?.block_on(serve::run(&to_serve, &flags, published, call, read, limits))
    })?;
    if let Some(file) = file.map(ConfigFile::new) {
        let args = args.clone();
        follow("config", sender.clone(), move |owner| {
            file.follow(&args, owner);
            Ok(())
        })?;
    }
    follow("signals", sender.clone(), follow_signals)?;
    let (to_post, event_notes) = tokio::sync::mpsc::channel(events::QUEUE_CAPACITY);
    let inbox = Inbox::new(Arc::clone(&status));
    let to_owner = sender.clone();
    match source {
        Source::Manifests(manifests) => {
            follow("manifests", to_owner, move |owner| {
                manifests::follow(*manifests, |changes| deliver(owner, &inbox, changes));
                Ok(())
            })?;
        }
        Source::Kubernetes(kubernetes) => {
            let kubernetes = kubernetes.with_contact(status.contact());
            let (for_events, of_version, published) = (kubernetes.clone(), kubernetes.clone(), Arc::clone(&status));
            follow("events", sender.clone(), move |_| {
                runtime::of_this_thread()?.block_on(async {
                    tokio::select! {
                        outcome = for_events.record(event_notes) => outcome,
                        outcome = of_version.follow_version(|version| published.serves(version)) => outcome,
                    }
                })
            })?;
            follow("kubernetes", to_owner, move |owner| {
                runtime::of_this_thread()?.block_on(kubernetes.follow(|changes| deliver(owner, &inbox, changes)))
            })?;
        }
    }
    for mut notices in kernel.notices().context("cannot subscribe to the kernel's notices")? {
        follow("drift", sender.clone(), move |owner| {
            loop {
                let drifts = notices.wait()?;
                if !drifts.is_empty() && owner.send(Input::Drift(drifts)).is_err() {
                    return Ok(());
                }
            }
        })?;
    }
    follow("host", sender, follow_host)?;
    let recorder = EventRecorder::new(to_post);
    let pulse = watchdog::watch(watchdog::HANG_TIMEOUT, watchdog::end_process)?;
    let looper = Recorded::new(config, addresses, kernel, record(&configuration.own));
    let owner = SyncLoop::new(looper, &inputs, pulse, &configuration, &status, recorder);
    let outcome = owner.run();
    finish(&status, &serving);
    outcome
}

/// A recording that cannot begin does not keep kube-ipvs from serving.
fn record(own: &OwnFlags) -> Option<Recording> {
    let path = own.record.as_ref()?;
    match recording::create(path) {
        Ok(file) => Some(Recording::new(file, u64::from(own.record_limit.get().unsigned_abs()) << 20)),
        Err(error) => {
            tracing::warn!("kube-ipvs does not record: {error:#}");
            None
        }
    }
}

/// Starts a thread that sends inputs to the sync loop.
fn follow(
    name: &str,
    owner: Sender<Input>,
    work: impl FnOnce(&Sender<Input>) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<JoinHandle<()>> {
    let thread = thread::Builder::new().name(name.into()).spawn(move || {
        let owner = TellsOfPanic(owner);
        if let Err(error) = work(&owner.0) {
            let _ = owner.0.send(Input::Failed(error));
        }
    })?;
    Ok(thread)
}

/// At the end, the HTTP server has so much time for the responses that it has begun.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Waits for responses in progress, up to [`SHUTDOWN_TIMEOUT`].
fn finish(status: &Status, serving: &JoinHandle<()>) {
    status.finish();
    let start = Instant::now();
    while !serving.is_finished() && start.elapsed() < SHUTDOWN_TIMEOUT {
        thread::sleep(Duration::from_millis(10));
    }
}

fn deliver(owner: &Sender<Input>, inbox: &Inbox, changes: Changes) -> ControlFlow<()> {
    if inbox.put(changes) && owner.send(Input::Changes(inbox.clone())).is_err() {
        return ControlFlow::Break(());
    }
    ControlFlow::Continue(())
}

/// A sender that reports a panic of its thread. Otherwise the daemon would go on, look healthy, and follow nothing.
struct TellsOfPanic(Sender<Input>);

impl Drop for TellsOfPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            let name = thread::current().name().unwrap_or_default().to_owned();
            let _ = self.0.send(Input::Failed(anyhow::anyhow!("the thread {name:?} panicked")));
        }
    }
}

fn follow_host(owner: &Sender<Input>) -> anyhow::Result<()> {
    addresses::follow(|event| owner.send(Input::Addresses(event)).is_ok())
}

fn follow_signals(owner: &Sender<Input>) -> anyhow::Result<()> {
    runtime::of_this_thread()?.block_on(obey(owner))
}

/// At the first signal, the sync loop finishes its sync and ends. At the second one, the process ends at once.
async fn obey(owner: &Sender<Input>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut next = async || {
        tokio::select! {
            _ = terminate.recv() => SignalKind::terminate(),
            _ = interrupt.recv() => SignalKind::interrupt(),
        }
    };
    next().await;
    owner.send(Input::Stop)?;
    let second = next().await;
    tracing::warn!("kube-ipvs received a second signal and exits at once. The kernel's state stays and keeps serving");
    std::process::exit(128 + second.as_raw_value())
}
