//! Any bytes through every decoder, guided by coverage: `cargo +nightly fuzz run messages` in crates/ipvs-netlink.

#![no_main]

#[path = "../../examples/fuzz/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::check(bytes));
