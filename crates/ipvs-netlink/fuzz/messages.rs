//! Feeds arbitrary bytes to every decoder. The decoders must neither panic nor lose data.
//!
//! * `cargo xtask fuzz` mutates captured messages, on stable Rust.
//! * `cargo +nightly fuzz run messages` in crates/ipvs-netlink is coverage-guided. It needs libFuzzer.

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
