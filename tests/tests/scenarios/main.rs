//! All packet-level scenarios, one module each, in one executable.
//!
//! They need root and a kernel with ip_vs: `cargo xtask test` gives them both.

mod affinity;
mod api_server;
mod arp;
mod bad_input;
mod bench;
mod beside_others;
mod choices;
mod churn;
mod common;
mod detect_local;
mod dns;
mod drop_in;
mod dual_stack;
mod hairpin;
mod health_checks;
mod host_network;
mod hostnames;
mod kill_nine;
mod localhost;
mod masquerade;
mod min_sync_period;
mod my_nginx;
mod myapp;
mod mysql;
mod no_endpoints;
mod node_addresses;
mod node_joins;
mod node_port;
mod nothing_to_serve;
mod policies;
mod port_reuse;
mod restart;
mod rules;
mod short_cut;
mod source_ranges;
mod spread;
mod steady_load;
mod sysctls;
mod takeover;
mod terminating;
mod topology;
mod udp;
mod unserved;
mod without_nat;
