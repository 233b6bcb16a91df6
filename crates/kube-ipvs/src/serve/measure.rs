//! What the owner of the kernel measures, and only when a client asks for metrics. No other thread measures it: a list
//! of IPVS must not be read between two of the owner's writes.

use std::time::{Duration, Instant};

use ipvs_netlink::Stats;
use proxier::{
    Engine,
    cluster::Claim,
    kernel::KernelUnavailable,
    model::{ServiceId, VirtualServerKey},
};
use tokio::sync::oneshot;

use super::{status::Status, traffic::Traffic};
use crate::config::Configuration;

/// The kernel adds up its counters every two seconds: nothing is new before.
const CACHE_TTL: Duration = Duration::from_secs(2);

/// A request that waits for a measurement. If the owner drops it, the requester learns that there is none.
#[derive(Debug)]
pub struct Ask(oneshot::Sender<()>);

impl Ask {
    pub(super) fn new() -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }
}

/// Measures for those who ask.
#[derive(Debug)]
pub struct Measuring {
    /// How many Services have metrics of their own.
    limit: usize,
    /// How long what was measured is good for.
    period: Duration,
    traffic: Traffic,
    last: Option<Instant>,
}

impl Measuring {
    /// Nothing has been measured yet.
    pub fn new(configuration: &Configuration) -> Self {
        let limit = configuration.own.service_metrics_limit.get();
        Self { limit: limit.unsigned_abs() as usize, period: CACHE_TTL, traffic: Traffic::default(), last: None }
    }

    /// The same, where what was measured is good for as long as this.
    #[must_use]
    pub fn with_period(self, period: Duration) -> Self {
        Self { period, ..self }
    }

    /// Measures, unless it just did, and publishes what it finds. `read` reads the counters of virtual servers.
    pub fn measure(
        &mut self,
        Ask(ask): Ask,
        engine: &Engine,
        read: impl FnOnce() -> Result<Vec<(VirtualServerKey, Stats)>, KernelUnavailable>,
        status: &Status,
    ) {
        if self.last.is_none_or(|last| last.elapsed() >= self.period) {
            self.last = Some(Instant::now());
            status.own.counts(engine.counts());
            if self.limit > 0 {
                match read() {
                    Ok(counters) => self.publish(counters, engine, status),
                    Err(error) => tracing::warn!("cannot read the counters of Services: {error}"),
                }
            }
        }
        // Who asked may have gone.
        let _ = ask.send(());
    }

    fn publish(&mut self, counters: Vec<(VirtualServerKey, Stats)>, engine: &Engine, status: &Status) {
        let cluster = engine.cluster();
        let owner = |key: &VirtualServerKey| {
            cluster.holder(&Claim::VirtualServer(*key)).map(|holder| holder.port.service.clone())
        };
        self.traffic.take(counters, owner);
        let created = |id: &ServiceId| cluster.service(id).map(|service| service.created);
        status.services.set(self.traffic.tell(self.limit, created));
    }
}
