//! Tests whether KVM boots a guest here. Access to `/dev/kvm` is not enough: in many virtual machines qemu starts, and
//! the guest never boots.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::kernel::Kernel;

/// A working guest prints its first line within a second.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// Without a root file system it panics, and so ends, within a few more seconds.
const END: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

const WORKS: &str = "works";

/// Tries it once, and keeps the answer in `cache` until the host boots again.
pub(crate) fn works(kernel: &Kernel, cache: &Path) -> Result<bool> {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(false);
    }
    let memory = cache.join("kvm");
    let host = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    if let Some(answer) = remembered(&fs::read_to_string(&memory).unwrap_or_default(), &host) {
        return Ok(answer == WORKS);
    }
    let answer = match boots(kernel, cache)? {
        Ok(()) => WORKS.to_owned(),
        Err(why) => {
            eprintln!(
                "bench: this machine has KVM, but {why}. The bench emulates its machine instead, which is slower. {} \
                 keeps this result until the next boot",
                memory.display()
            );
            why
        }
    };
    fs::write(&memory, format!("{answer}\n{host}")).with_context(|| format!("writing {}", memory.display()))?;
    Ok(answer == WORKS)
}

/// The answer in the file, if it is from the current boot of the host.
fn remembered<'a>(file: &'a str, host: &str) -> Option<&'a str> {
    let (answer, known) = file.split_once('\n')?;
    (known == host).then_some(answer)
}

/// Boots the kernel without an init, or returns why it did not boot.
fn boots(kernel: &Kernel, cache: &Path) -> Result<Result<(), String>> {
    let console = cache.join(format!("kvm-console-{}", std::process::id()));
    let qemu = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults", "-no-reboot", "-display", "none"])
        .args(["-M", "q35", "-cpu", "max", "-accel", "kvm", "-m", "512M", "-kernel"])
        .arg(&kernel.image)
        .args(["-append", "console=ttyS0 panic=-1 reboot=t", "-serial"])
        .arg(format!("file:{}", console.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting qemu")?;
    let outcome = watch(qemu, &console);
    let _ = fs::remove_file(&console);
    outcome
}

fn watch(mut qemu: Child, console: &Path) -> Result<Result<(), String>> {
    // Counts looks instead of time: a host that stalled has not looked.
    let mut looks = 0;
    let outcome = loop {
        let ended = qemu.try_wait()?;
        let printed = fs::read(console).unwrap_or_default();
        let printed = String::from_utf8_lossy(&printed);
        if printed.contains("Kernel panic - not syncing: VFS") {
            break Ok(());
        }
        if let Some(status) = ended {
            break Err(format!("qemu cannot use it ({status})"));
        }
        if printed.is_empty() && POLL * looks > FIRST_WORD {
            break Err(format!("a guest has printed nothing after {} s", FIRST_WORD.as_secs()));
        }
        if POLL * looks > END {
            break Err(format!("a guest has not booted after {} s", END.as_secs()));
        }
        thread::sleep(POLL);
        looks += 1;
    };
    let _ = qemu.kill();
    qemu.wait()?;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_answer_is_remembered_until_the_next_boot() {
        assert_eq!(remembered("works\nboot-1\n", "boot-1\n"), Some("works"));
        assert_eq!(remembered("a guest is silent\nboot-1\n", "boot-1\n"), Some("a guest is silent"));
        assert_eq!(remembered("works\nboot-1\n", "boot-2\n"), None);
        assert_eq!(remembered("", "boot-2\n"), None);
    }
}
