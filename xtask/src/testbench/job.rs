//! A command to run on the bench, and the files that it needs there.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::workspace::Executable;

/// A command with its environment. Its files are in one directory, the root, where the command starts. KUBE_IPVS_ROOT
/// names the root, KUBE_IPVS_BIN the daemon's binary and KUBE_IPVS_MANIFESTS the example manifests.
pub(crate) struct Job {
    command: Vec<String>,
    files: Vec<Payload>,
    /// Network access to the host and beyond.
    pub(crate) net: bool,
    /// A DNS server and a database for Services.
    pub(crate) servers: bool,
    /// Scenarios mark on standard error when they begin and why they fail, for [`crate::progress`].
    pub(crate) marks: bool,
    /// The command gets the user's terminal, and no timeout.
    pub(crate) interactive: bool,
    pub(crate) timeout: Duration,
}

pub(crate) struct Payload {
    pub(crate) host: PathBuf,
    /// The path below the root.
    pub(crate) guest: PathBuf,
    /// Remove debug information, to keep the image small.
    pub(crate) strip: bool,
}

impl Job {
    pub(crate) fn new(command: Vec<String>) -> Self {
        Self {
            command,
            files: Vec::new(),
            net: false,
            servers: false,
            marks: false,
            interactive: false,
            timeout: Duration::from_secs(30 * 60),
        }
    }

    /// A job without a command is an interactive shell.
    pub(crate) fn is_shell(&self) -> bool {
        self.command.is_empty()
    }

    pub(crate) fn manifests(&mut self, workspace: &Path) {
        let manifests = workspace.join("manifests");
        if manifests.is_dir() {
            self.file(&manifests, "manifests");
        }
    }

    pub(crate) fn files(&self) -> &[Payload] {
        &self.files
    }

    /// Adds executables of the workspace: programs and examples, which are on the PATH, and tests.
    pub(crate) fn executables<'a>(&mut self, executables: impl IntoIterator<Item = &'a Executable>) {
        let payload = |one: &Executable| Payload { host: one.path.clone(), guest: one.place(), strip: true };
        self.files.extend(executables.into_iter().map(payload));
    }

    pub(crate) fn file(&mut self, host: &Path, guest: impl Into<PathBuf>) {
        self.files.push(Payload { host: host.to_owned(), guest: guest.into(), strip: false });
    }

    /// Adds a file of the user as with/NAME.
    pub(crate) fn with(&mut self, host: &Path) -> Result<()> {
        let host = host.canonicalize().with_context(|| format!("--with {}", host.display()))?;
        let name = host.file_name().with_context(|| format!("--with {} has no name", host.display()))?;
        let guest = Path::new("with").join(name);
        self.file(&host, guest);
        Ok(())
    }

    pub(crate) fn script(&self, root: &str) -> String {
        let mut script = String::from("#!/bin/sh\n");
        let system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/busybox";
        let mut export = |name: &str, value: &str| script.push_str(&format!("export {name}={}\n", quote(value)));
        for (name, value) in env::vars().filter(|(name, _)| is_passed_on(name)) {
            export(&name, &value);
        }
        export("PATH", &format!("{root}/bin:{root}/examples:{root}/with:{system}"));
        export("KUBE_IPVS_ROOT", root);
        export("KUBE_IPVS_BIN", &format!("{root}/bin/kube-ipvs"));
        export("KUBE_IPVS_MANIFESTS", &format!("{root}/manifests"));
        if self.marks {
            export("KUBE_IPVS_MARKS", "1");
        }
        script.push_str(&format!("cd {}\n", quote(root)));
        if self.command.is_empty() {
            script.push_str("if command -v bash >/dev/null; then exec bash; else exec sh; fi\n");
        } else {
            let words: Vec<String> = self.command.iter().map(|word| quote(word)).collect();
            script.push_str(&format!("exec {}\n", words.join(" ")));
        }
        script
    }
}

fn is_passed_on(name: &str) -> bool {
    name == "TERM" || ["RUST_", "PROPTEST_", "KUBE_IPVS_"].iter().any(|prefix| name.starts_with(prefix))
}

pub(crate) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words_survive_the_shell() {
        let words = ["plain", "two words", "it's", "$HOME `x` \"y\" \\", "", "line\nbreak"];
        let script = format!("printf '%s|' {}", words.map(quote).join(" "));
        let output = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), words.map(|word| format!("{word}|")).concat());
    }

    #[test]
    fn job_script_exports_the_environment_and_executes_the_command() {
        let script = Job::new(vec!["ipvsadm".into(), "-Ln".into()]).script("/kube-ipvs");
        assert!(script.contains("export KUBE_IPVS_BIN='/kube-ipvs/bin/kube-ipvs'\n"));
        assert!(script.ends_with("cd '/kube-ipvs'\nexec 'ipvsadm' '-Ln'\n"));
    }
}
