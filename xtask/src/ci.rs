//! `cargo xtask ci`: all checks before a merge.

use std::process::ExitCode;

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::bench::instructions;
use crate::steps::Steps;
use crate::test::Test;
use crate::workspace::{OF_OUR_OWN, Workspace};
use crate::{api, chart, publish, test, tidy};

pub(crate) fn run() -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let sh = Shell::new()?;
    sh.change_dir(&workspace.root);
    let mut steps = Steps::new(&workspace, 8 + test::STEPS)?;
    steps.run("format", || Ok(cmd!(sh, "cargo fmt --all --check").quiet().run()?))?;
    steps.run("tidy", || tidy::check(&workspace))?;
    steps.run("clippy", || {
        cmd!(sh, "cargo clippy --workspace --all-targets --all-features -- -D warnings")
            .env_remove(OF_OUR_OWN)
            .quiet()
            .run()?;
        // All targets exclude the tests that `cargo test` does not run.
        for (package, name) in workspace.untested() {
            cmd!(sh, "cargo clippy --package {package} --all-features --test {name} -- -D warnings")
                .env_remove(OF_OUR_OWN)
                .quiet()
                .run()?;
        }
        Ok(())
    })?;
    steps.run("documentation", || {
        let doc = cmd!(sh, "cargo doc --workspace --no-deps --document-private-items");
        Ok(doc.env_remove(OF_OUR_OWN).env("RUSTDOCFLAGS", "-D warnings").quiet().run()?)
    })?;
    steps.run("public API", || api::check(&workspace))?;
    steps.run("chart", || chart::check(&workspace))?;
    // No build from the packages: it compiles each dependency again and takes minutes.
    steps.run("packages", || publish::check(&workspace, &["--no-verify"]))?;
    steps.run("instructions", || instructions::check(&workspace))?;
    test::steps(&Test::default(), &workspace, &mut steps)?;
    Ok(ExitCode::SUCCESS)
}
