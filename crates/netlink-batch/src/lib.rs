#![doc = include_str!("../README.md")]
//!
//! # Features
//!
//! * [`Socket::execute`] executes a [`Batch`] of requests in as few sends as the buffers allow, with one
//!   acknowledgement for each send. It reports every failure with the number of its request and the kernel's text
//!   ([`KernelError`]).
//! * [`Socket::transaction`] uses exactly one send, for subsystems that commit a send as a whole.
//! * [`Socket::query`] and [`Socket::dump`] return typed replies. If the kernel marks a dump as interrupted, the socket
//!   reads it again. A dump that stays interrupted is an error, never a short list.
//! * [`Socket::dump_each`] hands over each message of a dump as it arrives, for lists of any length.
//! * [`Batch::push_with`], [`Socket::query_with`] and [`Socket::dump_with`] do the same for messages as bytes, which
//!   [`attribute`] writes and reads.
//! * [`Listener`] receives the notifications of multicast groups on a separate socket.
//! * [`Socket::open_in`] opens a socket in another network namespace, and [`in_namespace`] runs other code there.
//!
//! Sockets share no state, so two sockets never disturb each other. One socket serves one caller at a time (`&mut
//! self`): it matches replies by sequence number.

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
