//! The I/O runtimes: each thread that needs one has its own.

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};

/// A runtime for the calling thread alone.
///
/// # Errors
///
/// When the host gives none.
pub(crate) fn of_this_thread() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start the I/O runtime")
}
