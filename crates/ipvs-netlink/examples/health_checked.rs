//! A small load balancer with health checks, for TCP:
//!
//! ```sh
//! health_checked 192.0.2.1:80 10.0.0.2:8080 10.0.0.3:8080=2
//! ```
//!
//! The first address is the virtual server. It must be an address of this host. The others are the real servers, with
//! their weights where these are not 1: 10.0.0.3 gets twice as many connections as 10.0.0.2.
//!
//! IPVS rewrites the addresses of packets ("masquerading"), so the replies must come back through this host: it is the
//! real servers' gateway, and forwards packets (`sysctl net.ipv4.ip_forward=1`).
//!
//! Every second each real server is checked: does it accept a TCP connection? One that does not gets weight 0, with
//! which it keeps its connections and gets no new ones. When it accepts again, it gets its weight back. SIGINT (Ctrl-C)
//! and SIGTERM remove the virtual server.

use std::{env, net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use ipvs_netlink::{Client, Destination, Forwarding, Protocol, Scheduler, VirtualServer, VirtualServerKey};
use tokio::{
    net::TcpStream,
    select,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{sleep, timeout},
};

const USAGE: &str = "usage: health_checked ADDRESS:PORT REAL_SERVER:PORT[=WEIGHT]...";
/// From the end of a check to the next one, and the longest that a check takes.
const SECOND: Duration = Duration::from_secs(1);

struct RealServer {
    address: SocketAddr,
    /// Its weight while it is healthy.
    weight: u32,
    healthy: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("health_checked: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().and_then(|text| text.parse().ok()).context(USAGE)?;
    let real_servers = arguments.map(|text| parse(&text).context(USAGE)).collect::<Result<Vec<_>>>()?;
    ensure!(!real_servers.is_empty(), USAGE);
    // Before anything is made that a signal must remove.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    // The kernel loads the module ip_vs here. If it has none, the error says what to do.
    let mut client = Client::open()?;
    let key = VirtualServerKey::new(Protocol::Tcp, address);
    // Weighted round robin; `ipvsadm -Ln` shows it as `wrr`.
    client.add_service(key, VirtualServer::new(Scheduler::WRR)).map_err(|error| explain(error, address))?;
    let result = select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        result = balance(&mut client, key, real_servers) => result,
    };
    // After an error too. It removes the real servers with it.
    client.delete_service(key)?;
    result
}

/// Adds the real servers, and sets their weights by their checks for as long as there is no error.
async fn balance(client: &mut Client, key: VirtualServerKey, mut real_servers: Vec<RealServer>) -> Result<()> {
    let (sender, mut checks) = mpsc::channel(1);
    for (number, server) in real_servers.iter().enumerate() {
        // Weight 0: no connection goes there before the first check.
        client.add_destination(key, server.address.into(), destination(0))?;
        let (sender, address) = (sender.clone(), server.address);
        // A task for each, so that a silent server delays the check of no other.
        tokio::spawn(async move {
            while sender.send((number, accepts(address).await)).await.is_ok() {
                sleep(SECOND).await;
            }
        });
    }
    while let Some((number, healthy)) = checks.recv().await {
        let server = &mut real_servers[number];
        if server.healthy != healthy {
            server.healthy = healthy;
            let weight = if healthy { server.weight } else { 0 };
            // It blocks for microseconds.
            client.update_destination(key, server.address.into(), destination(weight))?;
            println!("{}: weight {weight}", server.address);
        }
    }
    Ok(())
}

fn destination(weight: u32) -> Destination {
    Destination::new(Forwarding::Masq, weight)
}

/// Whether a server accepts a TCP connection.
async fn accepts(address: SocketAddr) -> bool {
    timeout(SECOND, TcpStream::connect(address)).await.is_ok_and(|connected| connected.is_ok())
}

/// Parses `10.0.0.3:8080=2`, or without a weight `10.0.0.3:8080`.
fn parse(text: &str) -> Option<RealServer> {
    let (address, weight) = text.rsplit_once('=').unwrap_or((text, "1"));
    Some(RealServer { address: address.parse().ok()?, weight: weight.parse().ok()?, healthy: false })
}

/// Adds to an error of the kernel what a user can do.
fn explain(error: ipvs_netlink::Error, address: SocketAddr) -> anyhow::Error {
    let advice = if error.is_permission_denied() {
        "run this as root, or with CAP_NET_ADMIN".to_owned()
    } else if error.already_exists() {
        format!("there is a virtual server already. If no program needs it, remove it: ipvsadm -D -t {address}")
    } else {
        return error.into();
    };
    anyhow::Error::new(error).context(advice)
}
