//! Reused ports: at once, as by a client behind a NAT gateway, and by two nodes that masquerade.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use anyhow::{Context, Result, bail, ensure};
use scenarios::{Cluster, Conversation, Namespace, Service, Slice, TestResult, Transport, patience, scenario};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const VIP: &str = "10.96.0.7:80";
/// If the first packet of this many connections in a row is retransmitted, that is no accident.
const TRIES: usize = 5;

/// Counts first packets to the port of the pods or of the VIP, where they are sent and where they arrive.
const COUNT: &str = "table inet count { chain HOOK { type filter hook HOOK priority 0; \
    tcp dport { 80, 8080 } tcp flags & (syn | ack) == syn counter comment \"first packets\"; }; }";

/// Opens one connection from a fixed port. The client closes it normally, so every table on the way keeps it in
/// TIME_WAIT. Returns the name of the server.
fn once(namespace: &Namespace, port: u16) -> Result<String> {
    namespace.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        // The client itself forgets the connection at once; the tables on the way do not.
        socket.bind(&SockAddr::from(SocketAddr::from(([0, 0, 0, 0], port))))?;
        let to: SocketAddr = VIP.parse()?;
        socket.connect_timeout(&SockAddr::from(to), patience()).context("connecting")?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(patience()))?;
        stream.write_all(b"hello")?;
        let mut buffer = [0; 256];
        let length = stream.read(&mut buffer).context("no answer")?;
        let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
        // Before the server's FIN arrives, the client cannot reuse the port.
        stream.shutdown(Shutdown::Write).context("closing")?;
        ensure!(stream.read(&mut buffer).context("no end")? == 0, "more than one answer");
        Ok(answer.split(' ').next().unwrap_or_default().to_owned())
    })
}

/// Opens a connection whose first packet must be answered; otherwise it is retransmitted after a second. That also
/// happens on a suspended machine, and not every time.
fn at_once(namespace: &Namespace, port: u16) -> Result<String> {
    for _ in 0..TRIES {
        let before = namespace.first_packets_resent(Transport::Tcp)?;
        let name = once(namespace, port).with_context(|| format!("port {port}"))?;
        if namespace.first_packets_resent(Transport::Tcp)? == before {
            return Ok(name);
        }
    }
    bail!("port {port}: each of {TRIES} connections had to send its first packet again")
}

/// No connection waits for a retransmission, as after a drop or while an old entry expires. None reaches a pod that has
/// left since the last use of the port.
#[test]
fn reused_client_port_neither_waits_nor_reaches_a_dead_pod() -> TestResult {
    let builder = Cluster::builder().pod("app-1", "node-1", "10.244.1.2").pod("app-2", "node-2", "10.244.2.2").pod(
        "visitor",
        "node-3",
        "10.244.3.9",
    );
    scenario(builder, |cluster| {
        let _servers = [cluster.echo("app-1", Transport::Tcp, 8080)?, cluster.echo("app-2", Transport::Tcp, 8080)?];
        // Otherwise the client itself would not reuse its port so soon.
        cluster.at("visitor")?.sysctls(&[("ipv4.tcp_tw_reuse", "1"), ("ipv4.tcp_max_tw_buckets", "0")])?;
        let put = |endpoints: &[(&str, &str)]| {
            let service = Service::new("app").cluster_ip("10.96.0.7").port_line("port: 80, targetPort: 8080");
            let slice = Slice::of("app").port(8080);
            let slice = endpoints.iter().fold(slice, |slice, (address, node)| slice.ready(address).on(node));
            cluster.manifests.write("app", &format!("{service}---\n{slice}"))
        };
        let (one, two) = (("10.244.1.2", "node-1"), ("10.244.2.2", "node-2"));
        put(&[one, two])?;
        let _proxy = cluster.start_proxy("node-3", &[])?;
        let node = cluster.at("node-3")?;
        node.await_serving("TCP 10.96.0.7:80", &["10.244.1.2:8080", "10.244.2.2:8080"])?;
        cluster.await_settled("node-3", &[])?;
        let visitor = cluster.at("visitor")?;
        let pods = [cluster.at("app-1")?, cluster.at("app-2")?];
        for (namespace, hook) in [(visitor, "output"), (pods[0], "input"), (pods[1], "input")] {
            namespace.run("nft", &[&COUNT.replace("HOOK", hook)])?;
        }
        for round in 0..10 {
            for port in 40_000..40_004 {
                at_once(visitor, port).with_context(|| format!("round {round}"))?;
            }
        }
        put(&[two])?;
        node.await_serving("TCP 10.96.0.7:80", &["10.244.2.2:8080"])?;
        for port in 40_000..40_004 {
            let name = at_once(visitor, port)?;
            ensure!(name == "app-2", "port {port}: {name} answers");
        }
        let sent = visitor.nft_packets("first packets")?;
        let arrived = pods[0].nft_packets("first packets")? + pods[1].nft_packets("first packets")?;
        ensure!(sent >= 44 && arrived == sent, "{sent} first packets were sent, and {arrived} have arrived");
        Ok(())
    })
}

/// Two nodes can masquerade to one port by chance. This rule makes them always do so.
const ONE_PORT: &str = "table inet one-port { chain out { type nat hook postrouting priority srcnat - 10; \
    sctp dport 8100 oifname eth0 masquerade to :40000; }; }";

/// Processes of two nodes have SCTP connections that are masqueraded to the same port. The endpoint must see two
/// connections. The clients bind one address: on the wildcard they would announce the VIPs, which both nodes have.
#[test]
fn sctp_connections_of_two_nodes_from_one_port_stay_apart() -> TestResult {
    scenario(Cluster::builder().pod("app-2", "node-2", "10.244.2.2"), |cluster| {
        let _server = cluster.echo("app-2", Transport::Sctp, 8100)?;
        let service = Service::new("app").cluster_ip("10.96.0.7");
        let service = service.port_line("protocol: SCTP, port: 100, targetPort: 8100");
        let slice = Slice::of("app").named_port("\"\"", "SCTP", 8100).ready("10.244.2.2").on("node-2");
        cluster.manifests.write("app", &format!("{service}---\n{slice}"))?;
        let _proxies = cluster.start_proxies(&[])?;
        let ask = |node: &str| -> Result<Conversation> {
            cluster.at(node)?.await_serving("SCTP 10.96.0.7:100", &["10.244.2.2:8100"])?;
            cluster.await_settled(node, &[])?;
            cluster.at(node)?.run("nft", &[ONE_PORT])?;
            let mut conversation = cluster.at(node)?.connect(Transport::Sctp, "10.96.0.7:100")?;
            let peer = conversation.say().with_context(|| format!("of {node}"))?.peer;
            ensure!(peer == SocketAddr::from((cluster.node(node)?.ipv4(), 40_000)), "{node} came as {peer}");
            Ok(conversation)
        };
        let conversations = [ask("node-1")?, ask("node-3")?];
        for mut conversation in conversations {
            conversation.say()?;
        }
        Ok(())
    })
}
