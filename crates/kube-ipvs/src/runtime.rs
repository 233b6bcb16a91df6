//! I/O runtimes. Each thread that does I/O has one.

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};

/// A runtime for the calling thread alone.
pub(crate) fn of_this_thread() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start the I/O runtime")
}
