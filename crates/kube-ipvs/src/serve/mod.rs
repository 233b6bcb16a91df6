//! The daemon's HTTP servers, on kube-proxy's ports: health, metrics, configuration.
//!
//! They run on a separate thread and read [`Status`], which other threads write. So no client delays the sync loop. A
//! scrape also reads the counters of Services from the kernel.

pub mod health;

mod callers;
mod checks;
mod gzip;
mod health_site;
mod http;
mod measure;
mod metrics;
mod metrics_site;
mod status;
mod traffic;
mod zpages;

pub use measure::{Ask, Counters};
pub use metrics::Contact;
#[cfg(test)]
pub(crate) use status::outcome;
pub use status::{Status, Taken};

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use proxier::{kernel::KernelUnavailable, model::VirtualServerKey};

use self::{
    callers::Callers,
    health_site::HealthSite,
    http::{Site, listen, serve},
    measure::Measuring,
    metrics_site::MetricsSite,
};
use crate::{config::Configuration, events::EventNote};

/// A call that only the sync loop can handle.
#[derive(Debug)]
pub enum Call {
    /// Answer a scrape.
    Measure(Ask),
    /// Record an Event.
    Record(EventNote),
}

/// The timeouts of the HTTP servers. Tests set longer ones, as their results must not depend on the machine's speed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a client can take to send its request, read none of its answer, or keep an idle connection. The number
    /// of connections is limited, and probes are quick.
    pub caller: Duration,
    /// How long a scrape waits for the sync loop, and then for the kernel. If one of them is late, the scrape gets the
    /// previous values.
    pub owner: Duration,
    /// How long a measurement is valid.
    pub measurement: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // The kernel updates its counters every two seconds.
        let measurement = Duration::from_secs(2);
        Self { caller: Duration::from_secs(5), owner: Duration::from_secs(2), measurement }
    }
}

/// How long to wait before listening at an unavailable address again, as kube-proxy does.
const BIND_RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Serves the ports of the configuration and of Services until [`Status::finish`]. `owner` calls the sync loop, `read`
/// reads the counters of the virtual servers that exist, and `flags` are the flags to show.
///
/// # Errors
///
/// When kube-ipvs cannot listen at an address and `--bind-address-hard-fail` is set.
pub async fn run(
    configuration: &Configuration,
    flags: &[(String, String)],
    status: Arc<Status>,
    owner: impl Fn(Call) + Send + Sync + 'static,
    read: impl FnMut(&[VirtualServerKey]) -> Result<Counters, KernelUnavailable> + Send + 'static,
    limits: Limits,
) -> anyhow::Result<()> {
    let owner = Arc::new(owner);
    let health = Arc::new(HealthSite(Arc::clone(&status)));
    let with_metrics = configuration.own.service_metrics_limit.get().unsigned_abs() as usize;
    let measuring = Measuring::new(with_metrics, Arc::clone(&owner) as _, read, Arc::clone(&status), limits);
    let metrics = MetricsSite::new(configuration, flags, Arc::clone(&status), measuring)?;
    let published = Arc::clone(&status);
    let checks = async {
        checks::run(status, limits, &*owner).await;
        Ok(())
    };
    let (healthz, exposed) = (configuration.healthz_listen(), configuration.metrics_listen());
    let hard_fail = configuration.bind_address_hard_fail;
    let callers = || Callers::new(limits.caller, published.end.subscribe());
    tokio::try_join!(
        stay("health checks (--healthz-bind-address)", healthz, hard_fail, health, callers()),
        stay("metrics (--metrics-bind-address)", exposed, hard_fail, Arc::new(metrics), callers()),
        checks,
    )?;
    Ok(())
}

async fn stay(
    what: &str,
    at: Option<SocketAddr>,
    hard_fail: bool,
    site: Arc<impl Site>,
    callers: Arc<Callers>,
) -> anyhow::Result<()> {
    let Some(at) = at else { return Ok(()) };
    let mut is_told = false;
    let listener = loop {
        match listen(at) {
            Ok(listener) => break listener,
            Err(error) if hard_fail => {
                return Err(error).with_context(|| format!("cannot listen on {at} for {what}"));
            }
            Err(error) => {
                if !is_told {
                    tracing::error!(
                        "cannot listen on {at} for {what}: {error}. kube-ipvs retries every {} s",
                        BIND_RETRY_INTERVAL.as_secs()
                    );
                }
                is_told = true;
                tokio::select! {
                    () = tokio::time::sleep(BIND_RETRY_INTERVAL) => {}
                    () = callers.end() => return Ok(()),
                }
            }
        }
    };
    tracing::info!("listening on {at} for {what}");
    serve(listener, site, callers).await;
    Ok(())
}
