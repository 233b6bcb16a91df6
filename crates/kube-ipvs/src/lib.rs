//! The node daemon and its commands. kube-ipvs turns the objects of an API server or of manifests into
//! [`proxier::model::Event`]s. A [`proxier::Engine`], which the flags configure, syncs the kernel with them.

pub mod command;
pub mod config;
pub mod events;
pub mod host;
mod runtime;
pub mod serve;
pub mod source;
