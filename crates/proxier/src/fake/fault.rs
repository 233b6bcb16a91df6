//! Faults in the middle of a plan.

use std::collections::BTreeMap;

use super::FakeKernel;
use crate::{
    kernel::{Cause, Reason},
    plan::{Change, Phase},
};

/// A fault at one change of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The kernel rejects the change with this errno.
    Reject(i32),
    /// The kernel neither makes nor answers the change. For an element, this holds for its whole phase, because
    /// nftables commits a phase as a whole.
    Unanswered,
    /// The kernel makes the change, and its answer is lost. For an element, this holds for its whole phase.
    AnswerLost,
    /// The kernel makes the changes from here to the end of the phase, and its answers are lost.
    AnswersLost,
    /// kube-ipvs is killed: the kernel makes neither this change nor a later one. For an element, it makes no change of
    /// the phase.
    Kill,
    /// Another program makes these changes first.
    OtherProgram(Vec<Change>),
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeChange {
    /// The change.
    pub change: Change,
    /// Whether another program made it.
    pub by_other_program: bool,
}

/// The faults of one plan, by the number of the change.
#[derive(Debug, Default)]
pub(super) struct Faults {
    at: BTreeMap<usize, Vec<Fault>>,
    loses_answers: bool,
}

impl Faults {
    pub(super) fn new(all: Vec<(usize, Fault)>, changes: usize) -> Self {
        let mut at: BTreeMap<usize, Vec<Fault>> = BTreeMap::new();
        for (number, fault) in all {
            at.entry(number % changes).or_default().push(fault);
        }
        Self { at, loses_answers: false }
    }

    /// Prepares the faults of a phase. Returns whether kube-ipvs is killed before the phase.
    pub(super) fn begin(&mut self, phase: Phase, run: &[(usize, &Change)]) -> bool {
        use Phase::{AddShortCircuits, RemoveElements, RemoveShortCircuits, WriteElements};
        self.loses_answers = false;
        if !matches!(phase, WriteElements | AddShortCircuits | RemoveShortCircuits | RemoveElements) {
            return false;
        }
        let numbers = || run.iter().map(|(number, _)| number);
        let hits = |fault| numbers().any(|number| self.at.get(number).is_some_and(|all| all.contains(&fault)));
        let (is_killed, is_unanswered) = (hits(Fault::Kill), hits(Fault::Unanswered));
        self.loses_answers = hits(Fault::AnswerLost);
        if is_unanswered {
            self.at.extend(numbers().map(|number| (*number, vec![Fault::Unanswered])));
        }
        is_killed
    }
}

impl FakeKernel {
    /// Makes a change, unless a fault prevents that.
    pub(super) fn make_under(
        &mut self,
        faults: &mut Faults,
        number: usize,
        change: &Change,
    ) -> Result<(), (Cause, Reason)> {
        let mut loses_answer = false;
        for fault in faults.at.remove(&number).into_iter().flatten() {
            match fault {
                // IPVS first looks for the virtual server, and reports that it exists.
                Fault::Reject(_) if self.has_server_of(change) => {}
                Fault::Reject(errno) => {
                    let reason = Reason::new(format!("rejected by the test (os error {errno})"), Some(errno));
                    return Err((Cause::Rejected, reason));
                }
                Fault::Unanswered => return Err((Cause::Unknown, "no answer".into())),
                Fault::AnswerLost => loses_answer = true,
                Fault::AnswersLost => faults.loses_answers = true,
                Fault::Kill => self.is_killed = true,
                Fault::OtherProgram(changes) => changes.iter().for_each(|change| self.make_as_other_program(change)),
            }
        }
        if self.is_killed {
            return Err((Cause::Unknown, KILLED.into()));
        }
        match self.make(change) {
            Ok(()) if loses_answer || faults.loses_answers => Err((Cause::Unknown, "its answer was lost".into())),
            outcome => outcome,
        }
    }

    /// Makes a change as another program. If the kernel rejects the change, nothing happens.
    pub fn make_as_other_program(&mut self, change: &Change) {
        if self.ask(change) == Ok(true) {
            self.note_made(change, true);
        }
    }

    pub(super) fn has_server_of(&self, change: &Change) -> bool {
        matches!(change, Change::AddVirtualServer { key, .. } if self.virtual_servers.contains_key(key))
    }

    pub(super) fn note_made(&mut self, change: &Change, by_other_program: bool) {
        self.made.iter_mut().for_each(|made| made.push(MadeChange { change: change.clone(), by_other_program }));
    }
}

pub(super) const KILLED: &str = "kube-ipvs was killed";
