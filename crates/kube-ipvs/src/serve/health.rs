//! The health of this proxy, as kube-proxy reports it (`pkg/proxy/healthcheck`). Pure: the caller supplies the time.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use proxier::model::Family;
use serde::Serialize;

/// One moment, by two clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Time since a fixed moment, which measures delays.
    pub elapsed: Duration,
    /// Wall-clock time, for people.
    pub wall: Timestamp,
}

/// The health of this proxy.
///
/// An update waits from its arrival until a sync has programmed it. It is late after twice the sync period. If most of
/// an update fails, the update goes on waiting, counted from its arrival. While an update of a family is late, that
/// family is unhealthy. If the kernel rejects a part of one Service, its family stays healthy (docs/adr/0010).
#[derive(Debug)]
pub struct Health {
    patience: Duration,
    /// When the oldest update arrived that no sync has taken.
    queued: Option<Duration>,
    families: [OfFamily; 2],
    node: NodeState,
}

#[derive(Debug, Clone, Copy, Default)]
struct OfFamily {
    /// When the oldest update arrived that a sync has taken and not completed.
    taken: Option<Duration>,
    /// When a sync last left nothing undone.
    updated: Option<Timestamp>,
    /// Whether something is undone.
    failing: bool,
}

/// The result of a sync for one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel holds everything, including earlier failures. The exception is Services for which the kernel rejects
    /// something.
    Settled,
    /// The kernel holds the changes of this sync. Earlier failures, of any family, wait for a retry.
    Done,
    /// The kernel could not be used, most changes failed, or a change failed that all Services depend on.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NodeState {
    /// No Node is known, which does not exclude this node.
    Unknown,
    Stays,
    Leaves,
}

impl Health {
    /// Creates the health of a proxy that has just started.
    pub fn new(sync_period: Duration) -> Self {
        Self {
            patience: sync_period.saturating_mul(2),
            queued: None,
            families: Default::default(),
            node: NodeState::Unknown,
        }
    }

    /// Records the arrival of an update.
    pub fn queued(&mut self, now: Duration) {
        self.queued.get_or_insert(now);
    }

    /// Records that the next sync takes all waiting updates.
    pub fn taken(&mut self) {
        let Some(since) = self.queued.take() else { return };
        for family in &mut self.families {
            family.taken.get_or_insert(since);
        }
    }

    /// Records the end of a sync. Returns whether the family has nothing undone.
    pub fn record_sync(&mut self, family: Family, outcome: Outcome, now: Moment) -> bool {
        let family = &mut self.families[family as usize];
        match outcome {
            Outcome::Failed => {
                family.failing = true;
                family.taken.get_or_insert(now.elapsed);
            }
            Outcome::Done if family.failing => {}
            Outcome::Settled | Outcome::Done => {
                *family = OfFamily { taken: None, updated: Some(now.wall), failing: false };
            }
        }
        !family.failing
    }

    /// Records whether this node stays, by its Node. None means that it has no Node. If a known Node disappears, the
    /// node leaves.
    pub fn node(&mut self, stays: Option<bool>) {
        self.node = match (stays, self.node) {
            (Some(true), _) => NodeState::Stays,
            (None, NodeState::Unknown) => NodeState::Unknown,
            (Some(false) | None, _) => NodeState::Leaves,
        };
    }

    /// Whether each family was completely in the kernel once.
    pub fn has_synced(&self) -> bool {
        self.families.iter().all(|family| family.updated.is_some())
    }

    /// Reports the health at a moment.
    pub fn report(&self, now: Moment) -> Report {
        let is_late = |since: Duration| now.elapsed.saturating_sub(since) >= self.patience;
        let mut status = BTreeMap::new();
        for family in Family::ALL {
            let OfFamily { taken, updated, .. } = self.families[family as usize];
            let healthy = ![self.queued, taken].into_iter().flatten().any(is_late);
            // The report leaves out a family without any sync, unless it is late.
            if updated.is_some() || !healthy {
                let last_updated = updated.unwrap_or(NEVER);
                status.insert(family.to_string(), OfFamilyReport { last_updated, healthy });
            }
        }
        let healthy = status.values().all(|family| family.healthy);
        let latest = status.values().map(|family| family.last_updated).max();
        Report {
            last_updated: latest.unwrap_or(NEVER),
            current_time: now.wall,
            node_eligible: None,
            healthy,
            status,
            eligible: self.node != NodeState::Leaves,
        }
    }
}

/// The answer to a health check. Its JSON is kube-proxy's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    last_updated: Timestamp,
    current_time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    /// Whether everything is in the kernel or not late yet.
    pub healthy: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<String, OfFamilyReport>,
    #[serde(skip)]
    eligible: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct OfFamilyReport {
    last_updated: Timestamp,
    healthy: bool,
}

impl Report {
    /// For `/livez`: whether the proxy works.
    pub fn livez(mut self) -> (bool, Self) {
        if self.healthy {
            // A healthy proxy has nothing left to update, so its last update is now.
            self.last_updated = self.current_time;
        }
        (self.healthy, self)
    }

    /// For `/healthz`: whether the proxy works and load balancers can choose this node.
    pub fn healthz(mut self) -> (bool, Self) {
        self.node_eligible = Some(self.eligible);
        let good = self.healthy && self.eligible;
        if good {
            self.last_updated = self.current_time;
        }
        (good, self)
    }
}

/// The first second of the year 1, which is Go's zero time.
const NEVER: Timestamp = Timestamp::constant(-62_135_596_800, 0);

#[cfg(test)]
mod tests;
