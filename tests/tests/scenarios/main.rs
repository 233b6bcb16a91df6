//! All packet-level scenarios, one module each, in one executable.
//!
//! They need root and a kernel with ip_vs: `cargo xtask test` gives them both.

mod bench;
