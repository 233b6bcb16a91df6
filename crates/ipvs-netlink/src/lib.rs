#![doc = include_str!("../README.md")]
//!
//! # Kernel behaviour
//!
//! * State belongs to a network namespace and ends with it. [`Client::open_in`] opens any namespace.
//! * A change of a virtual server or a destination carries its whole configuration, never the difference.
//! * Lists are no snapshots (see [`Client`]). The destinations of a virtual server that does not exist are an empty
//!   list.
//! * `ESRCH` means a missing virtual server. `ENOENT` means a missing destination, scheduler or persistence engine:
//!   [`RequestFailure::is_not_found`] and [`RequestFailure::lacks_module`] distinguish them.
//!
//! `net/netfilter/ipvs/ip_vs_ctl.c` in the kernel's source defines the meaning of all values. [`message`] encodes and
//! decodes them, without a socket.

mod client;
mod error;
mod family;
pub mod message;
mod request;
mod types;

pub use client::Client;
pub use error::{Error, KernelError, RequestFailure};
pub use request::Request;
pub use types::*;
