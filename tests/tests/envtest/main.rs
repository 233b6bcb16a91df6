//! Scenarios on a real API server. Most are shared with tests/scenarios; `control_plane`, `objects` and `takeover` need
//! a real one.
//!
//! `cargo xtask e2e --cluster envtest` runs them, one at a time, with etcd and kube-apiserver.

#[path = "../scenarios/affinity.rs"]
mod affinity;
#[path = "../scenarios/common.rs"]
mod common;
mod control_plane;
#[path = "../scenarios/dns.rs"]
mod dns;
#[path = "../scenarios/dual_stack.rs"]
mod dual_stack;
#[path = "../scenarios/hairpin.rs"]
mod hairpin;
#[path = "../scenarios/health_checks.rs"]
mod health_checks;
#[path = "../scenarios/host_network.rs"]
mod host_network;
#[path = "../scenarios/hostnames.rs"]
mod hostnames;
#[path = "../scenarios/my_nginx.rs"]
mod my_nginx;
#[path = "../scenarios/myapp.rs"]
mod myapp;
#[path = "../scenarios/mysql.rs"]
mod mysql;
#[path = "../scenarios/no_endpoints.rs"]
mod no_endpoints;
#[path = "../scenarios/node_port.rs"]
mod node_port;
#[path = "../scenarios/nothing_to_serve.rs"]
mod nothing_to_serve;
mod objects;
#[path = "../scenarios/source_ranges.rs"]
mod source_ranges;
#[path = "../scenarios/spread.rs"]
mod spread;
mod takeover;
#[path = "../scenarios/terminating.rs"]
mod terminating;
#[path = "../scenarios/topology.rs"]
mod topology;
#[path = "../scenarios/udp.rs"]
mod udp;
#[path = "../scenarios/who_gets_an_address.rs"]
mod who_gets_an_address;
