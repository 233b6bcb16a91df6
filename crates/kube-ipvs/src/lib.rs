//! The node daemon: what it is told (flags, manifests, later a Kubernetes API server) becomes
//! [`proxier::model::Event`]s.

pub mod config;
pub mod source;
