use std::{
    cell::Cell,
    collections::{BTreeMap, VecDeque},
    fmt,
    mem::take,
    time::Duration,
};

use anyhow::bail;
use ipvs_netlink::VirtualServer;
use proxier::{
    Engine, Loop, Plan, State, SyncReport,
    kernel::{ConnectionCounts, Kernel, KernelUnavailable, Report},
    model::VirtualServerKey,
};

use super::{Answer, Entry, kernel::Expected, lines};

/// The engine adds pauses to a time, and a recording can have any time.
const MAX_TIME: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The result of a replay.
#[derive(Debug, Default)]
pub struct Replay {
    /// The plans that this version made, with the time of the sync. Empty plans are left out.
    pub plans: Vec<(Duration, Plan)>,
    /// The first difference from the recording. The replay ends there, because the later answers are for other plans.
    pub difference: Option<Difference>,
}

/// A sync that differs from the recorded one.
#[derive(Debug)]
pub struct Difference {
    /// When the sync began.
    pub at: Duration,
    /// The index of its entry in the recording.
    pub entry: usize,
    /// The recorded plan, and the plan of this version.
    pub plans: [Vec<String>; 2],
    /// The recorded answers to the sync.
    answers: Vec<Answer>,
    text: String,
}

impl Difference {
    /// The recording up to this sync, with the plan of this version. All changes of the plan succeed.
    ///
    /// # Errors
    ///
    /// If the text is not that of the recording.
    pub fn accept(&self, text: &str) -> anyhow::Result<String> {
        let mut lines: Vec<String> = text.split_inclusive('\n').take(self.entry + 1).map(str::to_owned).collect();
        let answers = self.answers.iter().filter(|answer| !matches!(answer, Answer::Applied { .. }));
        let mut entries: Vec<Entry<'_>> = answers.cloned().map(Entry::Answer).collect();
        let [_, plan] = &self.plans;
        if !plan.is_empty() {
            let report = Report::default();
            entries.push(Entry::Answer(Answer::Applied { plan: plan.clone(), report }));
        }
        entries.push(Entry::Synced { end: None });
        for entry in entries {
            lines.push(serde_json::to_string(&entry)? + "\n");
        }
        Ok(lines.concat())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "at {:?} (line {}): {}", self.at, self.entry + 1, self.text)?;
        let [recorded, now] = &self.plans;
        let only = |one: &[String], other: &[String]| -> Vec<String> {
            one.iter().filter(|line| !other.contains(line)).cloned().collect()
        };
        let (before, after) = (only(recorded, now), only(now, recorded));
        if before.is_empty() && after.is_empty() && recorded != now {
            writeln!(f, "the order of the changes differs")?;
        }
        before.iter().try_for_each(|line| writeln!(f, "only in the recording: {line}"))?;
        after.iter().try_for_each(|line| writeln!(f, "only now:              {line}"))
    }
}

/// Feeds the inputs and the kernel's answers of a recording to a new engine, until it differs from the recorded one.
///
/// # Errors
///
/// If the entries are not in the order of a recording.
pub fn replay(entries: &[Entry<'_>]) -> anyhow::Result<Replay> {
    let Some((Entry::Start { config, addresses, anonymous, .. }, _)) = entries.split_first() else {
        bail!("a recording begins with its settings");
    };
    let engine = Engine::new(config.clone().into_owned(), addresses.clone().into_owned());
    let mut looper = Loop::new(engine, Recall { has_other_order: *anonymous, ..Recall::default() });
    let mut replay = Replay::default();
    let mut rest = entries.iter().enumerate().skip(1).peekable();
    while let Some((number, entry)) = rest.next() {
        if let Entry::Notice { at, .. } | Entry::Sync { at, .. } = entry
            && *at > MAX_TIME
        {
            bail!("line {}: no daemon runs for {at:?}", number + 1);
        }
        match entry {
            Entry::Event(event) => looper.apply(event.clone().into_owned()),
            Entry::Complete(completeness) => looper.set_complete(completeness.clone().into_owned()),
            Entry::Notice { at, drifts } => looper.notify(drifts, *at),
            Entry::Sync { at, early } => {
                let mut answers = VecDeque::new();
                while let Some((_, Entry::Answer(answer))) =
                    rest.next_if(|(_, entry)| matches!(entry, Entry::Answer(_)))
                {
                    answers.push_back(answer.clone());
                }
                let end = match rest.next() {
                    Some((_, Entry::Synced { end })) => Some(*end),
                    Some((number, _)) => bail!("line {}: a sync has no end", number + 1),
                    None => None,
                };
                looper.kernel().begin(answers.clone(), end.is_none());
                let report = sync(&mut looper, *at, *early, end.flatten());
                let plan = report.as_ref().map(|report| report.plan.clone()).unwrap_or_default();
                let recall = looper.kernel();
                let difference = recall.end();
                let text = if report.is_none() { Some("no sync is due".to_owned()) } else { difference };
                if !plan.is_empty() {
                    replay.plans.push((*at, plan.clone()));
                }
                if let Some(text) = text {
                    let plans = [take(&mut recall.recorded_plan), lines(&plan)];
                    replay.difference =
                        Some(Difference { at: *at, entry: number, plans, answers: answers.into(), text });
                    return Ok(replay);
                }
            }
            Entry::Start { .. } | Entry::Answer(_) | Entry::Synced { .. } => {
                bail!("line {}: this entry belongs to no sync", number + 1)
            }
        }
    }
    Ok(replay)
}

fn sync(looper: &mut Loop<Recall>, at: Duration, early: bool, end: Option<Duration>) -> Option<SyncReport> {
    let start = Cell::new(Some(at));
    match early {
        true => Some(looper.sync_early(at)),
        false => looper.sync_if_due(|| start.take().or(end).unwrap_or(at)),
    }
}

/// A kernel that gives the recorded answers.
#[derive(Debug, Default)]
struct Recall {
    answers: VecDeque<Answer>,
    /// Whether the recording ends within the sync.
    is_cut: bool,
    recorded_plan: Vec<String>,
    difference: Option<String>,
    /// Whether the changes of a plan can have another order.
    has_other_order: bool,
    expected: Expected,
}

impl Recall {
    fn begin(&mut self, answers: VecDeque<Answer>, is_cut: bool) {
        let plan = answers.iter().find_map(|answer| match answer {
            Answer::Applied { plan, .. } => Some(plan.clone()),
            _ => None,
        });
        self.recorded_plan = plan.unwrap_or_default();
        (self.answers, self.is_cut) = (answers, is_cut);
    }

    /// Ends a sync. Returns the difference from the recorded one.
    fn end(&mut self) -> Option<String> {
        let is_left = self.answers.front().map(|answer| match answer {
            Answer::Applied { .. } => "the plan differs".to_owned(),
            other => format!("the sync has no call with the recorded answer {other:?}"),
        });
        self.difference.take().or(is_left)
    }

    fn lacks(&mut self, call: &str) -> KernelUnavailable {
        if !self.is_cut || !self.answers.is_empty() {
            self.difference.get_or_insert_with(|| format!("the recording has no answer to the call `{call}`"));
        }
        KernelUnavailable::new("the recording", "it has no answer")
    }

    /// An answer that cannot be used with the earlier ones.
    fn broken(&mut self, error: &serde_json::Error) -> KernelUnavailable {
        self.difference.get_or_insert_with(|| format!("the recorded state is invalid: {error}"));
        KernelUnavailable::new("the recording", "it has no answer")
    }
}

impl Recall {
    /// The recorded report, if a plan is the recorded one. If its changes have another order, failures get new numbers.
    fn report(&self, recorded: &[String], mut report: Report, plan: &Plan) -> Option<Report> {
        let now = lines(plan);
        if recorded == now || !self.has_other_order {
            return (recorded == now).then_some(report);
        }
        let numbers: BTreeMap<&String, usize> = now.iter().enumerate().map(|(number, line)| (line, number)).collect();
        for failure in &mut report.failures {
            let line = recorded.get(failure.change)?;
            failure.change = *numbers.get(line)?;
        }
        let (mut recorded, mut now) = (recorded.to_vec(), now.clone());
        recorded.sort();
        now.sort();
        (recorded == now).then_some(report)
    }
}

impl Kernel for Recall {
    fn prepare(&mut self) -> Result<(), KernelUnavailable> {
        match self.answers.pop_front() {
            Some(Answer::Prepared(answer)) => answer,
            _ => Err(self.lacks("prepare")),
        }
    }

    fn read_state(&mut self, _: &State) -> Result<State, KernelUnavailable> {
        match self.answers.pop_front() {
            Some(Answer::State(differences)) => self.expected.with(&differences?).map_err(|error| self.broken(&error)),
            _ => Err(self.lacks("read_state")),
        }
    }

    fn virtual_servers(
        &mut self,
        keys: &[VirtualServerKey],
    ) -> Result<BTreeMap<VirtualServerKey, VirtualServer>, KernelUnavailable> {
        match self.answers.pop_front() {
            Some(Answer::VirtualServers(servers)) => {
                Ok(servers?.unwrap_or_else(|| self.expected.virtual_servers(keys)))
            }
            _ => Err(self.lacks("virtual servers")),
        }
    }

    fn correct_settings(&mut self) -> Result<(), KernelUnavailable> {
        match self.answers.pop_front() {
            Some(Answer::Settings(answer)) => answer,
            _ => Err(self.lacks("correct_settings")),
        }
    }

    fn connections(&mut self, _: &[VirtualServerKey]) -> Result<ConnectionCounts, KernelUnavailable> {
        match self.answers.pop_front() {
            Some(Answer::Connections(counts)) => {
                Ok(counts?.into_iter().map(|(key, to, count)| ((key, to), count)).collect())
            }
            _ => Err(self.lacks("connections")),
        }
    }

    fn apply(&mut self, plan: &Plan) -> Report {
        let report = match self.answers.pop_front() {
            Some(Answer::Applied { plan: recorded, report }) => self.report(&recorded, report, plan),
            None if self.is_cut => Some(Report::default()),
            _ => None,
        };
        if report.is_none() {
            self.difference.get_or_insert_with(|| "the plan differs".to_owned());
        }
        let report = report.unwrap_or_default();
        self.expected.applied(plan, &report);
        report
    }
}
