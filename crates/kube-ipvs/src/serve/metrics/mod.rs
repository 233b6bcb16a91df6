//! What is measured.

mod kube_proxy;
mod kubernetes;
mod own;
mod process;
mod services;

pub(super) use kube_proxy::{ChangeCounts, KubeProxy};
pub(super) use kubernetes::Kubernetes;
pub(super) use own::Own;
pub(super) use process::Process;
pub(super) use services::Services;
