use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use proxier_kubernetes::GoDuration;
use tokio::time::{Instant, sleep};

use super::{failure::Failure, limits::Limits, resource::Resource};
use crate::serve::Contact;

/// How long kube-ipvs waits after the API server denied an optional resource.
const FORBIDDEN_DELAY: Duration = Duration::from_secs(300);

/// How many 403 answers in a row mean that RBAC denies a resource. They span at least 25 s. An API server that has just
/// started knows no roles for some seconds, and denies requests that it allows later.
const FORBIDDEN_ATTEMPTS: u32 = 8;

/// Retries one watch forever with growing pauses, and logs the outage.
#[derive(Debug)]
pub(super) struct Retry {
    resource: Resource,
    limits: Limits,
    contact: Contact,
    pauses: ExponentialBackoff,
    outage: Option<Outage>,
}

#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Instant,
    /// When the log last reported the outage.
    logged_at: Option<Instant>,
    is_recorded: bool,
    forbidden: u32,
}

impl Retry {
    pub(super) fn new(resource: Resource, limits: Limits, contact: Contact) -> Self {
        Self { resource, limits, contact, pauses: pauses(&limits), outage: None }
    }

    pub(super) fn heard(&self) {
        self.contact.heard(self.resource.word());
    }

    pub(super) fn answered(&mut self) {
        self.heard();
        if let Some(outage) = self.outage.take().filter(|outage| outage.logged_at.is_some()) {
            tracing::info!("{}: the API server answers again after {:.1?}", self.resource, outage.since.elapsed());
        }
    }

    /// The watch is healthy, so the next pause is the first one again.
    pub(super) fn works(&mut self) {
        self.pauses = pauses(&self.limits);
    }

    /// Whether the outage was so long that the API server may come back with an older state.
    pub(super) fn is_stale(&self) -> bool {
        self.outage.is_some_and(|outage| outage.since.elapsed() > self.limits.stale)
    }

    /// Logs a failure, and repeats it from time to time. Returns the note of an Event once per outage.
    pub(super) fn failed(&mut self, failure: &Failure) -> Option<String> {
        let resource = self.resource;
        let is_first = self.outage.is_none();
        let outage = self.outage.get_or_insert(Outage::begin());
        outage.forbidden = if failure.is_forbidden() { outage.forbidden + 1 } else { 0 };
        let time = outage.since.elapsed();
        if !resource.is_vital() && failure.is_refusal() {
            self.contact.without(resource.word());
            if outage.logged_at.replace(Instant::now()).is_none() {
                tracing::info!("{resource}: {failure}. kube-ipvs continues without this resource");
            }
            return None;
        }
        self.contact.lost(resource.word());
        let is_due = outage.logged_at.is_none_or(|logged_at| logged_at.elapsed() >= self.limits.repeat);
        // A broken connection or an expired version is normal.
        if !is_due || (is_first && failure.is_usual()) {
            tracing::debug!("{resource}: {failure}; kube-ipvs retries");
        } else if outage.logged_at.replace(Instant::now()).is_none() {
            tracing::warn!("{resource}: {failure}. kube-ipvs keeps the last known state and retries");
        } else {
            let time = GoDuration::seconds(time.as_secs());
            tracing::warn!(
                "{resource}: no contact for {time}: {failure}. kube-ipvs keeps the last known state and \
                            retries"
            );
        }
        let is_over = self.limits.contact.is_some_and(|limit| time >= limit);
        (is_over && !std::mem::replace(&mut outage.is_recorded, is_over)).then(|| {
            let time = GoDuration::seconds(time.as_secs());
            format!(
                "no contact with the API server for {time}: {failure}. kube-ipvs keeps the last known state of \
                     {resource}"
            )
        })
    }

    pub(super) async fn pause(&mut self, failure: &Failure) {
        let pause = self.pauses.next().unwrap_or(self.limits.longest_pause);
        // The API server may have sent all nodes the same time, so up to a quarter is added at random. The pause stays
        // shorter than `stale`.
        let asked = failure.retry_after().unwrap_or_default().min(self.limits.stale * 3 / 4);
        let pause = pause.max(asked.mul_f64(1.0 + fastrand::f64() / 4.0));
        let forbidden = self.outage.map_or(0, |outage| outage.forbidden);
        let is_standing = !failure.is_forbidden() || forbidden >= FORBIDDEN_ATTEMPTS;
        let is_without = !self.resource.is_vital() && failure.is_refusal();
        sleep(if is_without && is_standing { FORBIDDEN_DELAY } else { pause }).await;
    }
}

impl Outage {
    fn begin() -> Self {
        Self { since: Instant::now(), logged_at: None, is_recorded: false, forbidden: 0 }
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
