use std::{collections::HashMap, time::Duration};

use super::About;

/// How many Events one object can have at once, and how long it takes until it can have one more, as for client-go
/// (`defaultSpamBurst` and `defaultSpamQPS` of `k8s.io/client-go/tools/record`).
const BURST: u32 = 25;
const ONE_MORE: Duration = Duration::from_secs(300);

/// Keeps an object that changes all the time from filling the API server with Events.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// When each object will have had so little said of it that all of [`BURST`] is free again.
    free: HashMap<About, Duration>,
}

impl Limits {
    /// Whether there can be one more Event about an object, which is then taken as made.
    pub(super) fn allow(&mut self, about: &About, now: Duration) -> bool {
        self.free.retain(|_, free| *free > now);
        let free = self.free.get(about).copied().unwrap_or(now) + ONE_MORE;
        let allowed = free <= now + ONE_MORE * BURST;
        if allowed {
            self.free.insert(about.clone(), free);
        }
        allowed
    }
}
