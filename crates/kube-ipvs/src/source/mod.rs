//! Where events come from: a Kubernetes API server or a folder of manifests, and the host itself.

pub mod addresses;
mod changes;
mod join;
pub mod kubernetes;
pub mod manifests;

pub use changes::{Changes, Note, Place, Problem};
