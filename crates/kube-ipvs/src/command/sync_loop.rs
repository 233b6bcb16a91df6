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
    SyncReport,
    kernel::Kernel as _,
    linux::{Drift, LinuxKernel, sysctl},
    model::Event,
};

use super::{
    api_first,
    inbox::{Delivery, Inbox},
    notify::{self, State},
    takeover::{Progress, Takeover},
    watchdog::Pulse,
};
use crate::{
    config::Configuration,
    events::{EventRecorder, Line, LogLines},
    recording::Recorded,
    serve::{Ask, Call, Status, Taken},
    source::Changes,
};

/// An input of the thread that owns the kernel.
pub(super) enum Input {
    Changes(Inbox),
    Addresses(Event),
    /// The kernel reports that another program may have changed something of ours.
    Drift(Vec<Drift>),
    Call(Call),
    Stop,
    Failed(anyhow::Error),
}

/// The thread that owns the kernel.
pub(super) struct SyncLoop<'a> {
    looper: Recorded<LinuxKernel>,
    /// The moment from which the loop counts time.
    start: Instant,
    inputs: &'a Receiver<Input>,
    pulse: Pulse,
    status: &'a Status,
    recorder: EventRecorder,
    lines: LogLines,
    takeover: Takeover,
    has_source: bool,
    /// Whether the log has the warning that pods of other nodes cannot be distinguished.
    has_warned_about_pods: bool,
    /// Whether the service manager knows that the first sync has succeeded.
    has_reported_ready: bool,
    /// Whether `sloppy_tcp` is on, with which IPVS takes up connections that another node had before.
    takes_up_connections: bool,
    /// For health and metrics: the changes since the last sync.
    taken: Taken,
    asks: Vec<Ask>,
    /// The objects of which no version was ever readable.
    unread: Vec<Box<str>>,
    /// The warnings that were logged last, and when.
    logged_warnings: (Vec<String>, Duration),
}

/// A warning that still holds is logged again after this time.
const REMINDER_INTERVAL: Duration = Duration::from_secs(600);

impl<'a> SyncLoop<'a> {
    pub(super) fn new(
        looper: Recorded<LinuxKernel>,
        inputs: &'a Receiver<Input>,
        pulse: Pulse,
        configuration: &Configuration,
        status: &'a Status,
        recorder: EventRecorder,
    ) -> Self {
        Self {
            looper,
            start: Instant::now(),
            inputs,
            pulse,
            status,
            recorder,
            lines: LogLines::default(),
            takeover: Takeover::new(configuration),
            has_source: false,
            has_warned_about_pods: false,
            has_reported_ready: false,
            takes_up_connections: false,
            taken: Taken::default(),
            asks: Vec::new(),
            unread: Vec::new(),
            logged_warnings: Default::default(),
        }
    }

    /// Waits for input, takes all of it in, and syncs. Ends when told to stop.
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
                    notify::send(State::Stopping);
                    tracing::info!("kube-ipvs stops. The kernel's state stays and keeps serving");
                    return Ok(ExitCode::SUCCESS);
                }
            }
            let has_synced = self.sync_if_due();
            if has_synced || self.takeover.due().is_some() {
                self.advance_takeover();
            }
            self.answer_scrapes();
        }
    }

    /// The next input. None if a sync or a step of the takeover is due before one comes.
    fn wait(&self) -> anyhow::Result<Option<Input>> {
        const ENDED: &str = "all sources have ended";
        let Some(due) = self.looper.due() else {
            return Ok(Some(self.inputs.recv().context(ENDED)?));
        };
        let until_sync = due.saturating_sub(self.now());
        let until_takeover = self.takeover.due().map_or(Duration::MAX, |due| due.saturating_sub(self.now()));
        match self.inputs.recv_timeout(until_sync.min(until_takeover)) {
            Err(RecvTimeoutError::Timeout) => Ok(None),
            input => Ok(Some(input.context(ENDED)?)),
        }
    }

    /// Takes in one input. Breaks off if it is [`Input::Stop`].
    fn take(&mut self, input: Input) -> anyhow::Result<ControlFlow<()>> {
        match input {
            Input::Changes(inbox) => {
                if let Some(Delivery { changes, taken, .. }) = inbox.take() {
                    self.taken.join(taken);
                    self.take_in(changes);
                }
            }
            Input::Addresses(event) => self.looper.apply(event),
            Input::Drift(drifts) => {
                let now = self.now();
                self.looper.notice(&drifts, now);
            }
            Input::Call(Call::Measure(ask)) => self.asks.push(ask),
            Input::Call(Call::Record(event_note)) => {
                self.lines.note(&event_note, self.now()).iter().for_each(Line::log);
                self.recorder.record(event_note, self.now());
            }
            Input::Failed(error) => return Err(error),
            Input::Stop => return Ok(ControlFlow::Break(())),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn take_in(&mut self, changes: Changes) {
        let Changes { events, complete, problems, notes, event_notes, uids, unread, .. } = changes;
        self.recorder.take_notes(uids, event_notes, self.now());
        self.unread = unread;
        self.lines.problems(&problems, self.now()).iter().for_each(Line::log);
        for note in &notes {
            if note.is_prominent() {
                tracing::info!("{note}");
            } else {
                tracing::debug!("{note}");
            }
        }
        let events = if self.has_source { events } else { self.serve_api_server(events) };
        self.has_source = true;
        events.into_iter().for_each(|event| self.looper.apply(event));
        self.looper.set_complete(complete);
    }

    /// Serves the API server's Service before all others, unless the kernel serves it already. Returns the events of
    /// the others.
    fn serve_api_server(&mut self, events: Vec<Event>) -> Vec<Event> {
        let (first, rest) = api_first::split(events);
        first.into_iter().for_each(|event| self.looper.apply(event));
        let desired = self.looper.engine().desired(&api_first::api_server());
        let keys: Vec<_> = desired.virtual_servers.into_keys().collect();
        // If the kernel cannot be read, the sync of all Services reports it.
        if self.looper.kernel().virtual_servers(&keys).is_ok_and(|served| served.len() < keys.len()) {
            let now = self.now();
            let report = self.looper.sync_early(now);
            self.lines.record_sync(&report, self.now()).iter().for_each(Line::log);
            self.log_report(&report);
            self.recorder.record_sync(&report, self.now());
        }
        rest
    }

    /// Syncs if a sync is due, and reports the result.
    fn sync_if_due(&mut self) -> bool {
        let start = Instant::now();
        let clock = self.start;
        let Some(report) = self.looper.sync_if_due(|| clock.elapsed()) else { return false };
        let (taken, meter) = (take(&mut self.taken), self.looper.kernel().take_meter());
        self.status.record_sync(self.looper.engine(), &report, taken, start, meter);
        if !self.has_reported_ready && self.status.has_synced() {
            self.has_reported_ready = true;
            notify::send(State::Ready);
        }
        self.lines.record_sync(&report, self.now()).iter().for_each(Line::log);
        self.log_report(&report);
        if !self.takes_up_connections && self.looper.engine().takes_up_connections() {
            self.take_up_connections();
        }
        if report.is_full && !self.has_warned_about_pods {
            self.warn_about_pods();
        }
        self.log_warnings();
        self.recorder.record_sync(&report, self.now());
        true
    }

    /// Makes IPVS take up connections that another node had before. A Service asks for it.
    fn take_up_connections(&mut self) {
        self.takes_up_connections = true;
        let consequence = "connections end when an address moves to this node, even for Services with the scheduler mh \
                           and forwarding without NAT";
        if let Err(error) = sysctl::set("net/ipv4/vs/sloppy_tcp", "1", consequence) {
            tracing::warn!("{error}");
        }
    }

    fn warn_about_pods(&mut self) {
        for family in self.looper.engine().cluster().unidentified_pods() {
            self.has_warned_about_pods = true;
            tracing::warn!(
                "kube-ipvs cannot distinguish {family} pods of other nodes from pods of this node. This host has no \
                 address in a range of its Node's spec.podCIDRs. If a Service has externalTrafficPolicy: Local, pods \
                 of other nodes reach all its endpoints, and kube-ipvs masquerades them"
            );
        }
    }

    /// Logs the warnings that need an operator and do not stop syncs: at once, and again while they last.
    fn log_warnings(&mut self) {
        let (now, warnings) = (self.now(), self.looper.kernel().warnings());
        let (logged, at) = &self.logged_warnings;
        if *logged != warnings || !warnings.is_empty() && now.saturating_sub(*at) >= REMINDER_INTERVAL {
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            self.logged_warnings = (warnings, now);
        }
    }

    fn advance_takeover(&mut self) {
        let now = self.now();
        let progress = match self.looper.engine().is_converged() {
            true => Progress::Settled,
            false => Progress::Unsettled(&self.unread),
        };
        self.takeover.advance(self.looper.kernel(), progress, now, &mut self.recorder);
    }

    /// Logs a sync. The plan goes to the debug log: that of a first sync has thousands of changes.
    fn log_report(&mut self, report: &SyncReport) {
        if let Some(unavailable) = &report.unavailable {
            tracing::error!("{unavailable}; kube-ipvs retries");
            return;
        }
        if report.plan.is_empty() {
            return;
        }
        let (changes, failed) = (report.plan.changes().len(), report.failures.len());
        let services = self.looper.engine().services_of(report);
        match names(&services) {
            Some(services_text) if self.lines.synced(&services, self.now()) => {
                tracing::info!(services = %services_text, changes, failed, "synced");
            }
            _ => tracing::debug!(changes, failed, "synced"),
        }
        tracing::debug!("plan:\n{}", report.plan);
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn answer_scrapes(&mut self) {
        self.asks.drain(..).for_each(|ask| ask.answer(self.looper.engine()));
    }
}

/// The first names, and the number of the others. None if there is no name.
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
