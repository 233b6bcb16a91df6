//! A kernel in memory, for tests of this crate and of those who embed it.

use std::collections::{BTreeMap, BTreeSet};

use ipvs_netlink::Scheduler;

use crate::{
    cluster::EndpointAddress,
    kernel::{
        Cause, ConnectionCounts, FailedPrerequisites, Failure, Kernel, KernelUnavailable, Reason, Report,
        amends,
    },
    model::VirtualServerKey,
    plan::{Change, Plan},
    state::State,
};

/// A kernel that is a [`State`]. It refuses what a real one refuses: to make what exists and to change or
/// remove what does not.
///
/// ```
/// use proxier::{Config, Engine, fake::FakeKernel, model::Event};
/// use std::{collections::BTreeSet, time::Duration};
/// let mut engine = Engine::new(Config::new("node-1"), BTreeSet::new());
/// let mut kernel = FakeKernel::default();
/// let report = engine.sync(&mut kernel, Duration::ZERO);
/// assert!(report.plan.is_empty());
/// ```
#[derive(Debug, Clone, Default)]
pub struct FakeKernel {
    /// The state that it has. Change it to act as another program.
    pub state: State,
    /// The number of connections of each real server. A real server without an entry has none.
    pub connections: BTreeMap<(VirtualServerKey, EndpointAddress), u64>,
    /// Changes that it refuses although it could make them: those that print with one of these texts in them.
    pub refuse: Vec<String>,
    /// Changes of which it does not say whether it made them: those that print with one of these texts in them. It
    /// makes none of them.
    pub unanswered: Vec<String>,
    /// Schedulers that it does not have.
    pub missing_schedulers: Vec<Scheduler>,
    /// Whether it cannot be read.
    pub unreadable: bool,
    /// Virtual servers that it leaves out when it is read next. Linux 6.1 does that: its list is of the virtual
    /// servers of all network namespaces, and shifts while others change.
    pub unlisted: BTreeSet<VirtualServerKey>,
    /// How often it was read.
    pub observations: usize,
}

impl Kernel for FakeKernel {
    fn prepare(&mut self) -> Result<(), KernelUnavailable> {
        Ok(())
    }

    fn observe(&mut self, _believed: &State) -> Result<State, KernelUnavailable> {
        self.observations += 1;
        if self.unreadable {
            Err(KernelUnavailable::new("the fake kernel", "it cannot be read"))
        } else {
            let mut state = self.state.clone();
            std::mem::take(&mut self.unlisted).iter().for_each(|key| drop(state.virtual_servers.remove(key)));
            Ok(state)
        }
    }

    fn connections(&mut self, servers: &[VirtualServerKey]) -> Result<ConnectionCounts, KernelUnavailable> {
        let counted = self.connections.iter().filter(|((key, _), _)| servers.contains(key));
        Ok(counted.map(|(at, count)| (*at, *count)).collect())
    }

    fn apply(&mut self, plan: &Plan) -> Report {
        let mut report = Report::default();
        let mut failed = FailedPrerequisites::default();
        for (number, change) in plan.changes().iter().enumerate() {
            let stopped = failed.stops(change).map(|reason| (Cause::NotTried, reason.into()));
            match stopped.or_else(|| self.refusal(change)) {
                Some((cause, reason)) => {
                    failed.note(change);
                    let failure = Failure { change: number, cause, reason };
                    self.amend(&amends(plan, std::slice::from_ref(&failure)), &mut failed, &mut report);
                    report.failures.push(failure);
                }
                None => self.state.apply(change),
            }
        }
        report
    }
}

impl FakeKernel {
    fn amend(&mut self, amends: &Plan, failed: &mut FailedPrerequisites, report: &mut Report) {
        for change in amends.changes() {
            if self.refusal(change).is_some() {
                failed.note(change);
            } else {
                self.state.apply(change);
                report.amended.push(change.clone());
            }
        }
    }

    fn refusal(&self, change: &Change) -> Option<(Cause, Reason)> {
        let named = |text: &String| change.to_string().contains(text);
        if self.refuse.iter().any(named) {
            return Some((Cause::Refused, "refused by the test".into()));
        }
        if self.unanswered.iter().any(named) {
            return Some((Cause::Unknown, "no answer".into()));
        }
        let (cause, words) = self.conflict(change)?;
        Some((cause, words.into()))
    }

    /// What a real kernel would not do in this state, and how it would say so.
    fn conflict(&self, change: &Change) -> Option<(Cause, &'static str)> {
        const EXISTS: (Cause, &str) = (Cause::Exists, "File exists");
        let servers = &self.state.virtual_servers;
        let has =
            |key, address| servers.get(key).is_some_and(|server| server.real_servers.contains_key(address));
        match change {
            Change::AddServer { config, .. } | Change::UpdateServer { config, .. }
                if self.missing_schedulers.contains(&config.scheduler) =>
            {
                Some((Cause::NoScheduler, "No such file or directory"))
            }
            Change::AddServer { key, .. } if servers.contains_key(key) => Some(EXISTS),
            Change::UpdateServer { key, .. }
            | Change::RemoveServer(key)
            | Change::AddRealServer { key, .. }
                if !servers.contains_key(key) =>
            {
                Some((Cause::Refused, "No such process"))
            }
            Change::AddRealServer { key, address, .. } if has(key, address) => Some(EXISTS),
            Change::UpdateRealServer { key, address, .. } | Change::RemoveRealServer { key, address }
                if !has(key, address) =>
            {
                Some((Cause::Refused, "No such file or directory"))
            }
            Change::Bind(address) if self.state.bound_vips.contains(address) => Some(EXISTS),
            Change::Unbind(address) if !self.state.bound_vips.contains(address) => {
                Some((Cause::Refused, "Cannot assign requested address"))
            }
            _ => None,
        }
    }
}
