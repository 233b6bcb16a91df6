use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::{Method, StatusCode, Uri};
use parking_lot::Mutex;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::add;

/// Contact with the API server: the state of each watch, and requests as client-go counts them. All clones share one
/// state.
#[derive(Debug, Clone)]
pub struct Contact {
    /// When each failing watch began to fail.
    lost: Arc<Mutex<BTreeMap<&'static str, Instant>>>,
    connected: IntGaugeVec,
    last: GaugeVec,
    requests: IntCounterVec,
    durations: HistogramVec,
}

impl Default for Contact {
    fn default() -> Self {
        Self::register(&Registry::new())
    }
}

impl Contact {
    pub(crate) fn register(registry: &Registry) -> Self {
        let durations = HistogramOpts::new(
            "rest_client_request_duration_seconds",
            "Seconds until the API server began to answer a request, without watches",
        );
        // The buckets of `k8s.io/component-base/metrics/prometheus/restclient`.
        let buckets = vec![0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
        let connected = Opts::new(
            "kube_ipvs_watch_connected",
            "Whether the watch of a resource is connected to the API server (1) or not (0)",
        );
        let last = Opts::new(
            "kube_ipvs_watch_last_contact_timestamp_seconds",
            "Unix time at which the API server last sent data about a resource",
        );
        let requests = Opts::new("rest_client_requests_total", "Requests to the API server, by the code of the answer");
        Self {
            lost: Arc::default(),
            connected: add(registry, IntGaugeVec::new(connected, &["resource"])),
            last: add(registry, GaugeVec::new(last, &["resource"])),
            requests: add(registry, IntCounterVec::new(requests, &["code", "host", "method"])),
            durations: add(registry, HistogramVec::new(durations.buckets(buckets), &["host", "verb"])),
        }
    }

    /// Records that the API server has sent data about a resource.
    pub fn heard(&self, resource: &'static str) {
        self.lost.lock().remove(resource);
        self.connected.with_label_values(&[resource]).set(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last.with_label_values(&[resource]).set(now.as_secs_f64());
    }

    /// Records that the watch of a resource fails or is silent.
    pub fn lost(&self, resource: &'static str) {
        self.lost.lock().entry(resource).or_insert_with(Instant::now);
        self.connected.with_label_values(&[resource]).set(0);
    }

    /// Records that the API server lacks a resource, or denies it to kube-ipvs.
    pub fn without(&self, resource: &'static str) {
        self.lost.lock().remove(resource);
        // The error only reports a series that did not exist.
        let _ = self.connected.remove_label_values(&[resource]);
        let _ = self.last.remove_label_values(&[resource]);
    }

    /// Records a request. It has no code if it had no answer.
    pub fn asked(&self, method: &Method, url: &Uri, code: Option<StatusCode>, time: Duration) {
        let host = url.authority().map(ToString::to_string).unwrap_or_default();
        // The label that client-go writes.
        let code = code.as_ref().map_or("<error>", StatusCode::as_str);
        let is_watch = url.query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
        if !is_watch {
            self.durations.with_label_values(&[&host, method.as_str()]).observe(time.as_secs_f64());
        }
        self.requests.with_label_values(&[code, &host, method.as_str()]).inc();
    }

    /// How long watches have been failing, by the longest failure.
    pub fn lost_for(&self) -> Option<Duration> {
        self.lost.lock().values().min().map(Instant::elapsed)
    }
}
