//! Faults in the middle of a plan.

use std::collections::BTreeMap;

use super::FakeKernel;
use crate::{
    kernel::{Cause, Reason},
    plan::{Change, Phase},
};

/// A fault at one change of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strike {
    /// The kernel rejects the change with this errno.
    Refuse(i32),
    /// The kernel neither makes nor answers the change. For an element, this holds for its whole phase, because
    /// nftables commits a phase as a whole.
    Unanswered,
    /// The kernel makes the change, and its answer is lost. For an element, this holds for its whole phase.
    Unconfirmed,
    /// The kernel makes the changes from here to the end of the phase, and its answers are lost.
    Deaf,
    /// kube-ipvs is killed: the kernel makes neither this change nor a later one. For an element, it makes no change of
    /// the phase.
    Kill,
    /// Another program makes these changes first.
    Others(Vec<Change>),
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The change.
    pub change: Change,
    /// Whether another program made it.
    pub by_others: bool,
}

/// The strikes of one plan, by the number of the change.
#[derive(Debug, Default)]
pub(super) struct Aimed {
    at: BTreeMap<usize, Vec<Strike>>,
    is_deaf: bool,
}

impl Aimed {
    pub(super) fn new(strikes: Vec<(usize, Strike)>, changes: usize) -> Self {
        let mut at: BTreeMap<usize, Vec<Strike>> = BTreeMap::new();
        for (number, strike) in strikes {
            at.entry(number % changes).or_default().push(strike);
        }
        Self { at, is_deaf: false }
    }

    /// Prepares the strikes of a phase. Returns whether kube-ipvs is killed before the phase.
    pub(super) fn begin(&mut self, phase: Phase, run: &[(usize, &Change)]) -> bool {
        use Phase::{AddShortCircuits, RemoveElements, RemoveShortCircuits, WriteElements};
        self.is_deaf = false;
        if !matches!(phase, WriteElements | AddShortCircuits | RemoveShortCircuits | RemoveElements) {
            return false;
        }
        let numbers = || run.iter().map(|(number, _)| number);
        let hits = |strike| numbers().any(|number| self.at.get(number).is_some_and(|all| all.contains(&strike)));
        let (is_killed, is_unanswered) = (hits(Strike::Kill), hits(Strike::Unanswered));
        self.is_deaf = hits(Strike::Unconfirmed);
        if is_unanswered {
            self.at.extend(numbers().map(|number| (*number, vec![Strike::Unanswered])));
        }
        is_killed
    }
}

impl FakeKernel {
    /// Makes a change, unless a strike prevents that.
    pub(super) fn make_under(
        &mut self,
        aimed: &mut Aimed,
        number: usize,
        change: &Change,
    ) -> Result<(), (Cause, Reason)> {
        let mut is_unconfirmed = false;
        for strike in aimed.at.remove(&number).into_iter().flatten() {
            match strike {
                // IPVS first looks for the virtual server, and reports that it exists.
                Strike::Refuse(_) if self.has_server_of(change) => {}
                Strike::Refuse(errno) => {
                    let reason = Reason::new(format!("refused by the test (os error {errno})"), Some(errno));
                    return Err((Cause::Refused, reason));
                }
                Strike::Unanswered => return Err((Cause::Unknown, "no answer".into())),
                Strike::Unconfirmed => is_unconfirmed = true,
                Strike::Deaf => aimed.is_deaf = true,
                Strike::Kill => self.is_killed = true,
                Strike::Others(changes) => changes.iter().for_each(|change| self.make_for_others(change)),
            }
        }
        if self.is_killed {
            return Err((Cause::Unknown, KILLED.into()));
        }
        match self.make(change) {
            Ok(()) if is_unconfirmed || aimed.is_deaf => Err((Cause::Unknown, "its answer was lost".into())),
            outcome => outcome,
        }
    }

    /// Makes a change as another program. If the kernel rejects the change, nothing happens.
    pub fn make_for_others(&mut self, change: &Change) {
        if self.ask(change) == Ok(true) {
            self.note_made(change, true);
        }
    }

    pub(super) fn has_server_of(&self, change: &Change) -> bool {
        matches!(change, Change::AddServer { key, .. } if self.virtual_servers.contains_key(key))
    }

    pub(super) fn note_made(&mut self, change: &Change, by_others: bool) {
        self.made.iter_mut().for_each(|made| made.push(Made { change: change.clone(), by_others }));
    }
}

pub(super) const KILLED: &str = "kube-ipvs was killed";
