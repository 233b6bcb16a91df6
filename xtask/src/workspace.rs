//! The workspace as cargo describes it, and cargo's builds.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::image::PROFILE;
use crate::platform::Platform;

/// The crate with the packet-level scenarios, which run on the bench only.
pub(crate) const SCENARIOS: &str = "scenarios";

pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) packages: Vec<Package>,
}

pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) targets: Vec<Target>,
    /// Cargo's metadata of the package.
    pub(crate) manifest: Value,
}

pub(crate) struct Target {
    pub(crate) name: String,
    /// bin, lib, test, example, …
    pub(crate) kind: String,
    /// Whether a plain `cargo test` runs it.
    pub(crate) tested: bool,
}

pub(crate) struct Executable {
    pub(crate) package: String,
    pub(crate) target: String,
    pub(crate) path: PathBuf,
    pub(crate) sort: Sort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Program,
    Test,
    Example,
}

impl Workspace {
    pub(crate) fn load() -> Result<Self> {
        let sh = Shell::new()?;
        let text = cmd!(sh, "cargo metadata --format-version 1 --no-deps").quiet().read()?;
        let metadata: Value = serde_json::from_str(&text).context("reading cargo metadata")?;
        let path = |key: &str| -> Result<PathBuf> {
            Ok(metadata[key].as_str().with_context(|| format!("cargo metadata has no {key}"))?.into())
        };
        let packages = list(&metadata["packages"]).iter().map(package).collect();
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")?, packages })
    }

    pub(crate) fn bench_directory(&self) -> Result<PathBuf> {
        let directory = self.target.join("bench");
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// The demo, the daemon and the program that confines it, for the PATH of jobs.
    pub(crate) fn build_programs(&self) -> Result<Vec<Executable>> {
        let packages = ["--package", SCENARIOS, "--package", "kube-ipvs"];
        self.build(&[&["build"], &packages[..], &["--bin", "demo", "--bin", "confined", "--bin", "kube-ipvs"]].concat())
    }

    pub(crate) fn build_examples(&self) -> Result<Vec<Executable>> {
        self.build(&["build", "--workspace", "--examples"])
    }

    /// The daemon: one static file without dependencies on the machine (see .cargo/config.toml).
    ///
    /// The C library is the host's, which contains the resolver since glibc 2.34. No other toolchain is needed.
    pub(crate) fn build_daemon(&self, profile: &[&str]) -> Result<Executable> {
        let command = ["build", "--package", "kube-ipvs", "--bins"];
        self.build(&[&command, profile].concat())?.pop().context("cargo built no kube-ipvs")
    }

    /// Builds the daemon for publication. The binary does not contain the paths of this machine, so it does not depend
    /// on them.
    pub(crate) fn build_published_daemon(&self, platform: Platform) -> Result<Executable> {
        let home = env::home_dir().context("no home directory")?;
        let cargo = env::var_os("CARGO_HOME").map_or(home.join(".cargo"), PathBuf::from);
        let flags = [(&cargo, "/cargo"), (&self.root, "/kube-ipvs")]
            .map(|(from, to)| format!("'--remap-path-prefix={}={to}'", from.display()))
            .join(", ");
        // Cargo adds these to the flags of .cargo/config.toml.
        let config = format!("target.'cfg(target_env = \"gnu\")'.rustflags=[{flags}]");
        self.build_daemon(&[PROFILE, platform.flags(), &["--config", &config]].concat())
    }

    /// Runs cargo and returns the executables that it made. Cargo's progress and errors go to standard error.
    pub(crate) fn build(&self, args: &[&str]) -> Result<Vec<Executable>> {
        eprintln!("xtask: cargo {}", args.join(" "));
        let output = cargo()
            .args(args)
            .arg("--message-format=json-render-diagnostics")
            .current_dir(&self.root)
            .stderr(Stdio::inherit())
            .output()
            .context("starting cargo")?;
        ensure!(output.status.success(), "cargo {} failed", args.join(" "));
        parse_executables(&String::from_utf8(output.stdout)?)
    }

    pub(crate) fn libraries(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.manifest["publish"].is_null())
    }

    /// Integration tests that a plain `cargo test` does not run: (package, test).
    pub(crate) fn untested(&self) -> impl Iterator<Item = (&str, &str)> {
        self.packages.iter().flat_map(move |package| {
            package
                .targets
                .iter()
                .filter(|target| target.kind == "test" && !target.tested)
                .map(|target| (package.name.as_str(), target.name.as_str()))
        })
    }

    /// Integration tests that need a kernel, by convention those whose name begins with "kernel": (package, test).
    pub(crate) fn kernel_tests(&self) -> Vec<(&str, &Target)> {
        let others = self.packages.iter().filter(|package| package.name != SCENARIOS);
        others
            .flat_map(|package| package.targets.iter().map(|target| (package.name.as_str(), target)))
            .filter(|(_, target)| target.kind == "test" && target.name.starts_with("kernel"))
            .collect()
    }
}

impl Package {
    /// The name of its library in Rust, such as `proxier` for `kube-ipvs-proxier`.
    pub(crate) fn crate_name(&self) -> Result<&str> {
        let library = self.targets.iter().find(|target| target.kind == "lib");
        library.map(|target| &*target.name).with_context(|| format!("{} has no library", self.name))
    }
}

/// Cargo sets this variable in the programs that it runs, such as this one, to the program's own manifest. A build
/// script that reads it would see a change, and cargo would compile the dependents again.
pub(crate) const OF_OUR_OWN: &str = "CARGO_MANIFEST_DIR";

pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.env_remove(OF_OUR_OWN);
    cargo
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn package(value: &Value) -> Package {
    let target = |target: &Value| Target {
        name: text(&target["name"]),
        kind: text(&target["kind"][0]),
        tested: target["test"].as_bool().unwrap_or(false),
    };
    let targets = list(&value["targets"]).iter().map(target).collect();
    Package { name: text(&value["name"]), targets, manifest: value.clone() }
}

/// `path+file:///x/tests#scenarios@0.1.0`, or without the name if that is the directory's:
/// `path+file:///x/xtask#0.1.0`.
fn package_of(id: &str) -> String {
    let (place, version) = id.rsplit_once('#').unwrap_or((id, ""));
    let name = match version.split_once('@') {
        Some((name, _)) => name,
        None => place.rsplit('/').next().unwrap_or_default(),
    };
    name.to_owned()
}

fn parse_executables(messages: &str) -> Result<Vec<Executable>> {
    let mut executables = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Value = serde_json::from_str(line).context("reading cargo's messages")?;
        if let Some(path) = message["executable"].as_str() {
            executables.push(Executable {
                package: package_of(&text(&message["package_id"])),
                target: text(&message["target"]["name"]),
                path: path.into(),
                sort: match (message["profile"]["test"] == true, message["target"]["kind"][0] == "example") {
                    (true, _) => Sort::Test,
                    (false, true) => Sort::Example,
                    (false, false) => Sort::Program,
                },
            });
        }
    }
    Ok(executables)
}

impl Executable {
    /// Unique, because the file names of tests have a hash.
    pub(crate) fn file_name(&self) -> &Path {
        self.path.file_name().map_or(Path::new(""), Path::new)
    }

    pub(crate) fn place(&self) -> PathBuf {
        let directory = match self.sort {
            Sort::Program => "bin",
            Sort::Test => "tests",
            Sort::Example => "examples",
        };
        Path::new(directory).join(self.file_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_in_cargo_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"a"},"executable":null}
{"reason":"compiler-artifact","package_id":"path+file:///x/tests#scenarios@0.1.0","target":{"kind":["bin"],"name":"demo"},"profile":{"test":false},"executable":"/t/debug/demo"}
{"reason":"compiler-artifact","package_id":"path+file:///x/a#0.1.0","target":{"kind":["example"],"name":"b"},"profile":{"test":false},"executable":"/t/debug/examples/b"}
{"reason":"compiler-artifact","package_id":"path+file:///x/xtask#0.1.0","target":{"name":"xtask"},"profile":{"test":true},"executable":"/t/debug/deps/xtask-1"}
{"reason":"build-finished","success":true}"#;
        let executables = parse_executables(messages).unwrap();
        let found = executables.iter().map(|one| (&*one.package, &*one.target, one.place()));
        let expected = [
            ("scenarios", "demo", "bin/demo".into()),
            ("a", "b", "examples/b".into()),
            ("xtask", "xtask", "tests/xtask-1".into()),
        ];
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }
}
