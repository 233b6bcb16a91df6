use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Logging};

/// From which of klog's levels on each change is logged.
const DETAILS: i32 = 4;

/// Logs to standard error from now on. `KUBE_IPVS_LOG` has the last word on how much.
pub(super) fn start(logging: &Logging) {
    let level = if logging.verbosity.get() >= DETAILS { "debug" } else { "info" };
    // What fails between us and the API server we say ourselves, with what comes of it.
    let default = EnvFilter::new(format!("{level},kube_client=off"));
    let filter = EnvFilter::try_from_env("KUBE_IPVS_LOG").unwrap_or(default);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match logging.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
