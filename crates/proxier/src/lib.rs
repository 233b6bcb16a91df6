//! Kubernetes Services to IPVS virtual servers: a pure core and one Linux back end.
//!
//! The path of the data, one module a step:
//!
//! | step | module | |
//! |---|---|---|
//! | something changed | [`model`] | an [`Event`](model::Event) with the whole new object |
//! | which Services does it touch? | [`cluster`] | indexes and claims |
//! | what do these need? | [`desired`] | virtual servers, real servers, VIPs, set memberships |
//! | what is missing, what is too much? | `diff` | against the [`State`] that the kernel is known to have |
//! | in which order? | [`plan`] | a [`Plan`], which prints as text |
//! | do it | [`kernel`], [`linux`] | one batched netlink send a subsystem, and a [`Report`](kernel::Report) |
//! | again? | [`Engine`] | retry, audit, drain |
//! | when? | [`Runner`] | at an event, when the kernel reports drift, or when the engine says |
//!
//! Everything but [`linux`] is pure: no sockets, no files, no clock, no threads.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

pub mod cluster;
mod config;
pub mod desired;
mod diff;
mod drain;
mod engine;
#[cfg(feature = "fake")]
pub mod fake;
pub mod kernel;
pub mod linux;
pub mod model;
pub mod plan;
mod schedule;
pub mod set;
mod state;
pub mod takeover;
#[cfg(test)]
mod testing;

pub use ipnet;
pub use ipvs_netlink;

pub use config::{Config, NodePortAddresses, PodSources, RESERVED_PORTS};
pub use engine::{Completeness, Counts, Engine, FailedChange, NoLocalEndpoints, SyncReport};
pub use linux::{Runner, Update};
pub use plan::Plan;
pub use state::{Membership, ServerState, State};
