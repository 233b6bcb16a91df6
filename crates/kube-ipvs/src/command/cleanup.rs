use std::process::ExitCode;

use anyhow::Context;
use proxier::linux::LinuxKernel;

pub(super) fn run() -> anyhow::Result<ExitCode> {
    let mut kernel = LinuxKernel::open(super::settings()).context("cannot use this kernel")?;
    let plan = kernel.clean_up().context("cannot clean up; what is left is removed by the next try")?;
    super::print(&plan)?;
    Ok(ExitCode::SUCCESS)
}
