//! Every command against a real kernel, verified with ipvsadm. Needs root and IPVS: `cargo xtask test`.
//!
//! Each test has a separate network namespace, so tests run in parallel and leave nothing behind.

#![allow(clippy::unwrap_used)]

mod batches;
mod destinations;
mod refusals;
mod services;
mod sundry;
mod traffic;

use std::{
    fs::File,
    net::SocketAddr,
    process::Command,
    sync::{
        Once, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU32, Ordering},
    },
};

use ipvs_netlink::{Client, DestinationKey, Protocol, VirtualServerKey};

struct Namespace {
    name: String,
    client: Client,
    _turn: Turn,
}

/// The kernel resumes a list at a position in the table of all namespaces. So changes in one namespace can repeat or
/// hide entries in a long list of another. Tests with long lists run alone.
static TURNS: RwLock<()> = RwLock::new(());

enum Turn {
    WithOthers { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
    Entered,
}

impl Namespace {
    fn new() -> Self {
        Self::at(Turn::WithOthers { _guard: TURNS.read().unwrap_or_else(PoisonError::into_inner) })
    }

    fn alone() -> Self {
        Self::at(Turn::Alone { _guard: TURNS.write().unwrap_or_else(PoisonError::into_inner) })
    }

    /// Another namespace, for a test that already has its turn.
    fn another(&self) -> Self {
        Self::at(Turn::Entered)
    }

    fn at(turn: Turn) -> Self {
        // Loading these two on demand can deadlock (seen on Linux 6.1). The kernel loads them under the lock of IPVS,
        // and the load waits for namespaces in deletion, which wait for that lock. So they are loaded in advance.
        static LOADED: Once = Once::new();
        LOADED.call_once(|| {
            run("modprobe", &["-a", "ip_vs", "ip_vs_lblc", "ip_vs_lblcr"]);
        });
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ipvs-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        run("ip", &["netns", "add", &name]);
        let client = Client::open_in(open(&name)).unwrap();
        Self { name, client, _turn: turn }
    }

    /// Has a dummy interface `d0` and routes over it: destinations must be reachable unicast addresses.
    fn with_interface() -> Self {
        let this = Self::new();
        this.ip(&["link", "set", "lo", "up"]);
        this.ip(&["link", "add", "d0", "type", "dummy"]);
        this.ip(&["link", "set", "d0", "up"]);
        this.ip(&["address", "add", "10.1.1.254/24", "dev", "d0"]);
        this.ip(&["address", "add", "fd00:1::fe/64", "dev", "d0", "nodad"]);
        this
    }

    fn ip(&self, arguments: &[&str]) -> String {
        run("ip", &[&["-netns", &self.name], arguments].concat())
    }

    /// The output of ipvsadm, without white space at the ends of lines.
    fn ipvsadm(&self, options: &[&str]) -> String {
        let said = run("ip", &[&["netns", "exec", &self.name, "ipvsadm"], options].concat());
        said.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    /// The sorted rules in ipvsadm's input format.
    fn rules(&self) -> Vec<String> {
        let mut rules: Vec<String> = self.ipvsadm(&["-Sn"]).lines().map(String::from).collect();
        rules.sort();
        rules
    }

    fn file(&self) -> File {
        open(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn open(name: &str) -> File {
    File::open(format!("/run/netns/{name}")).unwrap()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}{error}", arguments.join(" "));
    said
}

fn tcp(address: &str) -> VirtualServerKey {
    VirtualServerKey::new(Protocol::Tcp, address.parse().unwrap())
}

fn udp(address: &str) -> VirtualServerKey {
    VirtualServerKey::new(Protocol::Udp, address.parse().unwrap())
}

fn destination(address: &str) -> DestinationKey {
    address.parse::<SocketAddr>().unwrap().into()
}
