use std::sync::Arc;

use anyhow::Context;
use http::{HeaderValue, StatusCode, header, request::Parts};
use hyper::body::Bytes;
use jiff::Timestamp;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder, proto::MetricFamily};
use serde_json::json;

use super::{
    gzip::{gzip, takes_gzip},
    http::{JSON, PLAIN, Response, Site, not_found, text},
    measure::Measuring,
    metrics::add,
    status::Status,
    zpages,
};
use crate::config::Configuration;

pub(super) struct MetricsSite {
    status: Arc<Status>,
    configuration: Bytes,
    flags: Bytes,
    slis: Slis,
    measuring: Measuring,
}

impl MetricsSite {
    pub(super) fn new(
        configuration: &Configuration,
        flags: &[(String, String)],
        status: Arc<Status>,
        measuring: Measuring,
    ) -> anyhow::Result<Self> {
        // All Kubernetes components show their configuration under its API group.
        let configuration = json!({ "kubeproxy.config.k8s.io": configuration.with_listen_addresses() });
        let configuration = serde_json::to_vec(&configuration).context("cannot write the configuration")?;
        let flags = zpages::flagz(flags).into();
        Ok(Self { status, configuration: configuration.into(), flags, slis: Slis::new(), measuring })
    }
}

impl Site for MetricsSite {
    async fn answer(&self, request: &Parts) -> Response {
        match request.uri.path() {
            "/metrics" => {
                self.measuring.measure().await;
                expose(self.status.metrics(), request)
            }
            "/metrics/slis" => expose(self.slis.registry.gather(), request),
            path @ ("/healthz" | "/healthz/ping") => {
                self.slis.asked();
                let is_verbose = path == "/healthz" && has_parameter(request, "verbose");
                let answer = if is_verbose { "[+]ping ok\nhealthz check passed\n" } else { "ok" };
                text(StatusCode::OK, PLAIN, answer)
            }
            "/proxyMode" => text(StatusCode::OK, PLAIN, "ipvs"),
            "/statusz" => text(StatusCode::OK, PLAIN, zpages::statusz(self.status.started, Timestamp::now(), &PATHS)),
            "/flagz" => text(StatusCode::OK, PLAIN, self.flags.clone()),
            "/configz" => text(StatusCode::OK, JSON, self.configuration.clone()),
            _ => not_found(),
        }
    }
}

const PATHS: [&str; 7] = ["/configz", "/flagz", "/healthz", "/metrics", "/metrics/slis", "/proxyMode", "/statusz"];

fn has_parameter(request: &Parts, name: &str) -> bool {
    let mut pairs = request.uri.query().unwrap_or_default().split('&');
    pairs.any(|pair| pair.split('=').next() == Some(name))
}

/// Prometheus' text format, as in kube-proxy. OpenMetrics writes bounds of buckets differently (`le="1.0"`). In a fleet
/// of both, a sum by `le` would have two bounds of one value.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

fn expose(metrics: Vec<MetricFamily>, request: &Parts) -> Response {
    let metrics = match TextEncoder::new().encode_to_string(&metrics) {
        Ok(metrics) => metrics,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, error.to_string()),
    };
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

/// Health check metrics of every Kubernetes component (`component-base/metrics/prometheus/slis`). They cover `/healthz`
/// beside the metrics, which reports that the process answers.
struct Slis {
    registry: Registry,
    last: IntGaugeVec,
    all: IntCounterVec,
}

impl Slis {
    fn new() -> Self {
        let registry = Registry::new();
        let last = Opts::new("kubernetes_healthcheck", "Last result of a health check");
        let all = Opts::new("kubernetes_healthchecks_total", "Results of health checks");
        let last = add(&registry, IntGaugeVec::new(last, &["name", "type"]));
        let all = add(&registry, IntCounterVec::new(all, &["name", "status", "type"]));
        Self { registry, last, all }
    }

    /// Counts a success: a process that answers is healthy.
    fn asked(&self) {
        self.last.with_label_values(&["ping", "healthz"]).set(1);
        self.all.with_label_values(&["ping", "success", "healthz"]).inc();
    }
}
