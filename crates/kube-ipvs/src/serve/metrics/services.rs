//! The metrics of each Service.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use ipvs_netlink::Stats;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use proxier::model::ServiceId;

use crate::serve::traffic::OfServices;

/// What goes through each Service, as it was told last.
///
/// The labels are not called `namespace` and `service`: those are what scrapers call what they scrape.
#[derive(Debug, Clone, Default)]
pub(crate) struct Services(std::sync::Arc<Mutex<OfServices>>);

/// A family of counters: its name and meaning, and its values of one Service, each with a label for the direction if
/// there are two.
struct Values {
    name: &'static str,
    help: &'static str,
    values: fn(&Stats) -> Directions,
}

enum Directions {
    One(u64),
    InOut(u64, u64),
}

const FAMILIES: [Values; 3] = [
    Values {
        name: "kube_ipvs_service_connections",
        help: "Connections to a Service",
        values: |stats| Directions::One(stats.connections),
    },
    Values {
        name: "kube_ipvs_service_packets",
        help: "Packets from (in) and to (out) clients of a Service",
        values: |stats| Directions::InOut(stats.packets_in, stats.packets_out),
    },
    Values {
        name: "kube_ipvs_service_bytes",
        help: "Bytes from (in) and to (out) clients of a Service, with IP headers",
        values: |stats| Directions::InOut(stats.bytes_in, stats.bytes_out),
    },
];

impl Services {
    /// Registers them.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let services = Self::default();
        registry.register_collector(Box::new(services.clone()));
        services
    }

    /// Sets what the metrics report from now on.
    pub(crate) fn set(&self, services: OfServices) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = services;
    }
}

impl Collector for Services {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let OfServices { told, left_out } = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for family in FAMILIES {
            if told.is_empty() {
                break;
            }
            let mut metric =
                encoder.encode_descriptor(family.name, family.help, None, MetricType::Counter)?;
            let mut put = |id: &ServiceId, direction: Option<&'static str>, value: u64| {
                let of = [("service_namespace", &*id.namespace), ("service_name", &*id.name)];
                let labels: Vec<_> =
                    of.into_iter().chain(direction.map(|direction| ("direction", direction))).collect();
                let encoder = metric.encode_family(&labels)?;
                ConstCounter::new(value).encode(encoder)
            };
            for (id, stats) in &told {
                match (family.values)(stats) {
                    Directions::One(value) => put(id, None, value)?,
                    Directions::InOut(inwards, outwards) => {
                        put(id, Some("in"), inwards)?;
                        put(id, Some("out"), outwards)?;
                    }
                }
            }
        }
        let help = "Services that have no metrics of their own: there are more than --service-metrics-limit";
        let name = "kube_ipvs_service_metrics_left_out";
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(left_out as u64).encode(metric)
    }
}
