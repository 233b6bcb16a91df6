//! The node daemon and its commands: what it is told (flags, manifests) becomes
//! [`proxier::model::Event`]s, and a [`proxier::Engine`] keeps the kernel as they say.

pub mod announce;
pub mod command;
pub mod config;
pub mod host;
pub mod serve;
pub mod source;
