//! Runs in kube-proxy's place: under its name, with its flags and without a subcommand.

use std::{ffi::OsString, fs, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{ArgAction::Set, Parser};
use proxier::kernel::Kernel;

use super::{RunArgs, cleanup::Cleanup, go_runner, kernel, log, run};
use crate::{
    config::{self, boolean},
    host,
};

#[derive(Debug, Parser)]
#[command(name = "kube-proxy", version, about = "kube-ipvs in the place of kube-proxy --proxy-mode=ipvs")]
pub(super) struct DropIn {
    /// Remove from the kernel everything that kube-ipvs made, and exit
    #[arg(id = "cleanup", long, value_name = "BOOL", default_value = "false", action = Set, value_parser = boolean::parse)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_default_value = true)]
    cleanup: bool,

    /// Do the work that needs all privileges, and exit
    #[arg(id = "init-only", long, value_name = "BOOL", default_value = "false", action = Set, value_parser = boolean::parse)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_default_value = true)]
    init_only: bool,

    /// Write the configuration to this file, and exit
    #[arg(id = "write-config-to", long, value_name = "FILE")]
    write_config_to: Option<PathBuf>,

    #[command(flatten)]
    pub(super) run: RunArgs,
}

impl DropIn {
    pub(super) fn from_arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments.into_iter().map(with_dashes))
    }
}

pub(super) fn is_invoked(arguments: &[OsString]) -> bool {
    go_runner::name(arguments).is_some_and(|name| name == "kube-proxy")
}

/// The arguments of a daemon with this command line. None if it requests something else.
pub(super) fn run_args(arguments: Vec<OsString>) -> Option<RunArgs> {
    let parsed = DropIn::from_arguments(arguments).ok()?;
    (!parsed.cleanup && !parsed.init_only && parsed.write_config_to.is_none()).then_some(parsed.run)
}

pub(super) fn run(arguments: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let DropIn { cleanup, init_only, write_config_to, run } =
        DropIn::from_arguments(arguments).unwrap_or_else(|error| error.exit());
    if cleanup {
        return Cleanup::default().run();
    }
    if let Some(path) = write_config_to {
        let text = config::write(&run.configuration()?)?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    if init_only {
        let configuration = run.options.resolve()?.configuration;
        log::start(&configuration.logging);
        let mut kernel = kernel(&configuration.engine()?, configuration.kernel())?;
        host::prepare(&configuration).iter().for_each(|failure| tracing::warn!("{failure}"));
        kernel.prepare()?;
        return Ok(ExitCode::SUCCESS);
    }
    run::run(&run)
}

/// kube-proxy's flag library accepts `--cluster_cidr` for `--cluster-cidr`.
fn with_dashes(argument: OsString) -> OsString {
    match argument.to_str() {
        Some(text) if text.starts_with("--") => {
            let (name, value) = text.split_at(text.find('=').unwrap_or(text.len()));
            format!("{}{value}", name.replace('_', "-")).into()
        }
        _ => argument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_name_kube_proxy_selects_the_drop_in() {
        for (program, expected) in
            [("kube-proxy", true), ("/usr/local/bin/kube-proxy", true), ("/bin/kube-ipvs", false), ("", false)]
        {
            assert_eq!(is_invoked(&[program.into()]), expected, "{program}");
        }
        assert!(!is_invoked(&[]));
    }

    #[test]
    fn underscores_in_flag_names_become_dashes() {
        for (given, expected) in [
            ("--cluster_cidr=a_b", "--cluster-cidr=a_b"),
            ("--masquerade_all", "--masquerade-all"),
            ("node_1", "node_1"),
            ("-v=2", "-v=2"),
        ] {
            assert_eq!(with_dashes(given.into()), expected);
        }
    }

    #[test]
    fn daemon_set_command_line_is_parsed() {
        let line = "kube-proxy --config=/var/lib/kube-proxy/config.conf --hostname-override=node-1 -v 2 --v=4 \
                    --logging_format=json --profiling --feature-gates=WinDSR=true --write-config-to=/dev/null";
        DropIn::from_arguments(line.split_whitespace().map(Into::into)).unwrap();
    }

    #[test]
    fn boolean_flags_take_a_value_as_in_kube_proxy() {
        let parse = |line: &str| {
            let parsed = DropIn::from_arguments(line.split_whitespace().map(Into::into)).unwrap();
            (parsed.cleanup, parsed.init_only)
        };
        assert_eq!(parse("kube-proxy"), (false, false));
        assert_eq!(parse("kube-proxy --cleanup --init_only"), (true, true));
        assert_eq!(parse("kube-proxy --cleanup=true --init-only=false"), (true, false));
        assert_eq!(parse("kube-proxy --cleanup --cleanup=F"), (false, false));
    }
}
