//! Whether this proxy is healthy, as kube-proxy says it (`pkg/proxy/healthcheck`). Pure: time comes from outside.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use proxier::model::Family;
use serde::Serialize;

/// One moment, by two clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Time since any fixed moment: what is waited for is measured by it.
    pub elapsed: Duration,
    /// What a wall clock shows: people read it.
    pub wall: Timestamp,
}

/// What is known of this proxy's health.
///
/// An update that arrives waits until a sync has brought it into the kernel. It is late when it has waited for twice
/// the sync period; what failed in the main waits on, from when it arrived. As long as an update of a family is late,
/// that family is unhealthy. A Service that the kernel refuses makes nothing late but itself (docs/adr/0010).
#[derive(Debug)]
pub struct Health {
    patience: Duration,
    /// Since when the oldest update waits that no sync has taken in.
    queued: Option<Duration>,
    families: [OfFamily; 2],
    node: NodeState,
}

#[derive(Debug, Clone, Copy, Default)]
struct OfFamily {
    /// Since when the oldest update waits that a sync has taken in.
    taken: Option<Duration>,
    /// When the last sync left nothing undone.
    updated: Option<Timestamp>,
    /// Whether something is undone.
    failing: bool,
}

/// What a sync did for one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is in the kernel, also what failed in earlier syncs. Services for which the kernel rejects something
    /// are the exception.
    Settled,
    /// All that it had to do was done. What failed in earlier syncs, of whatever family, waits to be tried again.
    Done,
    /// Nothing could be done, or most of it failed, or something that all Services stand on.
    Failed,
}

/// Whether load balancers may choose this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NodeState {
    /// Nothing is known of it, and nothing speaks against it.
    Unknown,
    Stays,
    Leaves,
}

impl Health {
    /// Nothing has happened yet.
    pub fn new(sync_period: Duration) -> Self {
        Self {
            patience: sync_period.saturating_mul(2),
            queued: None,
            families: Default::default(),
            node: NodeState::Unknown,
        }
    }

    /// An update has arrived.
    pub fn queued(&mut self, now: Duration) {
        self.queued.get_or_insert(now);
    }

    /// All updates that wait are taken in: the next sync is about them.
    pub fn taken(&mut self) {
        let Some(since) = self.queued.take() else { return };
        for family in &mut self.families {
            family.taken.get_or_insert(since);
        }
    }

    /// A sync has ended. Returns whether it left nothing undone of that family.
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

    /// What its Node says: whether the node is to stay, if it exists. A Node that was there and is gone leaves.
    pub fn node(&mut self, stays: Option<bool>) {
        self.node = match (stays, self.node) {
            (Some(true), _) => NodeState::Stays,
            (None, NodeState::Unknown) => NodeState::Unknown,
            (Some(false) | None, _) => NodeState::Leaves,
        };
    }

    /// Whether everything has been in the kernel once.
    pub fn has_synced(&self) -> bool {
        self.families.iter().all(|family| family.updated.is_some())
    }

    /// What is to be said.
    pub fn report(&self, now: Moment) -> Report {
        let is_late = |since: Duration| now.elapsed.saturating_sub(since) >= self.patience;
        let mut status = BTreeMap::new();
        for family in Family::ALL {
            let OfFamily { taken, updated, .. } = self.families[family as usize];
            let healthy = ![self.queued, taken].into_iter().flatten().any(is_late);
            // One that has not done anything yet is left out, unless it should have.
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

/// The answer to a client that asks for this proxy's health. Its JSON is kube-proxy's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    last_updated: Timestamp,
    current_time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    /// Whether everything is in the kernel, or not late yet.
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
            // Such a proxy would have nothing to update.
            self.last_updated = self.current_time;
        }
        (self.healthy, self)
    }

    /// For `/healthz`: whether it works, and load balancers may choose this node.
    pub fn healthz(mut self) -> (bool, Self) {
        self.node_eligible = Some(self.eligible);
        let good = self.healthy && self.eligible;
        if good {
            self.last_updated = self.current_time;
        }
        (good, self)
    }
}

/// The first second of the year 1: Go's zero.
const NEVER: Timestamp = Timestamp::constant(-62_135_596_800, 0);

#[cfg(test)]
mod tests;
