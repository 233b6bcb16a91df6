use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    time::Duration,
};

/// How long a fact is not told again: a little longer than an API server keeps an Event by default. Told earlier it
/// would find the Event of before still there, which goes soon after.
const REPEAT_INTERVAL: Duration = Duration::from_secs(70 * 60);
/// How often it is looked for what may be told again.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// The facts that were told not long ago, as hashes: neither what they say nor whose they are is kept.
///
/// How many there are is bounded by the limits, which come first.
#[derive(Debug, Default)]
pub(super) struct Recent {
    told: HashMap<u64, Duration>,
    hasher: RandomState,
    next_look: Duration,
}

impl Recent {
    /// Whether a fact was told.
    pub(super) fn has(&mut self, fact: &impl Hash, now: Duration) -> bool {
        if now >= self.next_look {
            self.next_look = now + SWEEP_INTERVAL;
            self.told.retain(|_, at| now.saturating_sub(*at) < REPEAT_INTERVAL);
        }
        let told = self.told.get(&self.hasher.hash_one(fact));
        told.is_some_and(|at| now.saturating_sub(*at) < REPEAT_INTERVAL)
    }

    /// Records a fact that kube-ipvs records now.
    pub(super) fn add(&mut self, fact: &impl Hash, now: Duration) {
        self.told.insert(self.hasher.hash_one(fact), now);
    }

    /// How many facts are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.told.len()
    }
}
