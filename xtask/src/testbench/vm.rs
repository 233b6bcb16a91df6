//! The bench as a virtual machine under qemu. It detects every hang: a boot that does not come up, a panic, a job that
//! does not end.

use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::job::Job;
use super::kernel::Kernel;
use super::silence::Silence;
use super::stream::{Output, Tail};
use super::{image, kvm};
use crate::janitor::Janitor;
use crate::workspace::Workspace;

/// A boot is given up if its console has not grown for this long. Under emulation the longest silence is three seconds.
const BOOT_HANG: Duration = Duration::from_secs(60);
/// A machine is given up if it has reported nothing for this long. It reports every ten seconds.
const HANG: Duration = Duration::from_secs(600);
/// The kernel prints its stacks within this time after the host requests them.
const STACKS: Duration = Duration::from_secs(10);
/// The kernel's panic if a task has waited for too long, as init.sh says.
const HUNG_TASK: &str = "hung_task";
/// The longest path of a Unix socket.
const SOCKET_PATH: usize = 107;
/// How many lines of a console are shown: a panic with the stacks of all processors.
const TAIL: usize = 100;
/// Interval between two scans of the console.
const SCAN: Duration = Duration::from_secs(1);
/// Interval between two reads of the machine's files.
const POLL: Duration = Duration::from_millis(10);

pub(crate) struct Vm {
    cache: PathBuf,
    kernel: Kernel,
    pub(super) kvm: bool,
    pub(super) processors: usize,
}

/// The machine hung: it reported nothing for a long time, or a task of its kernel waited for ever.
#[derive(Debug)]
pub(crate) struct Hung(String);

impl fmt::Display for Hung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Hung {}

enum Outcome {
    Exit(u8),
    /// The machine did not come up, and the job did not run.
    NoBoot(String),
    /// The machine ended, or was killed, while the job ran.
    Died(String),
    /// The machine was killed because it hung.
    Hung(String),
}

impl Vm {
    pub(crate) fn prepare(workspace: &Workspace, kernel: Option<&str>) -> Result<Self> {
        let cache = workspace.bench_directory()?;
        remove_leftovers(&cache)?;
        let kernel = Kernel::get(&cache, kernel)?;
        let kvm = kvm::works(&kernel, &cache)?;
        // More emulated processors disturb each other more.
        let processors = thread::available_parallelism().map_or(1, usize::from).min(4);
        Ok(Self { cache, kernel, kvm, processors })
    }

    pub(crate) fn run(&self, job: &Job, out: &mut dyn Output) -> Result<u8> {
        let directory = self.cache.join(format!("run-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let janitor = Janitor::removing(&directory)?;
        let image = directory.join("initramfs.cpio");
        image::write(&self.kernel, &self.cache, job, &directory, &image)?;
        // In the run's directory, so that an interrupt removes both. After a failure the console is kept.
        let console = directory.join("console");
        let kept = kept_console(&self.cache);

        // A boot is tried twice, because emulated clocks can stumble. The second try is without KVM, in case KVM is the
        // problem.
        let attempts: &[bool] = if self.kvm { &[true, false] } else { &[false, false] };
        let mut result = Err(anyhow::anyhow!("the bench tried no boot"));
        for &kvm in attempts {
            let mut machine = Machine::start(self, job, &directory, &image, &console, kvm)?;
            match machine.follow(job, out)? {
                Outcome::Exit(status) => {
                    result = Ok(status);
                    break;
                }
                Outcome::Died(why) => {
                    result = Err(anyhow::anyhow!("{why}{}", console_tail(&console, &kept)));
                    break;
                }
                Outcome::Hung(why) => {
                    result = Err(Hung(format!("{why}{}", console_tail(&console, &kept))).into());
                    break;
                }
                Outcome::NoBoot(why) => {
                    eprintln!("bench: {why}");
                    let tail = console_tail(&console, &kept);
                    result = Err(anyhow::anyhow!("the bench cannot start: {why}{tail}"));
                }
            }
        }
        if !matches!(result, Ok(0)) {
            fs::rename(&console, &kept)?;
            eprintln!("bench: the kernel's messages are in {}", kept.display());
        }
        janitor.finish()?;
        result
    }
}

/// Removes the files of interrupted runs, and old console logs.
fn remove_leftovers(cache: &Path) -> Result<()> {
    const KEPT: Duration = Duration::from_secs(24 * 3600);
    for entry in fs::read_dir(cache)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // run-PID, kernel-PACKAGE.unpacking-PID, modules-VERSION.unfinished-PID
        let is_unfinished = name.starts_with("run-") || name.contains(".unpacking-") || name.contains(".unfinished-");
        let process_is_gone = |process: &str| !Path::new("/proc").join(process).exists();
        if is_unfinished && name.rsplit('-').next().is_some_and(process_is_gone) {
            fs::remove_dir_all(&path)?;
        } else if name.starts_with("console-") && fs::metadata(&path)?.modified()?.elapsed().is_ok_and(|age| age > KEPT)
        {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// A new path: one process can run several machines.
fn kept_console(cache: &Path) -> PathBuf {
    let path = |number: u32| cache.join(format!("console-{}-{number}.log", std::process::id()));
    (1..u32::MAX).map(path).find(|path| !path.exists()).unwrap_or_else(|| path(0))
}

/// The end of a console, and the path where it is kept.
fn console_tail(console: &Path, kept: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    let shown = if tail.trim().is_empty() { "(nothing)".to_owned() } else { tail };
    format!("\nthe end of its console ({}):\n{shown}", kept.display())
}

/// A running qemu, which ends with this value.
struct Machine {
    qemu: Child,
    started: Instant,
    console: PathBuf,
    reports: PathBuf,
    monitor: PathBuf,
    stdout: Tail,
    stderr: Tail,
    /// Whether qemu uses our terminal, which it sets to raw mode.
    terminal: bool,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        if self.terminal {
            let _ = Command::new("stty").arg("sane").status();
        }
    }
}

impl Machine {
    fn start(vm: &Vm, job: &Job, directory: &Path, image: &Path, console: &Path, kvm: bool) -> Result<Self> {
        let [stdout, stderr, reports, monitor] =
            ["stdout", "stderr", "reports", "monitor"].map(|name| directory.join(name));
        let machine = if kvm { "KVM" } else { "emulated" };
        let size = fs::metadata(image)?.len() >> 20;
        eprintln!("bench: booting Linux {} ({machine}, initramfs {size} MB)", vm.kernel.version);
        File::create(&reports)?;
        File::create(console)?;
        let terminal = job.interactive && io::stdin().is_terminal() && io::stdout().is_terminal();
        let mut parameters = String::from(
            // A panic or an oops ends the machine, and so does an interrupt of the monitor; the kernel then prints the
            // stacks of all processors. The emulated timer can fail its check on a busy host. With norandmaps a program
            // has the same addresses every time and is translated once; without it emulation takes three times as long.
            // The last two options save time: shorter waits for all processors, and no profiles.
            "console=ttyS0 loglevel=7 panic=-1 oops=panic unknown_nmi_panic panic_print=0x40 reboot=t no_timer_check \
             net.ifnames=0 mitigations=off norandmaps rcupdate.rcu_expedited=1 apparmor=0",
        );
        if job.net {
            parameters.push_str(" bench.net=user");
        }
        if terminal {
            parameters.push_str(&format!(" bench.terminal={}", terminal_size()));
        }

        // setpriv: if this process is killed, the kernel kills qemu.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults", "-no-reboot", "-display", "none"]);
        // As qemu 7.2 emulates cmpxchg16b, Linux 6.12 panics during the boot: flags and free lists are damaged. With
        // erms and fsrm Linux copies and clears memory byte by byte, which takes a third of the emulator's time.
        let cpu = if kvm { "max" } else { "max,-cx16,-erms,-fsrm" };
        qemu.args(["-M", "q35", "-cpu", cpu, "-smp", &vm.processors.to_string()]);
        qemu.args(["-m", &format!("{}M", 2048 + 512 * vm.processors)]);
        qemu.args(["-accel", if kvm { "kvm" } else { "tcg,thread=multi" }]);
        qemu.arg("-kernel").arg(&vm.kernel.image).arg("-initrd").arg(image).args(["-append", &parameters]);
        qemu.arg("-chardev").arg(format!("file,id=console,path={}", console.display()));
        qemu.args(["-serial", "chardev:console"]);
        if terminal {
            qemu.args(["-chardev", "stdio,id=terminal,signal=off", "-serial", "chardev:terminal"]);
        }
        if job.net {
            qemu.args(["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]);
        }
        // Only a hang needs the monitor. Without it, the stacks are missing.
        if monitor.as_os_str().len() <= SOCKET_PATH {
            qemu.arg("-chardev").arg(format!("socket,id=monitor,path={},server=on,wait=off", monitor.display()));
            qemu.args(["-mon", "chardev=monitor"]);
        }
        // Without ioeventfd a write has reached its file when it returns, so no output is lost when the machine ends.
        qemu.args(["-device", "virtio-serial-pci,ioeventfd=off,max_ports=8"]);
        let file = |path: &Path| format!("file,path={}", path.display());
        let stdin = if terminal { "null" } else { "stdio,signal=off" }.to_owned();
        for (port, backend) in (1..).zip([stdin, file(&stdout), file(&stderr), file(&reports)]) {
            qemu.arg("-chardev").arg(format!("{backend},id=port{port}"));
            qemu.arg("-device").arg(format!("virtserialport,nr={port},chardev=port{port}"));
        }
        if !terminal {
            qemu.stdin(if stdin_is_data() { Stdio::inherit() } else { Stdio::null() });
            qemu.stdout(Stdio::null());
        }
        let [stdout, stderr] = [Tail::create(&stdout)?, Tail::create(&stderr)?];
        let qemu = qemu.spawn().context("starting qemu")?;
        Ok(Self {
            qemu,
            started: Instant::now(),
            console: console.to_owned(),
            reports,
            monitor,
            stdout,
            stderr,
            terminal,
        })
    }

    /// Shows the job's output until the job or the machine ends.
    fn follow(&mut self, job: &Job, out: &mut dyn Output) -> Result<Outcome> {
        let mut up = None;
        let mut scanned = Instant::now();
        let mut silence = Silence::default();
        loop {
            // Checked before the last read of the output: after its end the machine writes nothing.
            let ended = self.qemu.try_wait()?;
            self.copy(out)?;
            let reports = fs::read_to_string(&self.reports)?;
            if up.is_none() && reports.starts_with("up\n") {
                up = Some(Instant::now());
                eprintln!("bench: up after {:.1} s", self.started.elapsed().as_secs_f32());
            }
            if let Some(status) = parse_exit(&reports)? {
                // The status is written last, so all output is in the files by now.
                self.copy(out)?;
                return Ok(Outcome::Exit(status));
            }
            let mut failed = None;
            // Once a second is enough to scan the console and to notice silence.
            if ended.is_some() || scanned.elapsed() > SCAN {
                // If the host itself stalled, that counts as one scan.
                let since = scanned.elapsed().min(2 * SCAN);
                scanned = Instant::now();
                out.tick()?;
                silence.observe(since, fs::metadata(if up.is_none() { &self.console } else { &self.reports })?.len());
                failed =
                    self.panic()?.or_else(|| ended.map(|status| format!("the machine ended on its own ({status})")));
            }
            match (failed, up) {
                (Some(why), None) => return Ok(Outcome::NoBoot(format!("{why} before the machine had booted"))),
                (Some(why), Some(_)) => {
                    self.await_stacks();
                    let outcome = if why.contains(HUNG_TASK) { Outcome::Hung } else { Outcome::Died };
                    return Ok(outcome(format!("{why} before the command was done")));
                }
                (None, None) if silence.lasts() > BOOT_HANG => {
                    let seconds = silence.lasts().as_secs();
                    let why = format!("the machine has not booted, and has printed nothing for {seconds} s");
                    return Ok(Outcome::NoBoot(why));
                }
                (None, Some(_)) if !job.interactive && silence.lasts() > HANG => {
                    let seconds = silence.lasts().as_secs();
                    self.print_stacks();
                    return Ok(Outcome::Hung(format!("the machine hangs: it has reported nothing for {seconds} s")));
                }
                (None, Some(up)) if !job.interactive && up.elapsed() > job.timeout => {
                    return Ok(Outcome::Died(format!("the command was not done after {} s", job.timeout.as_secs())));
                }
                _ => thread::sleep(POLL),
            }
        }
    }

    /// Interrupts the kernel, which prints its stacks to the console. The machine is given up, so errors do not matter.
    fn print_stacks(&mut self) {
        if let Ok(mut monitor) = UnixStream::connect(&self.monitor) {
            let _ = monitor.write_all(b"nmi\n");
            self.await_stacks();
        }
    }

    /// A kernel that panics ends the machine when it has printed its stacks.
    fn await_stacks(&mut self) {
        let start = Instant::now();
        while start.elapsed() < STACKS && matches!(self.qemu.try_wait(), Ok(None)) {
            thread::sleep(POLL);
        }
    }

    fn copy(&mut self, out: &mut dyn Output) -> Result<()> {
        // Standard error first: a scenario writes the reason there before libtest reports the failure.
        self.stderr.copy(|bytes| out.stderr(bytes))?;
        self.stdout.copy(|bytes| out.stdout(bytes))
    }

    /// The kernel's panic message, if it panicked. A panic should end the machine, and the kernel can be too broken for
    /// that.
    fn panic(&self) -> Result<Option<String>> {
        let console = fs::read(&self.console)?;
        let console = String::from_utf8_lossy(&console);
        let line = console.lines().find_map(|line| line.find("Kernel panic - not syncing").map(|at| &line[at..]));
        Ok(line.map(str::to_owned))
    }
}

/// The status in the line "exit STATUS", once that line is complete.
fn parse_exit(reports: &str) -> Result<Option<u8>> {
    let complete = reports.rsplit_once('\n').map_or("", |(complete, _)| complete);
    match complete.lines().find_map(|line| line.strip_prefix("exit ")) {
        None => Ok(None),
        Some(status) => match status.parse() {
            Ok(status) => Ok(Some(status)),
            Err(_) => bail!("the machine reported an exit status of {status:?}"),
        },
    }
}

/// Whether standard input is a pipe or a file that the job can read. A terminal belongs to interactive jobs.
fn stdin_is_data() -> bool {
    fs::metadata("/dev/stdin").is_ok_and(|stdin| stdin.file_type().is_fifo() || stdin.is_file())
}

/// ROWSxCOLUMNS of our terminal.
fn terminal_size() -> String {
    let size = Command::new("stty").arg("size").stdin(Stdio::inherit()).output();
    let size = size.map(|output| String::from_utf8_lossy(&output.stdout).trim().replace(' ', "x")).unwrap_or_default();
    if size.is_empty() || size == "0x0" { "24x80".to_owned() } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_status_is_read_only_from_a_complete_line() {
        assert_eq!(parse_exit("").unwrap(), None);
        assert_eq!(parse_exit("up\n").unwrap(), None);
        assert_eq!(parse_exit("up\nexit 1").unwrap(), None);
        assert_eq!(parse_exit("up\nexit 137\n").unwrap(), Some(137));
        assert!(parse_exit("up\nexit x\n").is_err());
    }
}
