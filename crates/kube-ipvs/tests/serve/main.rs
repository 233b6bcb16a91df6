//! What the daemon answers over HTTP, asked over real sockets by a client of our own.

mod daemon;
mod health;
mod metrics;
