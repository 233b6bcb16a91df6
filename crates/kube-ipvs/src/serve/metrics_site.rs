use std::{sync::Arc, time::Duration};

use anyhow::Context;
use http::{HeaderValue, StatusCode, header, request::Parts};
use hyper::body::Bytes;
use jiff::Timestamp;
use prometheus_client::{
    encoding,
    metrics::{counter::Counter, family::Family as Of, gauge::Gauge},
    registry::Registry,
};
use serde_json::json;
use tokio::time::timeout;

use super::{
    Call,
    exposition::{PROMETHEUS, gzip, takes_gzip, to_prometheus},
    http::{JSON, PLAIN, Response, Site, not_found, text},
    measure::Ask,
    status::Status,
    zpages,
};
use crate::config::Configuration;

/// Where monitoring asks, and people who look at one node.
pub(super) struct MetricsSite {
    status: Arc<Status>,
    configuration: Bytes,
    flags: Bytes,
    slis: Slis,
    owner: Arc<dyn Fn(Call) + Send + Sync>,
    /// How long it is waited for.
    patience: Duration,
}

impl MetricsSite {
    pub(super) fn new(
        configuration: &Configuration,
        flags: &[(String, String)],
        status: Arc<Status>,
        owner: Arc<dyn Fn(Call) + Send + Sync>,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        // Under the group of the configuration's API, as every component of Kubernetes shows it.
        let configuration = json!({ "kubeproxy.config.k8s.io": configuration.spelled_out() });
        let configuration = serde_json::to_vec(&configuration).context("cannot write the configuration")?;
        let flags = zpages::flagz(flags).into();
        Ok(Self { status, configuration: configuration.into(), flags, slis: Slis::new(), owner, patience })
    }

    async fn measure(&self) {
        let (ask, measured) = Ask::new();
        (self.owner)(Call::Measure(ask));
        // An owner that is going away does not answer.
        let _ = timeout(self.patience, measured).await;
    }
}

impl Site for MetricsSite {
    async fn answer(&self, request: &Parts) -> Response {
        match request.uri.path() {
            "/metrics" => {
                self.measure().await;
                expose(self.status.registry(), request)
            }
            "/metrics/slis" => expose(&self.slis.registry, request),
            path @ ("/healthz" | "/healthz/ping") => {
                self.slis.asked();
                let is_verbose = path == "/healthz" && has_parameter(request, "verbose");
                let answer = if is_verbose { "[+]ping ok\nhealthz check passed\n" } else { "ok" };
                text(StatusCode::OK, PLAIN, answer)
            }
            "/proxyMode" => text(StatusCode::OK, PLAIN, "ipvs"),
            "/statusz" => {
                text(StatusCode::OK, PLAIN, zpages::statusz(self.status.started(), Timestamp::now(), &PATHS))
            }
            "/flagz" => text(StatusCode::OK, PLAIN, self.flags.clone()),
            "/configz" => text(StatusCode::OK, JSON, self.configuration.clone()),
            _ => not_found(),
        }
    }
}

/// What is answered here.
const PATHS: [&str; 7] =
    ["/configz", "/flagz", "/healthz", "/metrics", "/metrics/slis", "/proxyMode", "/statusz"];

/// Whether a parameter is there, with a value or without.
fn has_parameter(request: &Parts, name: &str) -> bool {
    let mut pairs = request.uri.query().unwrap_or_default().split('&');
    pairs.any(|pair| pair.split('=').next() == Some(name))
}

/// Metrics, in gzip for those who take it.
fn expose(registry: &Registry, request: &Parts) -> Response {
    let mut open_metrics = String::new();
    if let Err(error) = encoding::text::encode(&mut open_metrics, registry) {
        return text(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, error.to_string());
    }
    let metrics = to_prometheus(&open_metrics);
    let accept = request.headers.get(header::ACCEPT_ENCODING).and_then(|accept| accept.to_str().ok());
    let gzip = accept.filter(|accept| takes_gzip(accept)).and_then(|_| gzip(&metrics).ok());
    let is_gzip = gzip.is_some();
    let mut response = text(StatusCode::OK, PROMETHEUS, gzip.unwrap_or_else(|| metrics.into_bytes()));
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if is_gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// What every component of Kubernetes says of its own health checks (`component-base/metrics/prometheus/slis`): here of
/// `/healthz` beside the metrics, which says that the process answers.
struct Slis {
    registry: Registry,
    last: Of<[(&'static str, &'static str); 2], Gauge>,
    all: Of<[(&'static str, &'static str); 3], Counter>,
}

impl Slis {
    fn new() -> Self {
        let (last, all) = (Of::default(), Of::default());
        let mut registry = Registry::default();
        registry.register("kubernetes_healthcheck", "The last result of a health check", Of::clone(&last));
        registry.register("kubernetes_healthchecks", "All results of health checks", Of::clone(&all));
        Self { registry, last, all }
    }

    /// It was asked, and is well, or it would not answer.
    fn asked(&self) {
        let (name, kind) = (("name", "ping"), ("type", "healthz"));
        self.last.get_or_create(&[name, kind]).set(1);
        self.all.get_or_create(&[name, kind, ("status", "success")]).inc();
    }
}
