//! The processors for which the published daemon is built.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use crate::testbench::{ensure_files, ensure_installed};

const ARM64: &str = "aarch64-unknown-linux-gnu";
const EMULATOR: &str = "qemu-aarch64-static";
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
        ensure_installed(&[(EMULATOR, "qemu-user-static")])?;
        let sh = Shell::new()?;
        let root = cmd!(sh, "rustc --print sysroot").quiet().read()?;
        if !Path::new(&root).join("lib/rustlib").join(ARM64).is_dir() {
            cmd!(sh, "rustup target add {ARM64}").run()?;
        }
        Ok(())
    }

    /// Runs `BINARY --version` and returns its output. A binary of another processor runs under emulation.
    pub(crate) fn version_of(self, binary: &Path) -> Result<String> {
        let sh = Shell::new()?;
        let command = match self {
            Self::Host => cmd!(sh, "{binary} --version"),
            Self::Arm64 => cmd!(sh, "{EMULATOR} {binary} --version"),
        };
        command.quiet().read().with_context(|| format!("{} does not start", binary.display()))
    }
}
