//! A run: the model cluster, the daemon, its kernel, other programs and clients, on a virtual clock.

mod checks;

use std::{mem::take, sync::Arc, time::Duration};

use jiff::Timestamp;
use proxier::{
    SyncReport,
    fake::{self, FakeKernel, RecordCopy},
    ipvs_netlink::Scheduler,
    linux::Drift,
    plan::Change,
};

use super::{
    Statistics, Violation,
    clients::{Clients, Facts},
    cluster::Cluster,
    daemon::Daemon,
    objects::Which,
    others::{self, Foreign},
    step::{Act, Fault, Step, World},
};
use crate::{
    recording::{Recording, tests::Memory},
    serve::{Status, health::Moment},
};

/// The wall-clock time at which a run begins.
const EPOCH: i64 = 1_700_000_000;
/// If the loop syncs more often than this while no time passes, it does not come to rest.
const MAX_TURNS: usize = 100;

pub(super) struct Simulation<'a> {
    pub(super) world: &'a World,
    pub(super) status: &'a Arc<Status>,
    pub(super) now: Duration,
    wall: i64,
    pub(super) cluster: Cluster,
    pub(super) daemon: Daemon,
    pub(super) clients: Clients,
    pub(super) foreign: Foreign,
    /// The kernel's state before the changes that are being checked.
    shadow: FakeKernel,
    /// Whether the engine cannot know the kernel's state. Since the last complete read, a list had gaps, an answer was
    /// lost, or another program changed the state.
    is_misled: bool,
    has_gaps: bool,
    /// Whether the last complete read had gaps.
    is_gappy: bool,
    /// Whether another program changed the state since the last complete read.
    is_outdated: bool,
    /// Whether the kernel has not taken `no-endpoints` elements since the last complete read, so that kube-ipvs could
    /// not reject connections.
    cannot_reject: bool,
    /// Since when neither a fault nor another program has disturbed the kernel and the loop.
    calm: Duration,
    unreadable: Option<Duration>,
    /// Whether the daemon has received objects that no sync has taken in.
    has_news: bool,
    /// Whether a sync that plans a change breaks a rule.
    pub(super) is_idle: bool,
    pub(super) statistics: Statistics,
    pub(super) recordings: Option<Vec<Memory>>,
}

fn record(recordings: &mut Option<Vec<Memory>>) -> Option<Recording> {
    let memory = Memory::default();
    recordings.as_mut()?.push(memory.clone());
    Some(Recording::new(memory, u64::MAX))
}

impl<'a> Simulation<'a> {
    /// Records each daemon if there are `recordings`.
    pub(super) fn new(world: &'a World, status: &'a Arc<Status>, mut recordings: Option<Vec<Memory>>) -> Self {
        let kernel = empty_kernel(world);
        Self {
            world,
            status,
            now: Duration::from_secs(1),
            wall: EPOCH,
            cluster: Cluster::new(),
            shadow: shadow(&kernel),
            daemon: Daemon::start(world, kernel, status, record(&mut recordings)),
            clients: Clients::default(),
            foreign: Foreign::default(),
            is_misled: false,
            has_gaps: false,
            is_gappy: false,
            is_outdated: false,
            cannot_reject: false,
            calm: Duration::ZERO,
            unreadable: None,
            has_news: false,
            is_idle: false,
            statistics: Statistics::default(),
            recordings,
        }
    }

    pub(super) fn kernel(&mut self) -> &mut FakeKernel {
        self.daemon.looper.kernel()
    }

    fn disturbed(&mut self) {
        self.calm = self.now;
    }

    pub(super) fn moment(&self) -> Moment {
        let wall = self.wall + i64::try_from(self.now.as_secs()).unwrap_or_default();
        Moment { elapsed: self.now, wall: Timestamp::from_second(wall).unwrap_or_default() }
    }

    pub(super) fn step(&mut self, step: &Step) -> Result<(), Violation> {
        self.statistics.steps += 1;
        match step {
            Step::Service(shape) => {
                let created = self.moment().wall.as_second();
                self.cluster.put_service(shape, created);
            }
            Step::DeleteService(service) => self.cluster.delete_service(*service),
            Step::Pod { service, pod, local, state } => self.cluster.put_pod(*service, *pod, *local, *state),
            Step::Gone { service, pod } => self.cluster.remove_pod(*service, *pod),
            Step::Slices { service, parts } => self.cluster.spread_slices(*service, *parts),
            Step::DeleteSlices(service) => self.cluster.delete_slices(*service),
            Step::Invalid { which, service } => self.cluster.spoil(*which, *service),
            Step::Node { pods, leaving } => self.cluster.put_node(*pods, *leaving),
            Step::DeleteNode => self.cluster.api.delete(Which::Node, super::objects::OWN_NODE),
            Step::Cidr(number) => self.cluster.put_cidr(*number),
            Step::DeleteCidr(number) => self.cluster.api.delete(Which::Cidrs, &format!("range-{}", number % 3)),
            Step::Deliver { which, count } => self.deliver(*which, usize::from(*count)),
            Step::DeliverAll => Which::ALL.iter().for_each(|which| self.deliver(*which, usize::MAX)),
            Step::Again { which, back } => {
                let has_news = self.daemon.hear_again(&self.cluster.api, *which, usize::from(*back), self.now);
                self.received(has_news);
            }
            Step::Lose(which) => self.daemon.miss(&self.cluster.api, *which),
            Step::Relist(which) => self.daemon.must_list(*which),
            Step::Outage => self.cluster.api.is_down = true,
            Step::Answers => self.cluster.api.is_down = false,
            Step::Restore(writes) => {
                self.cluster.api.restore(usize::from(*writes));
                Which::ALL.iter().for_each(|which| self.daemon.must_list(*which));
            }
            Step::Advance(time) => self.advance(Duration::from_millis((*time).into()))?,
            Step::Hang(time) => {
                self.now += Duration::from_millis((*time).into());
                self.unreadable = self.unreadable.map(|_| self.now);
                self.disturbed();
            }
            Step::Wall(seconds) => self.wall += i64::from(*seconds),
            Step::Kill => self.restart(),
            Step::Fault { at, kind } => {
                let fault = match kind {
                    Fault::Reject(errno) => fake::Fault::Reject(*errno),
                    Fault::Unanswered => fake::Fault::Unanswered,
                    Fault::AnswerLost => fake::Fault::AnswerLost,
                    Fault::AnswersLost => fake::Fault::AnswersLost,
                    Fault::Kill => fake::Fault::Kill,
                };
                self.kernel().faults.push((usize::from(*at), fault));
            }
            Step::Reject(text) => self.kernel().reject.push(text.clone()),
            Step::Ignore(text) => self.kernel().unanswered.push(text.clone()),
            Step::Unlist(text) => {
                self.kernel().unlisted.push(text.clone());
                self.has_gaps = true;
            }
            Step::Unreadable => {
                self.kernel().unreadable = true;
                self.unreadable.get_or_insert(self.now);
            }
            Step::Calm => self.calm_down(),
            Step::Others(act) => self.others(*act)?,
            Step::During { at, act } => {
                let changes = self.changes_of(*act);
                self.kernel().faults.push((usize::from(*at), fake::Fault::OtherProgram(changes)));
            }
            Step::Open { client, server, inside } => {
                let Self { clients, cluster, daemon, now, world, is_misled, .. } = self;
                let Daemon { looper, known, .. } = daemon;
                let drain = Duration::from_secs(world.drain);
                let facts = Facts { cluster, known, now: *now, drain, kernel: looper.kernel(), is_misled: *is_misled };
                clients.open(*client, *server, *inside, &facts);
            }
            Step::Close(pick) => self.clients.close(*pick),
            Step::Settle => self.settle()?,
        }
        if self.is_disturbed() {
            self.disturbed();
        }
        if !self.daemon.has_source() {
            self.unreadable = self.unreadable.map(|_| self.now);
        }
        self.check_health()
    }

    fn is_disturbed(&mut self) -> bool {
        let FakeKernel { reject, unanswered, unlisted, faults, unreadable, .. } = self.kernel();
        *unreadable || !(reject.is_empty() && unanswered.is_empty() && unlisted.is_empty() && faults.is_empty())
    }

    pub(super) fn calm_down(&mut self) {
        let kernel = self.kernel();
        [&mut kernel.reject, &mut kernel.unanswered, &mut kernel.unlisted].into_iter().for_each(Vec::clear);
        kernel.faults.clear();
        kernel.unreadable = false;
        (self.has_gaps, self.unreadable) = (false, None);
    }

    pub(super) fn deliver(&mut self, which: Which, count: usize) {
        let count = count.min(self.cluster.api.log.len() + 1);
        let has_news = self.daemon.hear(&self.cluster.api, which, count, self.now);
        self.received(has_news);
    }

    fn received(&mut self, has_news: bool) {
        if has_news && self.daemon.has_source() {
            self.has_news = true;
            let Self { clients, daemon, now, .. } = self;
            clients.received(daemon.looper.kernel(), &daemon.known, *now);
        }
    }

    /// Lets time pass, and runs the sync loop whenever a sync is due.
    pub(super) fn advance(&mut self, time: Duration) -> Result<(), Violation> {
        let end = self.now + time;
        let mut turns = 0;
        loop {
            self.clients.count(self.daemon.looper.kernel());
            match self.daemon.turn(self.now) {
                Some(report) => self.after_sync(&report)?,
                None => match self.daemon.looper.due().filter(|due| *due <= end) {
                    Some(due) => (self.now, turns) = (due.max(self.now), 0),
                    None => break,
                },
            }
            turns += 1;
            if turns > MAX_TURNS {
                return Err(Violation::new("rest", format!("the loop does not come to rest at {:?}", self.now)));
            }
        }
        self.now = end;
        Ok(())
    }

    pub(super) fn notice(&mut self, drifts: &[Drift]) {
        self.daemon.looper.notify(drifts, self.now);
    }

    fn restart(&mut self) {
        let mut kernel = take(self.kernel());
        (kernel.is_killed, kernel.faults) = (false, Vec::new());
        // If another program made a virtual server in the middle of a plan, the record can name it. Then the new daemon
        // owns it.
        self.foreign.servers.retain(|key, _| !kernel.is_recorded(*key));
        self.clients.restarted(&kernel);
        let recording = record(&mut self.recordings);
        self.daemon = Daemon::start(self.world, kernel, self.status, recording);
        self.is_misled = false;
        self.unreadable = self.unreadable.map(|_| self.now);
        self.disturbed();
    }

    fn changes_of(&mut self, act: Act) -> Vec<Change> {
        let Self { daemon, foreign, .. } = self;
        let (engine, kernel) = daemon.looper.parts();
        others::changes(act, kernel, engine.known(), foreign)
    }

    /// Another program acts between two syncs.
    fn others(&mut self, act: Act) -> Result<(), Violation> {
        let changes = self.changes_of(act);
        changes.iter().for_each(|change| self.kernel().make_as_other_program(change));
        let made = self.kernel().made.replace(Vec::new()).unwrap_or_default();
        self.check_made(&SyncReport::default(), &made)?;
        match act {
            Act::FlushRuleset => {
                (self.kernel().elements, self.shadow.elements) = (None, None);
                self.clients.lost_short_circuits();
            }
            Act::DeleteDevice => (self.kernel().addresses, self.shadow.addresses) = (None, None),
            _ => {}
        }
        self.is_misled = true;
        self.disturbed();
        // The kernel reports no changes of IPVS, and kube-ipvs ignores reports of new addresses.
        let drifts = made.iter().filter_map(|made| match made.change {
            Change::AddElement { .. } | Change::RemoveElement { .. } => Some(Drift::Any),
            Change::Unbind(address) => Some(Drift::Unbound(address)),
            _ => None,
        });
        let mut drifts: Vec<Drift> = drifts.collect();
        drifts.extend(matches!(act, Act::FlushRuleset | Act::DeleteDevice).then_some(Drift::Any));
        self.notice(&drifts);
        Ok(())
    }
}

/// A kernel without state that records its changes.
pub(super) fn empty_kernel(world: &World) -> FakeKernel {
    FakeKernel {
        missing_schedulers: if world.lacks_sh { vec![Scheduler::SH] } else { Vec::new() },
        record_copy: Some(RecordCopy::default()),
        made: Some(Vec::new()),
        ..FakeKernel::default()
    }
}

fn shadow(kernel: &FakeKernel) -> FakeKernel {
    FakeKernel { record_copy: None, made: None, missing_schedulers: Vec::new(), ..kernel.clone() }
}
