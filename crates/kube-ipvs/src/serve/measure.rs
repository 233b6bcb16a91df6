//! Measurements of the sync loop, which it makes only when a client requests metrics. No other thread makes them: IPVS
//! must not be dumped between two writes of the sync loop.

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

/// The kernel updates its counters every two seconds.
const CACHE_TTL: Duration = Duration::from_secs(2);

/// A request for a measurement. If the sync loop drops it, the requester gets no measurement.
#[derive(Debug)]
pub struct Ask(oneshot::Sender<()>);

impl Ask {
    pub(super) fn new() -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }
}

/// Makes measurements on request.
#[derive(Debug)]
pub struct Measuring {
    /// The number of Services with traffic metrics.
    limit: usize,
    /// How long a measurement is valid.
    period: Duration,
    traffic: Traffic,
    last: Option<Instant>,
}

impl Measuring {
    /// Starts without a measurement.
    pub fn new(configuration: &Configuration) -> Self {
        let limit = configuration.own.service_metrics_limit.get();
        Self { limit: limit.unsigned_abs() as usize, period: CACHE_TTL, traffic: Traffic::default(), last: None }
    }

    /// Sets how long a measurement is valid.
    #[must_use]
    pub fn with_period(self, period: Duration) -> Self {
        Self { period, ..self }
    }

    /// Measures and publishes the result, unless the last measurement is still valid. `read` dumps the counters of
    /// virtual servers.
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
        // The requester can be gone by now.
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
