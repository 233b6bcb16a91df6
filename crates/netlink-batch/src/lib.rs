#![doc = include_str!("../README.md")]
//!
//! # What it gives
//!
//! * [`Socket::execute`]: a [`Batch`] of requests in as few sends as the buffers allow, one acknowledgement
//!   asked at the end of each, every failure reported with the index of its request and the kernel's own
//!   words ([`KernelError`]);
//! * [`Socket::transaction`]: the same in exactly one send, for subsystems that commit as a whole;
//! * [`Socket::query`] and [`Socket::dump`]: typed replies; a dump that the kernel marks as interrupted is read
//!   again, and is an error in the end, never a short list;
//! * [`Batch::push_with`], [`Socket::query_with`] and [`Socket::dump_with`]: the same for messages as bytes, which
//!   [`attribute`] writes and reads;
//! * [`Listener`]: the notices of multicast groups, on a socket of its own;
//! * [`Socket::open_in`]: a socket that lives in another network namespace, and [`in_namespace`] for the
//!   rest of what one wants to do there.
//!
//! Sockets hold no shared state: two sockets never disturb each other. One socket serves one caller at a
//! time (`&mut self`), which is what matching replies by sequence number rests on.

pub mod attribute;
mod batch;
mod error;
mod listener;
mod namespace;
mod reply;
mod socket;

pub use batch::Batch;
pub use error::{Error, Failure, KernelError};
pub use listener::Listener;
pub use namespace::in_namespace;
pub use socket::{Protocol, Socket};
