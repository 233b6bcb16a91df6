//! The Kubernetes source against an API server of the tests, over real HTTP.

mod access;
mod changes;
mod connection;
mod contact;
mod faults;
mod follower;
mod http2;
mod objects;
mod restore;
mod rights;
mod role;
mod tls;
