//! The project's own commands, run as `cargo xtask COMMAND`. Each command is one file; `testbench` is the kernel that
//! several of them run on.

mod api;
mod bench;
mod chart;
mod ci;
mod demo;
mod e2e;
mod fuzz;
mod image;
mod janitor;
mod neighbours;
mod platform;
mod preflight;
mod progress;
mod publish;
mod release;
mod simulate;
mod steps;
mod test;
mod testbench;
mod tidy;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
enum Command {
    /// Checks everything that a change must pass before it is merged: format, tidy, clippy, documentation, tests
    Ci,
    Test(test::Test),
    /// Checks the layering and the project's rules that the compiler does not check
    Tidy,
    E2e(e2e::E2e),
    Neighbours(neighbours::Neighbours),
    Demo(demo::Demo),
    Vm(vm::Vm),
    Bench(bench::Bench),
    Fuzz(fuzz::Fuzz),
    Simulate(simulate::Simulate),
    Image(image::Image),
    Chart(chart::Chart),
    Release(release::Release),
    /// Records the public API of the libraries in docs/api
    Api,
    /// Builds the libraries from their packages, and publishes nothing
    Publish,
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Ci => ci::run(),
        Command::Test(args) => test::run(&args),
        Command::Tidy => tidy::run(),
        Command::E2e(args) => e2e::run(&args),
        Command::Neighbours(args) => neighbours::run(&args),
        Command::Demo(args) => demo::run(args),
        Command::Vm(args) => vm::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Chart(args) => chart::run(&args),
        Command::Release(args) => release::run(&args),
        Command::Api => api::run(),
        Command::Publish => publish::run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
