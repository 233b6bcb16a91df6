//! A kernel whose answers are recorded, and the state that is expected from earlier answers.

use std::collections::{BTreeMap, BTreeSet};

use ipvs_netlink::VirtualServer;
use proxier::{
    Plan, State,
    kernel::{ConnectionCounts, Kernel, KernelUnavailable, Report},
    model::VirtualServerKey,
};
use serde_json::{Map, Value};

use super::{Answer, Entry, Recording, lines};

/// The state after the answers so far. A recording has only the differences from it, so it stays small while nothing
/// changes.
#[derive(Debug, Default)]
pub(super) struct Expected(State);

impl Expected {
    /// The parts of a state that differ from the expected state. From now on, the state is the expected one.
    pub(super) fn differences(&mut self, state: &State) -> serde_json::Result<Map<String, Value>> {
        if *state == self.0 {
            return Ok(Map::new());
        }
        let (mut parts, expected) = (fields(state)?, fields(&self.0)?);
        parts.retain(|name, part| expected.get(name) != Some(part));
        self.0 = state.clone();
        Ok(parts)
    }

    /// The state with these differences. From now on, it is the expected one.
    pub(super) fn with(&mut self, differences: &Map<String, Value>) -> serde_json::Result<State> {
        if !differences.is_empty() {
            let mut parts = fields(&self.0)?;
            parts.extend(differences.clone());
            self.0 = serde_json::from_value(Value::Object(parts))?;
        }
        Ok(self.0.clone())
    }

    pub(super) fn virtual_servers(&self, keys: &[VirtualServerKey]) -> BTreeMap<VirtualServerKey, VirtualServer> {
        let server = |key: &VirtualServerKey| Some((*key, self.0.virtual_servers.get(key)?.config));
        keys.iter().filter_map(server).collect()
    }

    pub(super) fn applied(&mut self, plan: &Plan, report: &Report) {
        let failed: BTreeSet<usize> = report.failures.iter().map(|failure| failure.change).collect();
        let made = plan.changes().iter().enumerate().filter(|(number, _)| !failed.contains(number));
        made.map(|(_, change)| change).chain(&report.amended).for_each(|change| self.0.apply(change));
    }
}

fn fields(state: &State) -> serde_json::Result<Map<String, Value>> {
    match serde_json::to_value(state)? {
        Value::Object(fields) => Ok(fields),
        _ => Ok(Map::new()),
    }
}

/// A kernel whose answers go to a recording, if there is one.
#[derive(Debug)]
pub(super) struct RecordedKernel<K> {
    pub(super) kernel: K,
    recording: Option<(Recording, Expected)>,
}

impl<K> RecordedKernel<K> {
    pub(super) fn new(kernel: K, recording: Option<Recording>) -> Self {
        Self { kernel, recording: recording.map(|recording| (recording, Expected::default())) }
    }

    /// A recording that cannot go on ends. The sync loop goes on.
    pub(super) fn record(&mut self, entry: &Entry<'_>) {
        if let Some((recording, _)) = &mut self.recording
            && let Err(error) = recording.write(entry)
        {
            tracing::warn!("the recording ends: {error}");
            self.recording = None;
        }
    }

    fn answered(&mut self, answer: impl FnOnce(&mut Expected) -> serde_json::Result<Answer>) {
        let Some((_, expected)) = &mut self.recording else { return };
        match answer(expected) {
            Ok(answer) => self.record(&Entry::Answer(answer)),
            Err(error) => {
                tracing::warn!("the recording ends: {error}");
                self.recording = None;
            }
        }
    }
}

impl<K: Kernel> Kernel for RecordedKernel<K> {
    fn prepare(&mut self) -> Result<(), KernelUnavailable> {
        let answer = self.kernel.prepare();
        self.answered(|_| Ok(Answer::Prepared(answer.clone())));
        answer
    }

    fn read_state(&mut self, believed: &State) -> Result<State, KernelUnavailable> {
        let answer = self.kernel.read_state(believed);
        self.answered(|expected| {
            let differences = answer.as_ref().map(|state| expected.differences(state));
            Ok(Answer::State(match differences {
                Ok(differences) => Ok(differences?),
                Err(error) => Err(error.clone()),
            }))
        });
        answer
    }

    fn virtual_servers(
        &mut self,
        keys: &[VirtualServerKey],
    ) -> Result<BTreeMap<VirtualServerKey, VirtualServer>, KernelUnavailable> {
        let answer = self.kernel.virtual_servers(keys);
        self.answered(|expected| {
            let is_expected = |servers: &BTreeMap<_, _>| *servers == expected.virtual_servers(keys);
            let unexpected = answer.clone().map(|servers| Some(servers).filter(|servers| !is_expected(servers)));
            Ok(Answer::VirtualServers(unexpected))
        });
        answer
    }

    fn correct_settings(&mut self) -> Result<(), KernelUnavailable> {
        let answer = self.kernel.correct_settings();
        self.answered(|_| Ok(Answer::Settings(answer.clone())));
        answer
    }

    fn connections(&mut self, servers: &[VirtualServerKey]) -> Result<ConnectionCounts, KernelUnavailable> {
        let answer = self.kernel.connections(servers);
        self.answered(|_| {
            let counts = answer.clone().map(|counts| counts.into_iter().map(|((key, to), count)| (key, to, count)));
            Ok(Answer::Connections(counts.map(Iterator::collect)))
        });
        answer
    }

    fn apply(&mut self, plan: &Plan) -> Report {
        let report = self.kernel.apply(plan);
        self.answered(|expected| {
            expected.applied(plan, &report);
            Ok(Answer::Applied { plan: lines(plan), report: report.clone() })
        });
        report
    }
}
