//! Servers that are separate programs: dnsmasq as the cluster's DNS server, MariaDB as the database. And keepalived,
//! which moves an address between nodes.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::client::Failure;
use crate::namespace::Namespace;
use crate::servers::Transport;
use crate::wait::{eventually, time_out};

/// A program that runs in a namespace. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    child: Child,
}

impl Program {
    /// Starts a program inside a namespace. Its output goes to `log`.
    pub fn start(namespace: &Namespace, program: &str, arguments: &[String], log: &Path) -> Result<Self> {
        let output = File::create(log)?;
        let errors = output.try_clone()?;
        let child = namespace.enter(|| {
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null()).stdout(output).stderr(errors);
            command.spawn().with_context(|| format!("starting {program}"))
        })?;
        Ok(Self { child })
    }

    /// The process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks the program to end, and waits until it has.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process has a number")?;
        kill_process(pid, Signal::TERM)?;
        Ok(self.child.wait()?)
    }

    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    pub(crate) fn await_port(mut self, namespace: &Arc<Namespace>, port: u16, log: &Path) -> Result<Self> {
        let local = format!("127.0.0.1:{port}");
        let ready = eventually(|| {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended: {status}");
            }
            match namespace.connect(Transport::Tcp, &local) {
                Ok(_) => Ok(()),
                Err(error) if error.downcast_ref() == Some(&Failure::Refused) => {
                    bail!("it does not listen yet")
                }
                Err(error) => Err(error),
            }
        });
        let said = || fs::read_to_string(log).unwrap_or_default();
        ready.with_context(|| format!("waiting for port {port} in {}; it said:\n{}", namespace.name(), said()))?;
        Ok(self)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a DNS server (dnsmasq) on port 53, UDP and TCP. It serves `records` (name, address) and answers the TXT query
/// for `whoami.cluster.local` with its own name.
pub fn dns_server(
    namespace: &Arc<Namespace>,
    name: &str,
    directory: &Path,
    records: &[(&str, &str)],
) -> Result<Program> {
    dns_server_at(namespace, name, directory, records, &[])
}

/// Starts such a DNS server at these addresses of the namespace and on 127.0.0.1 only. Without addresses it listens on
/// all.
pub fn dns_server_at(
    namespace: &Arc<Namespace>,
    name: &str,
    directory: &Path,
    records: &[(&str, &str)],
    addresses: &[&str],
) -> Result<Program> {
    let mut arguments: Vec<String> = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--no-daemon",
        "--user=root",
        "--pid-file=",
        "--log-facility=-",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.push(format!("--txt-record=whoami.cluster.local,{name}"));
    arguments.extend(records.iter().map(|(record, address)| format!("--address=/{record}/{address}")));
    if !addresses.is_empty() {
        arguments.extend(["--bind-interfaces".to_owned(), "--listen-address=127.0.0.1".to_owned()]);
        arguments.extend(addresses.iter().map(|address| format!("--listen-address={address}")));
    }
    let log = directory.join(format!("{name}.dnsmasq.log"));
    let server = Program::start(namespace, "dnsmasq", &arguments, &log)?;
    server.await_port(namespace, 53, &log)
}

/// Queries a DNS server with `dig` and returns its answer, one record a line.
pub fn dig(namespace: &Namespace, server: &str, question: &[&str]) -> Result<String> {
    let (server, time) = (format!("@{server}"), format!("+time={}", time_out()));
    // One try: a retry would hide a lost query.
    let mut arguments = vec!["+short", &time, "+tries=1", server.as_str()];
    arguments.extend(question);
    Ok(namespace.run("dig", &arguments)?.trim_end().to_owned())
}

/// Starts a database server (MariaDB) on port 3306 with an empty data directory and without passwords.
pub fn database(namespace: &Arc<Namespace>, name: &str, directory: &Path) -> Result<Program> {
    let data = directory.join(format!("{name}.data"));
    fs::create_dir_all(&data)?;
    let data = data.display();
    let arguments = [
        "--no-defaults".to_owned(),
        // Without system tables there is no bootstrap, so the server starts at once.
        "--skip-grant-tables".to_owned(),
        "--skip-networking=0".to_owned(),
        "--port=3306".to_owned(),
        "--user=root".to_owned(),
        // InnoDB would first write hundreds of megabytes.
        "--innodb=OFF".to_owned(),
        "--default-storage-engine=Aria".to_owned(),
        format!("--datadir={data}"),
        format!("--tmpdir={data}"),
        format!("--socket={data}/socket"),
        format!("--pid-file={data}/pid"),
    ];
    let log = directory.join(format!("{name}.mariadbd.log"));
    let server = Program::start(namespace, "mariadbd", &arguments, &log)?;
    server.await_port(namespace, 3306, &log)
}

/// Runs one statement with the database's command-line client and returns the table that it prints.
pub fn sql(namespace: &Namespace, host: &str, port: u16, statement: &str) -> Result<String> {
    let (host, port) = (format!("--host={host}"), format!("--port={port}"));
    let limit = format!("--connect-timeout={}", time_out());
    let arguments =
        ["--no-defaults", "--protocol=TCP", &limit, "--skip-column-names", "--batch", &host, &port, "-e", statement];
    Ok(namespace.run("mariadb", &arguments)?.trim_end().to_owned())
}

/// Starts keepalived with one VRRP instance on `eth0`, which adds `address` to that device while no other host has a
/// higher `priority`.
pub fn keepalived(
    namespace: &Arc<Namespace>,
    name: &str,
    directory: &Path,
    address: &str,
    priority: u8,
) -> Result<Program> {
    let file = |suffix: &str| directory.join(format!("{name}.keepalived.{suffix}"));
    let configuration = format!(
        "vrrp_instance vip {{\n  state BACKUP\n  interface eth0\n  virtual_router_id 51\n  priority {priority}\n  \
         advert_int 1\n  virtual_ipaddress {{\n    {address}\n  }}\n}}\n"
    );
    fs::write(file("conf"), configuration)?;
    let path = |suffix: &str| file(suffix).display().to_string();
    let arguments = [
        ["--dont-fork", "--log-console", "--log-detail", "--vrrp"].map(str::to_owned).to_vec(),
        vec![format!("--use-file={}", path("conf"))],
        vec![format!("--pid={}", path("pid")), format!("--vrrp_pid={}", path("vrrp.pid"))],
    ];
    Program::start(namespace, "keepalived", &arguments.concat(), &file("log"))
}
