//! What is measured.

mod kube_proxy;

pub(super) use kube_proxy::{ChangeCounts, KubeProxy};
