//! The loop of the one thread that owns the kernel.

use std::{
    collections::BTreeSet,
    mem::take,
    ops::ControlFlow,
    process::ExitCode,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::Context;
use proxier::{
    Engine, SyncReport,
    linux::{Drift, LinuxKernel, sysctl},
    model::Event,
};

use super::{
    inbox::{Delivery, Inbox},
    pace::Pace,
    takeover::{Progress, Takeover},
    watchdog::Pulse,
};
use crate::{
    config::Configuration,
    events::{EventRecorder, Line, Lines},
    serve::{Ask, Call, Measuring, Status, Taken},
    source::Changes,
};

/// What reaches the thread that owns the kernel.
pub(super) enum Input {
    Changes(Inbox),
    Addresses(Event),
    /// The kernel reports that another program may have changed what is ours.
    Drift(Vec<Drift>),
    Call(Call),
    Stop,
    Failed(anyhow::Error),
}

/// The thread that owns the kernel, with all that it decides by.
pub(super) struct SyncLoop<'a> {
    engine: Engine,
    kernel: LinuxKernel,
    inputs: &'a Receiver<Input>,
    pulse: Pulse,
    status: &'a Status,
    recorder: EventRecorder,
    lines: Lines,
    measuring: Measuring,
    takeover: Takeover,
    start: Instant,
    /// How long a sync that changed something keeps the next one away (`ipvs.minSyncPeriod`), and until when.
    pause: Duration,
    earliest: Duration,
    /// How soon the kernel is read when it tells of drift.
    pace: Pace,
    /// The same for default routes: one that comes and goes does not delay the repair of what filters.
    gateways_pace: Pace,
    /// Whether the source has delivered all that exists, as far as it can be read. Nothing is synced before.
    has_source: bool,
    /// Whether it was said that pods of other nodes cannot be told apart.
    has_warned_about_pods: bool,
    /// Whether IPVS was told to take up connections that another node had before.
    takes_up_connections: bool,
    /// Whether something has come that no sync has seen.
    has_input: bool,
    /// Of what has come since the last sync, what health and metrics need.
    taken: Taken,
    asks: Vec<Ask>,
    /// The objects that could never be read.
    unread: Vec<Box<str>>,
    /// The troubles that were told last, and when.
    logged_troubles: (Vec<String>, Duration),
}

/// How long a trouble that stays is not told again.
const REMINDER_INTERVAL: Duration = Duration::from_secs(600);

impl<'a> SyncLoop<'a> {
    pub(super) fn new(
        engine: Engine,
        kernel: LinuxKernel,
        inputs: &'a Receiver<Input>,
        pulse: Pulse,
        configuration: &Configuration,
        status: &'a Status,
        recorder: EventRecorder,
    ) -> Self {
        Self {
            engine,
            kernel,
            inputs,
            pulse,
            status,
            recorder,
            lines: Lines::default(),
            measuring: Measuring::new(configuration),
            takeover: Takeover::new(configuration),
            start: Instant::now(),
            pause: configuration.ipvs.min_sync_period.0,
            earliest: Duration::ZERO,
            pace: Pace::default(),
            gateways_pace: Pace::default(),
            has_source: false,
            has_warned_about_pods: false,
            takes_up_connections: false,
            has_input: false,
            taken: Taken::default(),
            asks: Vec::new(),
            unread: Vec::new(),
            logged_troubles: Default::default(),
        }
    }

    /// Waits for input, takes all of it in, syncs; until it is to stop.
    ///
    /// # Errors
    ///
    /// When a source has failed: the process has to be restarted.
    pub(super) fn run(mut self) -> anyhow::Result<ExitCode> {
        loop {
            self.pulse.waits();
            let first = self.wait()?;
            self.pulse.works();
            for input in first.into_iter().chain(self.inputs.try_iter()) {
                if self.take(input)?.is_break() {
                    tracing::info!("stopping; what is in the kernel stays and goes on serving");
                    return Ok(ExitCode::SUCCESS);
                }
            }
            let has_synced = self.is_sync_due();
            if has_synced {
                self.sync();
            }
            if has_synced || self.takeover.due().is_some() {
                self.advance_takeover();
            }
            self.serve_queries();
        }
    }

    /// The next input; none when something is due before one comes.
    fn wait(&self) -> anyhow::Result<Option<Input>> {
        const ENDED: &str = "all sources have ended";
        if !self.has_source {
            return Ok(Some(self.inputs.recv().context(ENDED)?));
        }
        let due = if self.has_input { Duration::ZERO } else { self.engine.next_sync() };
        let due = self.takeover.due().unwrap_or(Duration::MAX).min(due.max(self.earliest));
        match self.inputs.recv_timeout(due.saturating_sub(self.now())) {
            Err(RecvTimeoutError::Timeout) => Ok(None),
            input => Ok(Some(input.context(ENDED)?)),
        }
    }

    /// Takes one input in; breaks off when it says so.
    fn take(&mut self, input: Input) -> anyhow::Result<ControlFlow<()>> {
        match input {
            Input::Changes(inbox) => {
                if let Some(Delivery { changes, taken, .. }) = inbox.take() {
                    (self.has_input, self.has_source) = (true, true);
                    self.taken.join(taken);
                    self.take_in(changes);
                }
            }
            Input::Addresses(event) => {
                self.has_input = true;
                self.engine.apply(event);
            }
            Input::Drift(drifts) => {
                let is_ours = |drift: &Drift| match drift {
                    Drift::Any => true,
                    Drift::Gateways => false,
                    // What we take off ourselves is not ours any more when its notice comes.
                    Drift::Unbound(address) => self.engine.has_bound(*address),
                };
                let now = self.now();
                if drifts.iter().any(is_ours) {
                    self.engine.verify_at(self.pace.noticed(now));
                }
                if drifts.contains(&Drift::Gateways) {
                    self.engine.verify_at(self.gateways_pace.noticed(now));
                }
            }
            Input::Call(Call::Measure(ask)) => self.asks.push(ask),
            Input::Call(Call::Record(event_note)) => {
                self.lines.recorded(&event_note, self.now()).iter().for_each(Line::log);
                self.recorder.record(event_note, self.now());
            }
            Input::Failed(error) => return Err(error),
            Input::Stop => return Ok(ControlFlow::Break(())),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn take_in(&mut self, changes: Changes) {
        let Changes { events, complete, problems, notes, event_notes, uids, unread, .. } = changes;
        self.recorder.told(uids, event_notes, self.now());
        self.unread = unread;
        self.lines.problems(&problems, self.now()).iter().for_each(Line::log);
        for note in &notes {
            if note.is_prominent() {
                tracing::info!("{note}");
            } else {
                tracing::debug!("{note}");
            }
        }
        self.engine.set_complete(complete);
        events.into_iter().for_each(|event| self.engine.apply(event));
    }

    fn is_sync_due(&self) -> bool {
        let now = self.now();
        self.has_source && now >= self.earliest && (self.has_input || self.engine.next_sync() <= now)
    }

    fn sync(&mut self) {
        self.has_input = false;
        let (start, now) = (Instant::now(), self.now());
        let report = self.engine.sync(&mut self.kernel, now);
        let (taken, meter) = (take(&mut self.taken), self.kernel.take_meter());
        self.status.record_sync(&self.engine, &report, taken, start, meter);
        if !report.plan.is_empty() {
            self.earliest = self.now() + self.pause;
        }
        self.lines.record_sync(&report, self.now()).iter().for_each(Line::log);
        self.log_report(&report);
        if !self.takes_up_connections && self.engine.takes_up_connections() {
            self.take_up_connections();
        }
        if report.whole && !self.has_warned_about_pods {
            self.warn_about_pods();
        }
        self.log_troubles();
        self.recorder.record_sync(&report, self.now());
    }

    /// Has IPVS take up connections that another node had before, once a Service asks for it.
    fn take_up_connections(&mut self) {
        self.takes_up_connections = true;
        let consequence = "connections end when an address moves to this node, also those of Services with the scheduler \
                           mh and forwarding without NAT";
        if let Err(error) = sysctl::set("net/ipv4/vs/sloppy_tcp", "1", consequence) {
            tracing::warn!("{error}");
        }
    }

    fn warn_about_pods(&mut self) {
        for family in self.engine.cluster().untold_pods() {
            self.has_warned_about_pods = true;
            tracing::warn!(
                "{family} pods of other nodes are taken for pods of this one where a Service has externalTrafficPolicy: \
                 Local: this Node has no range in spec.podCIDRs in which this host has an address; they reach all \
                 endpoints, and not with their own address"
            );
        }
    }

    /// Tells of what does not stop everything and yet needs an operator: at once, and again while it stays.
    fn log_troubles(&mut self) {
        let (now, troubles) = (self.now(), self.kernel.troubles());
        let (told, at) = &self.logged_troubles;
        if *told != troubles || !troubles.is_empty() && now.saturating_sub(*at) >= REMINDER_INTERVAL {
            troubles.iter().for_each(|trouble| tracing::warn!("{trouble}"));
            self.logged_troubles = (troubles, now);
        }
    }

    fn advance_takeover(&mut self) {
        let now = self.now();
        let progress = match self.engine.is_converged() {
            true => Progress::Settled,
            false => Progress::Unsettled(&self.unread),
        };
        self.takeover.advance(&mut self.kernel, progress, now, &mut self.recorder);
    }

    /// Says what a sync did. The changes themselves are for the debug log: a first sync has thousands.
    fn log_report(&mut self, report: &SyncReport) {
        if let Some(unavailable) = &report.unavailable {
            tracing::error!("{unavailable}; trying again");
            return;
        }
        if report.plan.is_empty() {
            return;
        }
        let (changes, failed) = (report.plan.changes().len(), report.failures.len());
        let services = self.engine.services_of(report);
        match names(&services) {
            Some(services_text) if self.lines.synced(&services, self.now()) => {
                tracing::info!(services = %services_text, changes, failed, "synced");
            }
            _ => tracing::debug!(changes, failed, "synced"),
        }
        tracing::debug!("plan:\n{}", report.plan);
    }

    /// Time since the start: the engine has no clock of its own.
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn serve_queries(&mut self) {
        for ask in self.asks.drain(..) {
            self.measuring.measure(ask, &self.engine, || self.kernel.traffic(), self.status);
            self.status.metered(self.kernel.take_meter());
        }
    }
}

/// The first names, and how many more there are; none if there are none.
fn names<T: ToString>(all: &BTreeSet<T>) -> Option<String> {
    const MAX_NAMES: usize = 5;
    let first: Vec<String> = all.iter().take(MAX_NAMES).map(ToString::to_string).collect();
    let more = all.len().saturating_sub(MAX_NAMES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!first.is_empty()).then(|| first.join(", ") + &more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_to_five_services_are_named() {
        for (count, expected) in [
            (0, None),
            (1, Some("1")),
            (5, Some("1, 2, 3, 4, 5")),
            (6, Some("1, 2, 3, 4, 5 and 1 more")),
            (700, Some("1, 2, 3, 4, 5 and 695 more")),
        ] {
            let all: BTreeSet<u32> = (1..=count).collect();
            assert_eq!(names(&all).as_deref(), expected);
        }
    }
}
