use std::process::ExitCode;

use anyhow::Context;

use crate::config::Configuration;

pub(super) fn run() -> anyhow::Result<ExitCode> {
    let mut kernel = super::kernel(&Configuration::default())?;
    let plan = kernel.clean_up().context("cannot clean up; what is left is removed by the next try")?;
    super::print(&plan)?;
    Ok(ExitCode::SUCCESS)
}
