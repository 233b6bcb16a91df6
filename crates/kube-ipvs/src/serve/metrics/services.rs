use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry, proto::MetricFamily};

use super::add;
use crate::serve::traffic::OfServices;

/// Scrapers already use the labels `namespace` and `service` for their target.
const LABELS: [&str; 3] = ["service_namespace", "service_name", "direction"];

/// The last published traffic of Services. kube-ipvs replaces it as a whole, so a scrape finds no counter at 0 between
/// two measurements.
#[derive(Debug)]
pub(crate) struct Services(Mutex<Vec<MetricFamily>>);

impl Services {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(families(OfServices::default())))
    }

    pub(crate) fn set(&self, services: OfServices) {
        *self.0.lock() = families(services);
    }

    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        self.0.lock().clone()
    }
}

fn families(OfServices { sums, left_out }: OfServices) -> Vec<MetricFamily> {
    let registry = Registry::new();
    let counters =
        |name: &str, help: &str, labels: &[&str]| add(&registry, IntCounterVec::new(Opts::new(name, help), labels));
    let connections = counters("kube_ipvs_service_connections_total", "Connections to a Service", &LABELS[..2]);
    let packets =
        counters("kube_ipvs_service_packets_total", "Packets from (in) and to (out) clients of a Service", &LABELS);
    let bytes = counters(
        "kube_ipvs_service_bytes_total",
        "Bytes from (in) and to (out) clients of a Service, with IP headers",
        &LABELS,
    );
    for (id, stats) in &sums {
        connections.with_label_values(&[&id.namespace, &id.name]).inc_by(stats.connections);
        for (counter, direction, value) in [
            (&packets, "in", stats.packets_in),
            (&packets, "out", stats.packets_out),
            (&bytes, "in", stats.bytes_in),
            (&bytes, "out", stats.bytes_out),
        ] {
            counter.with_label_values(&[&*id.namespace, &id.name, direction]).inc_by(value);
        }
    }
    let left = IntGauge::new(
        "kube_ipvs_service_metrics_left_out",
        "Services without traffic metrics because --service-metrics-limit is reached",
    );
    add(&registry, left).set(left_out as i64);
    registry.gather()
}
