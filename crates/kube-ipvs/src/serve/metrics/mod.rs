//! What is measured.

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
pub(super) use process::Process;
pub(super) use services::Services;
