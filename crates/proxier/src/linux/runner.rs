//! The loop around an engine and its kernel.

use std::{
    iter,
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Instant,
};

use super::{Drift, HostAddresses, LinuxKernel, Settings};
use crate::{
    config::Config,
    engine::{Completeness, Engine, SyncReport},
    kernel::KernelUnavailable,
    model::Event,
    sync_loop::Loop,
};

/// The [`Loop`] of an [`Engine`] and the [`LinuxKernel`] of one network namespace, with a clock.
///
/// For a program that needs nothing else on its thread:
///
/// ```no_run
/// use std::{sync::mpsc, thread};
///
/// use proxier::{Completeness, Config, Runner, Update, linux::Settings, model::{Event, Service, ServiceId}};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runner = Runner::open(Config::new("node-1"), Settings::default())?;
/// let (sender, updates) = mpsc::channel();
/// // A proxy watches Services and EndpointSlices here.
/// thread::spawn(move || {
///     let web = Service::new(ServiceId::new("default", "web"));
///     sender.send(Event::ServiceApplied(web).into())?;
///     sender.send(Update::Complete(Completeness::Complete))
/// });
/// runner.run(updates, |_, report| report.failures.iter().for_each(|failure| eprintln!("{failure}")))?;
/// # Ok(())
/// # }
/// ```
///
/// A program with a loop of its own uses the parts: a [`Loop`], [`HostAddresses`], and the kernel's
/// [`Notices`](super::Notices).
pub struct Runner {
    inner: Loop<LinuxKernel>,
    start: Instant,
}

impl Runner {
    /// Reads the addresses of this host, and opens the kernel, in the network namespace of the calling thread. Changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// If the kernel lacks a subsystem, or rejects a socket.
    pub fn open(config: Config, settings: Settings) -> Result<Self, KernelUnavailable> {
        let addresses = HostAddresses::open(&settings.names)?.read()?;
        let engine = Engine::new(config, addresses);
        let kernel = LinuxKernel::open(engine.config(), settings)?;
        Ok(Self::new(engine, kernel))
    }

    /// A runner of an engine and a kernel that was opened with the engine's [`Config`].
    pub fn new(engine: Engine, kernel: LinuxKernel) -> Self {
        Self { inner: Loop::new(engine, kernel), start: Instant::now() }
    }

    /// Takes in updates, follows the kernel, and syncs when that is due. `synced` gets each report. Returns after the
    /// last sender of `updates` is dropped: the state stays in the kernel and goes on serving.
    ///
    /// Four threads wait for the updates and for the kernel. Those for the kernel end with the process.
    ///
    /// # Errors
    ///
    /// If the kernel reports no changes any more. Start the program again, because drift stays unseen otherwise.
    pub fn run(
        mut self,
        updates: Receiver<Update>,
        mut synced: impl FnMut(&Engine, SyncReport),
    ) -> Result<(), KernelUnavailable> {
        let (sender, inputs) = mpsc::channel();
        self.follow_kernel(&sender)?;
        spawn("updates", move || {
            let all_taken = updates.into_iter().all(|update| sender.send(Input::Update(update)).is_ok());
            let _ = all_taken && sender.send(Input::End).is_ok();
        })?;
        loop {
            let first = self.wait(&inputs);
            for input in first.into_iter().chain(inputs.try_iter()) {
                match input {
                    Input::Update(Update::Event(event)) => self.inner.apply(event),
                    Input::Update(Update::Complete(completeness)) => self.inner.set_complete(completeness),
                    Input::Drift(drifts) => self.inner.notify(&drifts, self.start.elapsed()),
                    Input::Failed(unavailable) => return Err(unavailable),
                    Input::End => return Ok(()),
                }
            }
            if let Some(report) = self.inner.sync_if_due(|| self.start.elapsed()) {
                synced(self.inner.engine(), report);
            }
        }
    }

    /// The next input. None if a sync is due before one comes.
    fn wait(&self, inputs: &Receiver<Input>) -> Option<Input> {
        match self.inner.due() {
            Some(due) => inputs.recv_timeout(due.saturating_sub(self.start.elapsed())).ok(),
            // It fails only if all threads have ended, and each of them would have sent why.
            None => inputs.recv().ok(),
        }
    }

    /// Starts the threads that follow the addresses of this host and the kernel's notices.
    fn follow_kernel(&mut self, sender: &Sender<Input>) -> Result<(), KernelUnavailable> {
        let mut host = HostAddresses::open(self.inner.kernel().names())?;
        let (mut addresses, to_loop) = (host.read()?, sender.clone());
        spawn("addresses", move || {
            while to_loop.send(Input::Update(Event::NodeAddresses(addresses).into())).is_ok() {
                // If a read fails, the addresses read last stay in force, and the next wait tries again.
                addresses = iter::repeat_with(|| host.wait()).find_map(Result::ok).unwrap_or_default();
            }
        })?;
        for mut notices in self.inner.kernel().notices()? {
            let to_loop = sender.clone();
            spawn("notices", move || {
                let mut input = || notices.wait().map_or_else(Input::Failed, Input::Drift);
                while to_loop.send(input()).is_ok() {}
            })?;
        }
        Ok(())
    }
}

/// An input of a [`Runner`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Update {
    /// As [`Loop::apply`].
    Event(Event),
    /// As [`Loop::set_complete`].
    Complete(Completeness),
}

impl From<Event> for Update {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

enum Input {
    Update(Update),
    Drift(Vec<Drift>),
    Failed(KernelUnavailable),
    End,
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), KernelUnavailable> {
    let spawned = thread::Builder::new().name(name.into()).spawn(work);
    spawned.map(drop).map_err(|error| KernelUnavailable::new("cannot start a thread", error))
}
