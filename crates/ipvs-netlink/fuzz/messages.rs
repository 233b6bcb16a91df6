//! Any bytes through every decoder, which must neither panic nor lose anything.
//!
//! * `cargo xtask fuzz` mutates captured messages, on stable Rust.
//! * `cargo +nightly fuzz run messages` in crates/ipvs-netlink is guided by coverage. It needs libFuzzer.

#![cfg_attr(fuzzing, no_main)]

mod check;
#[cfg(not(fuzzing))]
mod mutate;

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::check(bytes));

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    mutate::run()
}
