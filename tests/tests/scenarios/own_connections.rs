//! Connections of the node itself whose local port is a node port.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};

use anyhow::{Context, Result, ensure};
use scenarios::{
    Cluster, Namespace, Service, Slice, TestResult, Transport, eventually, patience, scenario, send_syn_as, time_out,
};

const FLAGS: [&str; 2] = ["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"];
/// Node ports for TCP, from port 80 on. A used local port is not free again for a while.
const NODE_PORTS: [&str; 4] = ["30080", "30081", "30082", "30083"];

fn services() -> String {
    let web = Service::new("web").node_port_type().cluster_ip("10.96.0.80").cluster_ip("fd00:10:96::80");
    let web = NODE_PORTS.iter().zip(80..).fold(web, |web, (node_port, port)| {
        web.port_line(&format!("name: tcp-{port}, port: {port}, targetPort: 8080, nodePort: {node_port}"))
    });
    let web = web.port_line("name: udp, protocol: UDP, port: 53, targetPort: 8080, nodePort: 30053");
    let slice = |name: &str, address: &str| {
        let slice = (80..84)
            .fold(Slice::of("web").name(name), |slice, port| slice.named_port(&format!("tcp-{port}"), "TCP", 8080));
        slice.named_port("udp", "UDP", 8080).ready(address).on("node-1")
    };
    format!("{web}---\n{}---\n{}", slice("web-v4", "10.244.1.2"), slice("web-v6", "fd00:10:244:1::2"))
}

/// Runs `curl` from this local port, or from one that the kernel chooses if `port` is empty.
fn curl(from: &Namespace, port: &str, to: &str) -> Result<()> {
    let (url, time) = (format!("http://{to}/"), time_out());
    let mut arguments = vec!["-sS", "--max-time", &time, &url];
    if !port.is_empty() {
        arguments.extend(["--local-port", port]);
    }
    let said = from.run("curl", &arguments)?;
    ensure!(said.trim() == "client", "{to} from port {port}: {said}");
    Ok(())
}

fn ask(from: &Namespace, at: &str, to: &str, who: &str) -> Result<()> {
    let socket = from.enter(|| Ok(UdpSocket::bind(at)?))?;
    socket.set_read_timeout(Some(patience()))?;
    socket.connect(to)?;
    socket.send(b"who?")?;
    let mut answer = [0; 100];
    let length = socket.recv(&mut answer).with_context(|| format!("no answer from {to} to {at}"))?;
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    ensure!(answer.starts_with(&format!("{who} ")), "{to} to {at}: {answer}");
    Ok(())
}

#[test]
fn a_connection_that_leaves_from_a_node_port_is_answered() -> TestResult {
    let builder = Cluster::builder().pod("web", "node-1", "10.244.1.2 fd00:10:244:1::2").pod(
        "visitor",
        "node-3",
        "10.244.3.9 fd00:10:244:3::9",
    );
    scenario(builder, |cluster| {
        let _servers = [
            cluster.http("client", 80)?,
            cluster.echo("client", Transport::Udp, 53)?,
            cluster.echo("web", Transport::Tcp, 8080)?,
            cluster.echo("web", Transport::Udp, 8080)?,
        ];
        cluster.manifests.write("web", &services())?;
        let _proxy = cluster.start_proxy("node-3", &FLAGS)?;
        let (node, client) = (cluster.at("node-3")?, cluster.at("client")?);
        node.await_vips(&["10.96.0.80", "fd00:10:96::80"])?;
        cluster.await_settled("node-3", &FLAGS)?;
        curl(node, "30080", "192.168.128.100:80")?;
        curl(node, "30081", "[fd00:128::100]:80")?;
        ask(node, "192.168.128.3:30053", "192.168.128.100:53", "client")?;
        ask(node, "[fd00:128::3]:30053", "[fd00:128::100]:53", "client")?;
        // If the process sends a query to a Service from that port, IPVS delivers the answer.
        ask(node, "0.0.0.0:30053", "10.96.0.80:53", "web")?;
        node.sysctls(&[("ipv4.ip_local_port_range", "30082 30083")])?;
        curl(node, "", "192.168.128.100:80")?;
        node.sysctls(&[("ipv4.ip_local_port_range", "32768 60999")])?;
        let connections = node.run("ipvsadm", &["-Lnc"])?;
        ensure!(!connections.contains("192.168.128.100:80 "), "IPVS took an answer:\n{connections}");
        for at in ["192.168.128.3", "[fd00:128::3]"] {
            for from in [client, node, cluster.at("visitor")?] {
                let answer = from.echo(Transport::Tcp, &format!("{at}:30080"))?;
                ensure!(answer.name == "web", "{answer:?}");
                from.echo(Transport::Udp, &format!("{at}:30053"))?;
            }
        }
        Ok(())
    })
}

/// Sends one request from a port that the kernel chooses. Returns the answer.
fn request(from: &Namespace, to: &str) -> Result<String> {
    let mut stream = from.enter(|| Ok(TcpStream::connect(to)?))?;
    stream.set_read_timeout(Some(patience()))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("no answer from {to}"))?;
    Ok(answer.lines().last().unwrap_or_default().to_owned())
}

/// Every port that the kernel can choose on the node and its client is a node port. The node's own connections and
/// masqueraded connections through node ports still get their answers.
#[test]
fn connections_are_answered_if_all_local_ports_are_node_ports() -> TestResult {
    const PORTS: std::ops::Range<u16> = 30000..30200;
    let builder = Cluster::builder().pod("web", "node-1", "10.244.1.2");
    scenario(builder, |cluster| {
        let _servers = [cluster.http("client", 80)?, cluster.http("web", 8080)?];
        let all = Service::new("all").node_port_type().cluster_ip("10.96.0.80");
        let all = PORTS.fold(all, |service, port| {
            service.port_line(&format!("name: p{port}, port: {port}, targetPort: 8080, nodePort: {port}"))
        });
        let slice = PORTS
            .fold(Slice::of("all"), |slice, port| slice.named_port(&format!("p{port}"), "TCP", 8080))
            .ready("10.244.1.2")
            .on("node-1");
        cluster.manifests.write("all", &format!("{all}---\n{slice}"))?;
        let _proxy = cluster.start_proxy("node-3", &FLAGS)?;
        cluster.await_settled("node-3", &FLAGS)?;
        let (node, client) = (cluster.at("node-3")?, cluster.at("client")?);
        let range = format!("{} {}", PORTS.start, PORTS.end - 1);
        for namespace in [node, client] {
            namespace.sysctls(&[("ipv4.ip_local_port_range", &range)])?;
        }
        // Fewer requests than ports, because a used port is not free again for a while.
        for _ in 0..60 {
            for (from, to, who) in [
                (node, "192.168.128.100:80", "client"),
                (node, "10.96.0.80:30000", "web"),
                (client, "192.168.128.3:30001", "web"),
            ] {
                let said = request(from, to)?;
                ensure!(said == who, "{to} from {}: {said}", from.name());
            }
        }
        Ok(())
    })
}

/// The comment of the rule that drops.
const NUMBERS: &str = "drop packets from outside with a protocol number of the chain hide";

/// kube-ipvs hides an answer of TCP from IPVS with a special protocol number. A sender outside must not use that
/// number: its packet would pass rules for TCP and then become TCP.
#[test]
fn outside_packets_with_a_hiding_protocol_number_are_dropped() -> TestResult {
    scenario(Cluster::builder(), |cluster| {
        let (node, client) = (cluster.at("node-3")?, cluster.at("client")?);
        let _server = cluster.echo("node-3", Transport::Tcp, 2379)?;
        cluster.manifests.write("web", &services())?;
        let _proxy = cluster.start_proxy("node-3", &FLAGS)?;
        cluster.await_settled("node-3", &FLAGS)?;
        // The client has no such connection, and would answer with a reset.
        client.run(
            "nft",
            &["add table inet quiet; add chain inet quiet out { type filter hook output priority 0; }; \
                             add rule inet quiet out tcp flags rst drop"],
        )?;
        for (from, to) in
            [("192.168.128.100:4000", "192.168.128.3:2379"), ("[fd00:128::100]:4000", "[fd00:128::3]:2379")]
        {
            for protocol in [250, 251, 252] {
                let before = node.nft_packets(NUMBERS)?;
                send_syn_as(client, protocol, from.parse()?, to.parse()?)?;
                eventually(|| {
                    let dropped = node.nft_packets(NUMBERS)?;
                    ensure!(
                        dropped == before + 1,
                        "{to}, {protocol}: {dropped} packets were dropped, and {before} before"
                    );
                    Ok(())
                })?;
            }
            let half_open = node.run("ss", &["-Htn", "state", "syn-recv"])?;
            ensure!(half_open.is_empty(), "it has become a connection:\n{half_open}");
        }
        Ok(())
    })
}
