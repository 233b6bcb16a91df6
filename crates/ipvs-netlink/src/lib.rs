#![doc = include_str!("../README.md")]
//!
//! # What the kernel does
//!
//! * State belongs to a network namespace and ends with it. [`Client::open_in`] reaches any.
//! * Changing a virtual server or a destination takes its whole configuration, never the difference.
//! * Lists are no snapshots (see [`Client`]), and the destinations of a virtual server that does not exist are an
//!   empty list.
//! * `ESRCH` says that a virtual server is missing, `ENOENT` a destination, a scheduler or a persistence engine.
//!   [`RequestFailure::is_not_found`] and [`RequestFailure::lacks_module`] tell them apart.
//!
//! The meaning of everything here is that of `net/netfilter/ipvs/ip_vs_ctl.c` in the kernel's source. Bytes and
//! values are turned into each other in [`message`], which no socket touches.

mod batch;
mod client;
mod error;
mod family;
pub mod message;
mod request;
mod types;

pub use batch::Batch;
pub use client::Client;
pub use error::{Error, KernelError, RequestFailure};
pub use request::Request;
pub use types::*;
