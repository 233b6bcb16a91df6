//! Where events come from: a folder of manifests (later also the watches of a Kubernetes API server).

pub mod addresses;
pub mod manifests;
pub mod wire;
