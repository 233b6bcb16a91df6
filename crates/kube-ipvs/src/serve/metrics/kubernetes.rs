//! What every component of Kubernetes says of its version.

use std::env::consts::{ARCH, OS};

use prometheus_client::{
    metrics::{family::Family as Of, gauge::Gauge},
    registry::Registry,
};

use crate::source::kubernetes::Version;

type Labels = [(&'static str, String); 4];

/// `kubernetes_build_info`, of the Kubernetes that is served.
///
/// The version of kube-ipvs is in `kube_ipvs_build_info`. The alert `KubeVersionMismatch` compares this metric of all
/// components, and would fire.
#[derive(Debug)]
pub(crate) struct Kubernetes(Of<Labels, Gauge>);

impl Kubernetes {
    /// Registers it.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let info = Self(Of::default());
        let help = "A constant 1, with the version of the Kubernetes that is served";
        registry.register("kubernetes_build_info", help, info.0.clone());
        info
    }

    /// This is the version from now on.
    pub(crate) fn set(&self, version: &Version) {
        let arch = match ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let Version { git, major, minor } = version.clone();
        let platform = format!("{OS}/{arch}");
        self.0.clear();
        let labels = [("git_version", git), ("major", major), ("minor", minor), ("platform", platform)];
        self.0.get_or_create(&labels).set(1);
    }
}
