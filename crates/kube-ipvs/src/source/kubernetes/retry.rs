use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::{Instant, sleep};

use super::{failure::Failure, limits::Limits, resource::Resource};

/// When a refusal of what we can do without is asked about again.
const REFUSED: Duration = Duration::from_secs(300);

/// How often in a row a right must be missing until it counts as not given, which is half a minute at least: an API
/// server that has just started knows of no roles for some seconds, and refuses what it allows then.
const STANDING: u32 = 8;

/// Later and later attempts of one watch, for ever, and what is said of them.
#[derive(Debug)]
pub(super) struct Retry {
    resource: Resource,
    limits: Limits,
    pauses: ExponentialBackoff,
    outage: Option<Outage>,
}

/// A time in which nothing works.
#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Instant,
    /// Whether the log tells of it.
    is_told: bool,
    /// How many of the last failures in a row were for want of a right.
    forbidden: u32,
}

impl Retry {
    pub(super) fn new(resource: Resource, limits: Limits) -> Self {
        Self { resource, limits, pauses: pauses(&limits), outage: None }
    }

    /// The API server has answered.
    pub(super) fn answered(&mut self) {
        if let Some(outage) = self.outage.take().filter(|outage| outage.is_told) {
            tracing::info!(
                "{}: the API server answers again, after {:.1?}",
                self.resource,
                outage.since.elapsed()
            );
        }
    }

    /// A watch does what it should: the next failure is the first one again.
    pub(super) fn works(&mut self) {
        self.pauses = pauses(&self.limits);
    }

    /// Whether the API server has been away for so long that it may come back with an older state.
    pub(super) fn is_stale(&self) -> bool {
        self.outage.is_some_and(|outage| outage.since.elapsed() > self.limits.stale)
    }

    /// Something has failed: says so once an outage, and waits.
    pub(super) async fn failed(&mut self, failure: &Failure) {
        let resource = self.resource;
        let is_first = self.outage.is_none();
        let outage = self.outage.get_or_insert(Outage::begin());
        outage.forbidden = if failure.is_forbidden() { outage.forbidden + 1 } else { 0 };
        let is_without = !resource.is_vital() && failure.is_refusal();
        let pause = self.pauses.next().unwrap_or(self.limits.longest_pause);
        let pause = pause.max(failure.retry_after().unwrap_or_default().min(self.limits.stale));
        let is_standing = !failure.is_forbidden() || outage.forbidden >= STANDING;
        let pause = if is_without && is_standing { REFUSED } else { pause };
        // Connections break, and versions age: that alone means nothing.
        if outage.is_told || (is_first && failure.is_usual()) {
            tracing::debug!("{resource}: {failure}; trying again in {pause:.1?}");
        } else {
            outage.is_told = true;
            if is_without {
                tracing::info!("{resource}: {failure}; going on without");
            } else {
                tracing::warn!("{resource}: {failure}; what is known stays in force, and it is tried again");
            }
        }
        sleep(pause).await;
    }
}

impl Outage {
    fn begin() -> Self {
        Self { since: Instant::now(), is_told: false, forbidden: 0 }
    }
}

fn pauses(limits: &Limits) -> ExponentialBackoff {
    let builder = ExponentialBuilder::new()
        .with_min_delay(limits.first_pause)
        .with_max_delay(limits.longest_pause)
        .with_factor(2.0)
        .without_max_times();
    builder.with_jitter().build()
}
