use prometheus::{IntGaugeVec, Opts, Registry};

use super::add;
use crate::source::kubernetes::{Version, platform};

/// `kubernetes_build_info`, with the version of the cluster.
///
/// The version of kube-ipvs is in `kube_ipvs_build_info`. The alert `KubeVersionMismatch` compares
/// `kubernetes_build_info` of all components, and would fire for a version of kube-ipvs.
#[derive(Debug)]
pub(crate) struct Kubernetes(IntGaugeVec);

impl Kubernetes {
    pub(crate) fn register(registry: &Registry) -> Self {
        let help = "Constant 1, with the version of Kubernetes as a label";
        let info = Opts::new("kubernetes_build_info", help);
        Self(add(registry, IntGaugeVec::new(info, &["git_version", "major", "minor", "platform"])))
    }

    pub(crate) fn set(&self, Version { git_version, major, minor, .. }: &Version) {
        self.0.reset();
        self.0.with_label_values(&[git_version, major, minor, &platform()]).set(1);
    }
}
