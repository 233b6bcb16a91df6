#![doc = include_str!("../README.md")]
//!
//! # Modules
//!
//! Data passes through these modules in order:
//!
//! | step | module | |
//! |---|---|---|
//! | an object changes | [`model`] | an [`Event`](model::Event) with the whole new object |
//! | find the Services that it touches | [`cluster`] | indexes and claims |
//! | compute the desired state of these Services | [`desired`] | virtual servers, real servers, VIPs, set memberships |
//! | compare it with the kernel | `diff` | against the last known [`State`] of the kernel |
//! | order the changes | [`plan`] | a [`Plan`], which prints as text |
//! | apply them | [`kernel`], [`linux`] | one batched netlink send per subsystem, and a [`Report`](kernel::Report) |
//! | repeat | [`Engine`] | retry, audit, drain |
//! | decide when to sync | [`Loop`], [`Runner`] | after an event, after drift, or when the engine asks for it |
//!
//! All modules except [`linux`] are pure: no sockets, no files, no clock, no threads.

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
mod sync_loop;
pub mod takeover;
#[cfg(test)]
mod testing;
#[cfg(feature = "serde")]
mod text;

pub use ipnet;
pub use ipvs_netlink;

pub use config::{Config, NodePortAddresses, PodSources, RESERVED_PORTS};
pub use engine::{Completeness, Counts, Engine, FailedChange, NoLocalEndpoints, SyncReport};
pub use linux::{Runner, Update};
pub use plan::Plan;
pub use state::{Membership, State, VirtualServerState};
pub use sync_loop::Loop;
