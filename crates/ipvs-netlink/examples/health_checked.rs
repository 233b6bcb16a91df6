//! A small load balancer with health checks, for TCP:
//!
//! ```sh
//! health_checked 192.0.2.1:80 10.0.0.2:8080 10.0.0.3:8080=2
//! ```
//!
//! The first address is the virtual server; this host must have that address. The others are the real servers. `=2` is
//! a weight: 10.0.0.3 gets twice as many connections as 10.0.0.2.
//!
//! IPVS masquerades, so replies must come back through this host. The real servers use it as their gateway, and it
//! forwards packets (`sysctl net.ipv4.ip_forward=1`).
//!
//! Every second a TCP connection checks the health of each real server. A server that fails the check gets weight 0: it
//! keeps its connections and gets no new ones. When it accepts connections again, it gets its weight back. SIGINT
//! (Ctrl-C) and SIGTERM remove the virtual server.

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
/// The pause between two checks of a server, and the timeout of one check.
const SECOND: Duration = Duration::from_secs(1);

struct RealServer {
    address: SocketAddr,
    /// The weight while the server is healthy.
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
    // Signals are caught before the virtual server exists, so that no signal leaves it behind.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    // The kernel loads the module ip_vs here. If the kernel has no IPVS, the error names the remedy.
    let mut client = Client::open()?;
    let key = VirtualServerKey::new(Protocol::Tcp, address);
    // Weighted round robin; `ipvsadm -Ln` shows it as `wrr`.
    client.add_service(key, VirtualServer::new(Scheduler::WRR)).map_err(|error| explain(error, address))?;
    let result = select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        result = balance(&mut client, key, real_servers) => result,
    };
    // Runs after an error too. Deletes the real servers as well.
    client.delete_service(key)?;
    result
}

/// Adds the real servers, then sets their weights by their health until an error occurs.
async fn balance(client: &mut Client, key: VirtualServerKey, mut real_servers: Vec<RealServer>) -> Result<()> {
    let (sender, mut checks) = mpsc::channel(1);
    for (number, server) in real_servers.iter().enumerate() {
        // Weight 0: the real server gets no connections before its first check.
        client.add_destination(key, server.address.into(), destination(0))?;
        let (sender, address) = (sender.clone(), server.address);
        // One task for each, so that a silent server does not delay the checks of the others.
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
            // The call blocks for microseconds only.
            client.update_destination(key, server.address.into(), destination(weight))?;
            println!("{}: weight {weight}", server.address);
        }
    }
    Ok(())
}

fn destination(weight: u32) -> Destination {
    Destination::new(Forwarding::Masq, weight)
}

async fn accepts(address: SocketAddr) -> bool {
    timeout(SECOND, TcpStream::connect(address)).await.is_ok_and(|connected| connected.is_ok())
}

fn parse(text: &str) -> Option<RealServer> {
    let (address, weight) = text.rsplit_once('=').unwrap_or((text, "1"));
    Some(RealServer { address: address.parse().ok()?, weight: weight.parse().ok()?, healthy: false })
}

/// Adds advice for the user to an error of the kernel.
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
