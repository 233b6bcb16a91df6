mod contact;
mod kube_proxy;
mod kubernetes;
mod own;
mod process;
mod services;

pub use contact::Contact;
pub(super) use kube_proxy::{ChangeCounts, KubeProxy};
pub(super) use kubernetes::Kubernetes;
pub(super) use own::KubeIpvs;
pub(super) use process::process;
pub(super) use services::Services;

use prometheus::{Registry, core::Collector};

/// Registers a metric. Names and labels are constants, so an invalid one would already fail the first start.
pub(super) fn add<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let registered = metric.and_then(|metric| registry.register(Box::new(metric.clone())).map(|()| metric));
    registered.expect("each metric has a valid name of its own")
}
