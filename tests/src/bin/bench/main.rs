//! Benchmarks on a real kernel: `cargo xtask bench NAME`. They print ratios within one run, because absolute times
//! depend on the machine.

mod first_sync;
mod replay;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let outcome = match name.as_str() {
        "first-sync" => first_sync::run(),
        _ => Err(anyhow::anyhow!("there is no benchmark {name:?}; there is: first-sync")),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}
