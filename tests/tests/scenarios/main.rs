//! All packet-level scenarios, one module each, in one executable.
//!
//! They need root and a kernel with ip_vs: `cargo xtask test` gives them both.

mod affinity;
mod bad_input;
mod bench;
mod common;
mod dns;
mod dual_stack;
mod hairpin;
mod hostnames;
mod kill_nine;
mod masquerade;
mod my_nginx;
mod myapp;
mod mysql;
mod no_endpoints;
mod node_addresses;
mod node_port;
mod nothing_to_serve;
mod policies;
mod restart;
mod source_ranges;
mod spread;
mod steady_load;
mod terminating;
mod topology;
mod udp;
mod unserved;
