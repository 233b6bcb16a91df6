//! The query of `diff` and `explain`: it reads the objects once, and computes the daemon's state from them.

use std::{ffi::OsString, fs, os::unix::ffi::OsStringExt, time::Duration};

use clap::Parser;
use proxier::Engine;

use super::{Cli, Command, RunArgs, drop_in, engine, go_runner, log, tell};
use crate::config::{Configuration, GoDuration};

#[derive(Debug, clap::Args)]
pub(super) struct Query {
    /// How long to wait for the API server
    #[arg(long, value_name = "DURATION", default_value_t = GoDuration::seconds(30))]
    timeout: GoDuration,
    #[command(flatten)]
    run: RunArgs,
}

pub(super) struct Answer {
    pub(super) configuration: Configuration,
    pub(super) engine: Engine,
    pub(super) is_of_an_api_server: bool,
}

impl Query {
    /// Fails if the configuration is unusable, or if the API server does not answer in time. Then standard error has
    /// the reason.
    pub(super) fn ask(&self) -> anyhow::Result<Answer> {
        log::start_for_a_command();
        let args = args(&self.run);
        let configuration = args.configuration()?;
        let changes = args.open(&configuration)?.look(self.timeout.0.max(Duration::from_millis(1)))?;
        tell(&changes);
        let mut engine = engine(&configuration)?;
        engine.set_complete(changes.complete);
        changes.events.into_iter().for_each(|event| engine.apply(event));
        Ok(Answer { configuration, engine, is_of_an_api_server: args.manifests.is_none() })
    }
}

/// The arguments of a command. Without flags, those of the daemon, if this is its container.
pub(super) fn args(run: &RunArgs) -> RunArgs {
    if run.is_given() {
        if !run.options.has_file() {
            eprintln!("kube-ipvs: --config is not set: using these flags, and the defaults of all others");
        }
        return run.clone();
    }
    let line = words(&fs::read("/proc/1/cmdline").unwrap_or_default());
    let Some(daemon) = daemon(line.clone()) else {
        eprintln!("kube-ipvs: no flags are set, and process 1 is not kube-ipvs: using the defaults");
        return run.clone();
    };
    let line: Vec<_> = line.iter().map(|word| word.to_string_lossy()).collect();
    eprintln!("kube-ipvs: using the flags of the daemon in this container: {}", line.join(" "));
    daemon
}

fn words(line: &[u8]) -> Vec<OsString> {
    let line = line.strip_suffix(&[0]).unwrap_or(line);
    line.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect()
}

/// The arguments of a daemon with this command line. None for another program or command.
fn daemon(mut line: Vec<OsString>) -> Option<RunArgs> {
    if go_runner::is_invoked(&line) {
        (_, line) = go_runner::unwrap(line).ok()?;
    }
    if drop_in::is_invoked(&line) {
        return drop_in::run_args(line);
    }
    if go_runner::name(&line)? != "kube-ipvs" {
        return None;
    }
    match Cli::try_parse_from(line).ok()?.command {
        Command::Run(args) => Some(args),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemon_flags_are_found_in_its_command_line() {
        let found = |line: &str| {
            let args = daemon(words(line.replace(' ', "\0").as_bytes()))?;
            let configuration = args.options.resolve().unwrap().configuration;
            Some(configuration.hostname_override.given().unwrap_or_default().to_owned())
        };
        let node_1 = Some("node-1".to_owned());
        assert_eq!(found("/usr/local/bin/kube-ipvs run --hostname-override=node-1 "), node_1);
        assert_eq!(found("kube-proxy --hostname_override=node-1"), node_1);
        assert_eq!(found("/go-runner --log-file=/a /usr/local/bin/kube-proxy --hostname-override=node-1 "), node_1);
        assert_eq!(found("kube-ipvs diff --hostname-override=node-1 "), None);
        assert_eq!(found("kube-proxy --cleanup "), None);
        assert_eq!(found("/sbin/init run "), None);
        assert_eq!(found(""), None);
    }
}
