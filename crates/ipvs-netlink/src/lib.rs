//! The kernel's load balancer IPVS, over generic netlink: every command and every attribute of
//! `linux/ip_vs.h`, in batches, without helper programs.
//!
//! A *virtual server* ([`VirtualServerKey`], [`VirtualServer`]) takes connections to an address and port, or those
//! that a firewall rule marked, and spreads them over its *destinations* ([`DestinationKey`],
//! [`Destination`]). [`Client`] reads and changes them with a verb each; a [`Batch`] carries out thousands of
//! changes in one system call and reports every refused one by itself ([`RequestFailure`]).
//!
//! ```no_run
//! use std::net::SocketAddr;
//! use ipvs_netlink::{Batch, Client, Destination, Protocol, Scheduler, VirtualServer, VirtualServerKey};
//!
//! let mut client = Client::open()?;
//! let web = VirtualServerKey::new(Protocol::Tcp, "10.0.0.1:80".parse()?);
//!
//! let mut batch = Batch::new();
//! batch.add_service(web, VirtualServer::new(Scheduler::WRR));
//! for (address, weight) in [("10.1.1.1:8080", 1), ("10.1.1.2:8080", 3)] {
//!     let destination = Destination { weight, ..Destination::default() };
//!     batch.add_destination(web, address.parse::<SocketAddr>()?.into(), destination);
//! }
//! for failure in client.execute(&batch)? {
//!     eprintln!("{failure}"); // add destination 10.1.1.1:8080 to TCP 10.0.0.1:80: File exists (os error 17)
//! }
//!
//! for entry in client.destinations(web)? {
//!     println!("{} weight {} active {}", entry.key, entry.destination.weight, entry.connections.active);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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
