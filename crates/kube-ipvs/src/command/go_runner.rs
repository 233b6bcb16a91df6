//! Runs under the name of go-runner (kube-log-runner), by which kops and others start kube-proxy. Its flags give the
//! destination of the log, and the rest of the command line is kube-proxy's. Both programs are kube-ipvs, so it goes on
//! as kube-proxy in the same process.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};

use crate::config::boolean;

#[derive(Debug, Default, PartialEq)]
pub(super) struct LogFile {
    /// The log file. None: the log goes only to standard error.
    pub(super) path: Option<PathBuf>,
    pub(super) also_stdout: bool,
    pub(super) without_effect: Vec<String>,
}

pub(super) fn is_invoked(arguments: &[OsString]) -> bool {
    name(arguments).is_some_and(|name| name == "go-runner" || name == "kube-log-runner")
}

pub(super) fn name(arguments: &[OsString]) -> Option<&OsStr> {
    arguments.first().and_then(|program| Path::new(program).file_name())
}

/// Returns the destination of the log, and the command line that go-runner would start.
pub(super) fn unwrap(arguments: Vec<OsString>) -> anyhow::Result<(LogFile, Vec<OsString>)> {
    let mut log = LogFile::default();
    let mut redirect = true;
    let mut words = arguments.into_iter().skip(1);
    let mut command = Vec::new();
    while let Some(word) = words.next() {
        // Go parses flags with one dash or two, up to the first word that is not a flag.
        let flag = word.to_str().and_then(|text| text.strip_prefix('-')).filter(|flag| !flag.is_empty());
        let Some(flag) = flag else {
            command.push(word);
            break;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        if flag.is_empty() {
            break;
        }
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        let is_on = || value.map_or(Ok(true), boolean::parse).map_err(|error| anyhow::anyhow!("--{name}: {error}"));
        match name {
            "also-stdout" => log.also_stdout = is_on()?,
            "redirect-stderr" => redirect = is_on()?,
            "log-file" | "log-file-size" | "log-file-age" | "flush-interval" => {
                let value = match value {
                    Some(value) => value.to_owned(),
                    None => words.next().with_context(|| format!("--{name} needs a value"))?.to_string_lossy().into(),
                };
                match name {
                    "log-file" => log.path = Some(PathBuf::from(value)).filter(|path| *path != Path::new("")),
                    _ => log.without_effect.push(format!("--{name}")),
                }
            }
            _ => bail!("go-runner has no flag --{name}"),
        }
    }
    command.extend(words);
    if !redirect {
        // Only kube-proxy's standard output would go to the file, and kube-proxy prints nothing there.
        log.path = None;
    }
    let program = self::name(&command).context("go-runner has no command to run")?;
    ensure!(
        program == "kube-proxy" || program == "kube-ipvs",
        "this image can run only kube-proxy and kube-ipvs, not {}",
        program.display()
    );
    Ok((log, command))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unwrapped(line: &str) -> Result<(LogFile, String), String> {
        let words = line.split_whitespace().map(OsString::from).collect();
        let (log, command) = unwrap(words).map_err(|error| error.to_string())?;
        let command: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
        Ok((log, command.join(" ")))
    }

    fn log(path: &str, also_stdout: bool) -> LogFile {
        let path = Some(PathBuf::from(path)).filter(|path| *path != Path::new(""));
        LogFile { path, also_stdout, without_effect: Vec::new() }
    }

    #[test]
    fn program_name_selects_go_runner() {
        let is_invoked = |program: &str| is_invoked(&[program.into()]);
        assert!(is_invoked("/go-runner") && is_invoked("kube-log-runner"));
        assert!(!is_invoked("kube-proxy") && !is_invoked(""));
    }

    #[test]
    fn go_runner_flags_end_where_the_kube_proxy_command_begins() {
        let proxy = "/usr/local/bin/kube-proxy --v=2 --log-file=x";
        for (flags, expected) in [
            ("", log("", false)),
            ("--log-file=/var/log/kube-proxy.log --also-stdout", log("/var/log/kube-proxy.log", true)),
            ("-log-file /a -also-stdout=false", log("/a", false)),
            ("--log-file=/a --", log("/a", false)),
            ("--log-file=/a --redirect-stderr=false", log("", false)),
            ("--log-file=", log("", false)),
        ] {
            assert_eq!(unwrapped(&format!("/go-runner {flags} {proxy}")), Ok((expected, proxy.into())), "{flags}");
        }
        let (log, _) = unwrapped(&format!("go-runner --log-file-size=1Mi --flush-interval 5s {proxy}")).unwrap();
        assert_eq!(log.without_effect, ["--log-file-size", "--flush-interval"]);
    }

    #[test]
    fn go_runner_names_the_flag_or_command_that_it_rejects() {
        for (line, expected) in [
            ("go-runner --log-file=/a", "go-runner has no command to run"),
            ("go-runner --log-file", "--log-file needs a value"),
            ("go-runner --quiet kube-proxy", "go-runner has no flag --quiet"),
            ("go-runner --also-stdout=x kube-proxy", "--also-stdout: \"x\" is neither true nor false"),
            (
                "go-runner /usr/local/bin/kube-apiserver",
                "this image can run only kube-proxy and kube-ipvs, not kube-apiserver",
            ),
        ] {
            assert_eq!(unwrapped(line), Err(expected.into()));
        }
    }
}
