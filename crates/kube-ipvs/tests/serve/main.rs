//! What the daemon answers over HTTP, asked over real sockets by a client of our own.

mod callers;
mod checks;
mod daemon;
mod dashboard;
mod health;
mod metrics;
