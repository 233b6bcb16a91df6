//! Tests of the Kubernetes source against a test API server, over real HTTP.

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
