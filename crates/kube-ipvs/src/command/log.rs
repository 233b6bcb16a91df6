use std::{
    env,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::{Arc, OnceLock},
};

use tracing_subscriber::{
    EnvFilter,
    fmt::writer::{BoxMakeWriter, MakeWriterExt},
};

use super::go_runner::LogFile;
use crate::config::{LogFormat, Logging};

/// The klog level from which kube-ipvs logs each change.
const DETAILS: i32 = 4;
/// The klog level from which libraries log too, for example about connections.
const EVERYTHING: i32 = 6;

/// The environment variable that overrides the verbosity.
const VARIABLE: &str = "KUBE_IPVS_LOG";

/// The log file by go-runner's flags, and whether standard output gets the log too.
static FILE: OnceLock<(Arc<File>, bool)> = OnceLock::new();

/// Set once the log has started. Earlier messages are written without its format.
static IS_STARTED: OnceLock<()> = OnceLock::new();

/// Makes the log go to a file, as go-runner does. If the file cannot be written, the log goes to standard error,
/// because a node must not lose its Services for that.
pub(super) fn to_file(log: &LogFile) {
    if !log.without_effect.is_empty() {
        say(&format!(
            "kube-ipvs does not rotate its log file, so these flags have no effect: {}",
            log.without_effect.join(", ")
        ));
    }
    let Some(path) = &log.path else { return };
    match open(path) {
        Ok(file) => drop(FILE.set((Arc::new(file), log.also_stdout))),
        Err(error) => {
            say(&format!("cannot log to {}: {error}. kube-ipvs logs to standard error instead", path.display()))
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

pub(super) fn start(logging: &Logging) {
    let (filter, refused) = filter(usual(logging), env::var(VARIABLE).ok().as_deref());
    let writer = match FILE.get() {
        None => BoxMakeWriter::new(io::stderr),
        Some((file, false)) => BoxMakeWriter::new(Arc::clone(file)),
        Some((file, true)) => BoxMakeWriter::new(Arc::clone(file).and(io::stdout)),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    match logging.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    let _ = IS_STARTED.set(());
    if let Some(refused) = refused {
        tracing::warn!("{refused}");
    }
}

/// Starts the log of commands other than the daemon: only warnings and errors, on standard error.
pub(super) fn start_for_a_command() {
    let (filter, refused) = filter("warn,kube_client=off".into(), env::var(VARIABLE).ok().as_deref());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    log.without_time().with_target(false).init();
    if let Some(refused) = refused {
        tracing::warn!("{refused}");
    }
}

/// Reports the error that ends the process: in the log and its format, if it has started.
pub(super) fn fail(error: &anyhow::Error) {
    match IS_STARTED.get() {
        Some(()) => tracing::error!("{error:#}"),
        None => say(&format!("{error:#}")),
    }
}

/// Writes a message to the log's destination before the log has started.
fn say(what: &str) {
    if let Some((mut file, also_stdout)) = FILE.get().map(|(file, also)| (&**file, *also)) {
        // If the disk is full, kube-ipvs has no place to report that.
        let _ = writeln!(file, "kube-ipvs: {what}");
        if !also_stdout {
            return;
        }
    }
    eprintln!("kube-ipvs: {what}");
}

fn usual(logging: &Logging) -> String {
    // kube-ipvs itself reports failures between it and the API server, with their consequences.
    match logging.verbosity.get() {
        EVERYTHING.. => "debug,kube_client=off".into(),
        DETAILS.. => "info,kube_ipvs=debug,proxier=debug,ipvs_netlink=debug,netlink_batch=debug,kube_client=off".into(),
        _ => "info,kube_client=off".into(),
    }
}

fn filter(usual: String, variable: Option<&str>) -> (EnvFilter, Option<String>) {
    let refused = match variable.filter(|text| !text.trim().is_empty()).map(EnvFilter::try_new) {
        Some(Ok(filter)) => return (filter, None),
        Some(Err(error)) => {
            Some(format!("kube-ipvs ignores {VARIABLE}: {error}. Use a filter such as debug, or info,kube_ipvs=debug"))
        }
        None => None,
    };
    (EnvFilter::new(usual), refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_log_variable_is_ignored_and_reported() {
        let check = |variable| {
            let (filter, refused) = filter("info".into(), variable);
            (filter.to_string(), refused.is_some())
        };
        assert_eq!(check(None), ("info".into(), false));
        assert_eq!(check(Some("")), ("info".into(), false));
        assert_eq!(check(Some("debug")), ("debug".into(), false));
        assert_eq!(check(Some("kube_ipvs=trace")), ("kube_ipvs=trace".into(), false));
        assert_eq!(check(Some("kube_ipvs=loud")), ("info".into(), true));
    }

    #[test]
    fn klog_levels_map_to_three_filters() {
        let usual = |level: i64| usual(&Logging { verbosity: level.try_into().unwrap(), ..Logging::default() });
        assert_eq!(usual(0), usual(3));
        assert_eq!(usual(4), usual(5));
        assert_eq!(usual(6), usual(10));
        assert!(usual(4).contains("proxier=debug") && usual(6).starts_with("debug"));
    }
}
