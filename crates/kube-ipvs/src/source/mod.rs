//! The sources of events: a Kubernetes API server or a folder of manifests, and the addresses of this host.

pub mod addresses;
mod changes;
mod join;
pub mod kubernetes;
pub mod manifests;

pub use changes::{Changes, Note, Place, Problem};
