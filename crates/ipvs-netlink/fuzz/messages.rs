//! The decoders under libFuzzer, which is coverage-guided: `cargo +nightly fuzz run messages`. On stable Rust, `cargo
//! xtask fuzz` feeds mutated messages to them.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod check;

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::check(bytes));

#[cfg(not(fuzzing))]
fn main() {}
