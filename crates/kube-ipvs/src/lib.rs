//! The kube-ipvs daemon and its commands. kube-ipvs turns objects from an API server or from manifests into
//! [`proxier::model::Event`]s. A [`proxier::Engine`], configured by flags, syncs them to the kernel.

pub mod command;
pub mod config;
pub mod events;
pub mod host;
pub mod recording;
mod runtime;
pub mod serve;
#[cfg(test)]
mod simulation;
pub mod source;
