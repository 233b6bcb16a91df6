//! The processors for which the published daemon is built.

use std::path::Path;

use anyhow::{Result, ensure};
use xshell::{Shell, cmd};

use crate::testbench::ensure_files;

const ARM64: &str = "aarch64-unknown-linux-gnu";
/// Debian's cross compiler, and a C library for static binaries.
const CROSS: [(&str, &str); 2] = [
    ("/usr/bin/aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ("/usr/aarch64-linux-gnu/lib/libc.a", "libc6-dev-arm64-cross"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Platform {
    Host,
    /// Needs a cross compiler, because this machine has another processor.
    Arm64,
}

impl Platform {
    /// The name that container images and Debian use.
    pub(crate) fn architecture(self) -> &'static str {
        match (self, std::env::consts::ARCH) {
            (Self::Arm64, _) | (Self::Host, "aarch64") => "arm64",
            (Self::Host, "x86_64") => "amd64",
            (Self::Host, other) => other,
        }
    }

    pub(crate) fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Host => &[],
            Self::Arm64 => {
                &["--target", ARM64, "--config", "target.aarch64-unknown-linux-gnu.linker=\"aarch64-linux-gnu-gcc\""]
            }
        }
    }

    /// Installs the missing parts of the cross compiler.
    pub(crate) fn prepare(self) -> Result<()> {
        if self == Self::Host {
            return Ok(());
        }
        ensure!(std::env::consts::ARCH == "x86_64", "only x86_64 can build for arm64 too");
        ensure_files(&CROSS)?;
        let sh = Shell::new()?;
        let root = cmd!(sh, "rustc --print sysroot").quiet().read()?;
        if !Path::new(&root).join("lib/rustlib").join(ARM64).is_dir() {
            cmd!(sh, "rustup target add {ARM64}").run()?;
        }
        Ok(())
    }
}
