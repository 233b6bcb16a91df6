//! What contact there is with the API server: of each watch, and of all requests as client-go counts them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::{Method, StatusCode, Uri};
use prometheus_client::{
    metrics::{counter::Counter, family::Family as Of, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

type One = [(&'static str, &'static str); 1];
type Durations = Of<[(&'static str, String); 2], Histogram, fn() -> Histogram>;

/// What contact there is with the API server. All clones are of the same.
#[derive(Debug, Clone)]
pub struct Contact {
    /// Since when watches fail.
    lost: Arc<Mutex<BTreeMap<&'static str, Instant>>>,
    connected: Of<One, Gauge>,
    last: Of<One, Gauge<f64, AtomicU64>>,
    requests: Of<[(&'static str, String); 3], Counter>,
    durations: Durations,
}

impl Default for Contact {
    fn default() -> Self {
        Self {
            lost: Arc::default(),
            connected: Of::default(),
            last: Of::default(),
            requests: Of::default(),
            durations: Of::new_with_constructor(durations),
        }
    }
}

impl Contact {
    /// Registers the metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "rest_client_requests",
            "How many requests were sent to the API server, by the code of the answer",
            self.requests.clone(),
        );
        registry.register(
            "rest_client_request_duration_seconds",
            "How long answers of the API server took to begin; watches are left out",
            self.durations.clone(),
        );
        let registry = registry.sub_registry_with_prefix("kube_ipvs");
        registry.register(
            "watch_connected",
            "Whether changes of a resource are heard of from the API server",
            self.connected.clone(),
        );
        registry.register(
            "watch_last_contact_timestamp_seconds",
            "When the API server last sent anything about a resource",
            self.last.clone(),
        );
    }

    /// The API server has sent something about a resource.
    pub fn heard(&self, resource: &'static str) {
        self.lost_watches().remove(resource);
        let label = [("resource", resource)];
        self.connected.get_or_create(&label).set(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last.get_or_create(&label).set(now.as_secs_f64());
    }

    /// It cannot be asked about it, or says nothing any more.
    pub fn lost(&self, resource: &'static str) {
        self.lost_watches().entry(resource).or_insert_with(Instant::now);
        self.connected.get_or_create(&[("resource", resource)]).set(0);
    }

    /// It does not have such a resource, or not for us.
    pub fn without(&self, resource: &'static str) {
        self.lost_watches().remove(resource);
        self.connected.remove(&[("resource", resource)]);
        self.last.remove(&[("resource", resource)]);
    }

    /// A request was answered; without a code it was not.
    pub fn asked(&self, method: &Method, url: &Uri, code: Option<StatusCode>, time: Duration) {
        let host = url.authority().map(ToString::to_string).unwrap_or_default();
        // As client-go writes it.
        let code = code.map_or_else(|| "<error>".to_owned(), |code| code.as_str().to_owned());
        let method = method.to_string();
        let is_watch = url.query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
        if !is_watch {
            let labels = [("verb", method.clone()), ("host", host.clone())];
            self.durations.get_or_create(&labels).observe(time.as_secs_f64());
        }
        self.requests.get_or_create(&[("code", code), ("method", method), ("host", host)]).inc();
    }

    /// For how long a watch has been failing, the longest of them.
    pub fn lost_for(&self) -> Option<Duration> {
        self.lost_watches().values().min().map(Instant::elapsed)
    }

    /// Nothing is left half done in it by a thread that panics.
    fn lost_watches(&self) -> MutexGuard<'_, BTreeMap<&'static str, Instant>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The buckets of `k8s.io/component-base/metrics/prometheus/restclient`.
fn durations() -> Histogram {
    Histogram::new([0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0])
}
