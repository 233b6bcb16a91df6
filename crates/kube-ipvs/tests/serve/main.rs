//! Queries the daemon's HTTP servers over real sockets, with a client that belongs to the tests.

mod callers;
mod checks;
mod daemon;
mod dashboard;
mod health;
mod metrics;
mod surface;
