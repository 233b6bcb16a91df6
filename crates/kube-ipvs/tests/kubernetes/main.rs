//! The Kubernetes source against an API server of the tests, over real HTTP.

mod changes;
mod connection;
mod faults;
mod follower;
mod objects;
mod rights;
mod role;
mod tls;
