//! UDP clients that keep one socket while the servers behind it change.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use scenarios::{
    Cluster, Conversation, Failure, Service, Slice, TestResult, Transport, eventually, patience, scenario,
};

use crate::common::await_first_sync;

const ALL: [(&str, &str); 5] = [
    ("visitor", "10.96.0.53:53"),
    ("node-3", "10.96.0.53:53"),
    ("client", "192.168.128.3:30053"),
    ("client", "203.0.113.53:53"),
    ("visitor", "203.0.113.53:53"),
];

fn manifests(policy: &str, endpoint: Option<(&str, &str)>) -> String {
    let service = Service::new("udp")
        .line("type: LoadBalancer")
        .line(&format!("externalTrafficPolicy: {policy}"))
        .cluster_ip("10.96.0.53")
        .load_balancer_ip("203.0.113.53")
        .port_line("protocol: UDP, port: 53, targetPort: 8053, nodePort: 30053");
    let slice = Slice::of("udp").named_port("", "UDP", 8053);
    let slice = endpoint.into_iter().fold(slice, |slice, (address, node)| slice.ready(address).on(node));
    format!("{service}---\n{slice}")
}

/// Waits until `pod` answers the datagrams of all clients. One datagram can be lost while the servers change.
fn answered_by(sockets: &mut [Conversation], ways: &[(&str, &str)], pod: &str) -> Result<()> {
    for (socket, (from, to)) in sockets.iter_mut().zip(ways) {
        // A client sends another query after a time-out. The next wait is longer, so that it suffices on a slow
        // machine.
        let mut wait = Duration::from_millis(500);
        let result = eventually(|| {
            let answer = socket.say_within(wait);
            if answer == Err(Failure::TimedOut) {
                wait = patience().min(wait * 2);
            }
            let name = answer.map_err(|failure| anyhow::anyhow!("{failure}"))?.name;
            ensure!(name == pod, "{name} answers");
            Ok(())
        });
        result.map_err(|error| error.context(format!("{from} to {to}, which {pod} should answer")))?;
    }
    Ok(())
}

fn one_socket_follows(policy: &'static str) -> TestResult {
    let builder = Cluster::builder().pod("dns-1", "node-3", "10.244.3.2").pod("dns-2", "node-3", "10.244.3.3").pod(
        "visitor",
        "node-3",
        "10.244.3.9",
    );
    scenario(builder, move |cluster| {
        let _servers = [cluster.echo("dns-1", Transport::Udp, 8053)?, cluster.echo("dns-2", Transport::Udp, 8053)?];
        cluster.at("client")?.ip("route add 203.0.113.0/24 via 192.168.128.3")?;
        cluster.manifests.write("udp", &manifests(policy, Some(("10.244.3.2", "node-3"))))?;
        let _proxy = cluster.start_proxy("node-3", &["--cluster-cidr", "10.244.0.0/16"])?;
        let node = cluster.at("node-3")?;
        node.await_service("UDP 203.0.113.53:53", &["10.244.3.2:8053 1"])?;
        let mut sockets = Vec::new();
        for (from, to) in ALL {
            sockets.push(cluster.at(from)?.connect(Transport::Udp, to)?);
        }
        answered_by(&mut sockets, &ALL, "dns-1")?;
        for (address, pod) in [("10.244.3.3", "dns-2"), ("10.244.3.2", "dns-1"), ("10.244.3.3", "dns-2")] {
            cluster.manifests.write("udp", &manifests(policy, Some((address, "node-3"))))?;
            answered_by(&mut sockets, &ALL, pod)?;
        }
        // While the Service has no endpoint, clients continue to send queries. The refusals end with the next endpoint.
        cluster.manifests.write("udp", &manifests(policy, None))?;
        node.await_service("UDP 203.0.113.53:53", &[])?;
        for socket in &mut sockets {
            let outcome = socket.say();
            ensure!(outcome == Err(Failure::Refused), "without an endpoint the datagram was not refused: {outcome:?}");
        }
        cluster.manifests.write("udp", &manifests(policy, Some(("10.244.3.2", "node-3"))))?;
        answered_by(&mut sockets, &ALL, "dns-1")
    })
}

#[test]
fn udp_socket_follows_the_changing_servers() -> TestResult {
    one_socket_follows("Cluster")
}

/// Pods and processes of the node use the short circuit, which IPVS does not see.
#[test]
fn udp_socket_follows_the_changing_servers_of_a_local_service() -> TestResult {
    one_socket_follows("Local")
}

/// All clients send queries from one socket before the Service exists, and again afterwards. The conntrack entries of
/// the first datagrams do not keep the next ones from the Service.
#[test]
fn udp_client_from_before_the_service_is_answered_once_it_exists() -> TestResult {
    let builder = Cluster::builder().pod("dns-1", "node-1", "10.244.1.2").pod("visitor", "node-3", "10.244.3.9");
    scenario(builder, |cluster| {
        let _server = cluster.echo("dns-1", Transport::Udp, 8053)?;
        cluster.at("client")?.ip("route add 203.0.113.0/24 via 192.168.128.3")?;
        let node = cluster.at("node-3")?;
        for policy in ["Cluster", "Local"] {
            let proxy = cluster.start_proxy("node-3", &["--cluster-cidr", "10.244.0.0/16"])?;
            // conntrack is active only with the daemon's rules.
            await_first_sync(node)?;
            // With the policy Local, the outside client finds no endpoint on this node.
            let asked = |(from, _): &(&str, &str)| policy == "Cluster" || *from != "client";
            let all: Vec<(&str, &str)> = ALL.into_iter().filter(asked).collect();
            let mut sockets = Vec::new();
            for (from, to) in &all {
                let mut socket = cluster.at(from)?.connect(Transport::Udp, to)?;
                socket.send()?;
                // The datagram has reached the node's conntrack. No answer comes, so the test waits for none.
                let flow = format!(
                    "sport={} dport={}",
                    socket.own_address()?.port(),
                    to.rsplit(':').next().unwrap_or_default()
                );
                eventually(|| {
                    let flows = node.proc_net_page("nf_conntrack")?;
                    ensure!(flows.contains(&flow), "{from} to {to}: no flow with {flow} in\n{flows}");
                    Ok(())
                })?;
                sockets.push(socket);
            }
            cluster.manifests.write("udp", &manifests(policy, Some(("10.244.1.2", "node-1"))))?;
            answered_by(&mut sockets, &all, "dns-1")?;
            cluster.manifests.remove("udp")?;
            node.await_no_service("UDP 10.96.0.53:53")?;
            proxy.terminate()?;
        }
        Ok(())
    })
}

/// The leaving server with weight 0, and its replacement.
const LEAVES: &str = "10.244.3.2:8053 0";
const COMES: &str = "10.244.3.3:8053 1";

/// All clients send a query to a server, and it leaves before it answers. Returns the clients that get no answer. If
/// the drain time ended before the server answered, the result means nothing and is `None`.
fn without_answer(
    cluster: &Cluster,
    policy: &str,
    slow: &UdpSocket,
) -> Result<Option<Vec<(&'static str, &'static str)>>> {
    let node = cluster.at("node-3")?;
    cluster.manifests.write("udp", &manifests(policy, Some(("10.244.3.2", "node-3"))))?;
    for (_, vip) in ALL {
        node.await_serving(&format!("UDP {vip}"), &["10.244.3.2:8053"])?;
    }
    let mut asked = Vec::new();
    for (from, vip) in ALL {
        let socket = cluster.at(from)?.enter(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
        socket.set_read_timeout(Some(patience()))?;
        socket.connect(vip)?;
        socket.send(b"who?")?;
        let (_, peer) = slow.recv_from(&mut [0; 8]).with_context(|| format!("{from} asks {vip}"))?;
        asked.push((from, vip, socket, peer));
    }
    cluster.manifests.write("udp", &manifests(policy, Some(("10.244.3.3", "node-3"))))?;
    eventually(|| {
        let reals = node.ip_vs()?.weights("UDP 10.96.0.53:53").unwrap_or_default();
        ensure!(reals.iter().any(|real| real == COMES), "{reals:?}");
        Ok(())
    })?;
    for (.., peer) in &asked {
        slow.send_to(b"I", peer)?;
    }
    let table = node.ip_vs()?;
    let stays = |vip: &str| {
        let reals = table.weights(&format!("UDP {vip}")).unwrap_or_default();
        reals.iter().any(|real| real == LEAVES)
    };
    let waiting = ALL.iter().all(|(_, vip)| stays(vip)).then(|| {
        let waits = asked.into_iter().filter(|(_, _, socket, _)| socket.recv(&mut [0; 8]).is_err());
        waits.map(|(from, vip, ..)| (from, vip)).collect()
    });
    // The server drains no longer than its time.
    node.await_service("UDP 10.96.0.53:53", &[COMES])?;
    Ok(waiting)
}

/// If a server leaves with a DNS query pending, the client must not run into a time-out.
#[test]
fn leaving_udp_server_still_answers_pending_queries() -> TestResult {
    let builder = Cluster::builder().pod("dns-1", "node-3", "10.244.3.2").pod("dns-2", "node-3", "10.244.3.3").pod(
        "visitor",
        "node-3",
        "10.244.3.9",
    );
    scenario(builder, |cluster| {
        let slow = cluster.at("dns-1")?.enter(|| Ok(UdpSocket::bind("10.244.3.2:8053")?))?;
        slow.set_read_timeout(Some(patience()))?;
        let _other = cluster.echo("dns-2", Transport::Udp, 8053)?;
        cluster.at("client")?.ip("route add 203.0.113.0/24 via 192.168.128.3")?;
        let _proxy = cluster.start_proxy("node-3", &["--cluster-cidr", "10.244.0.0/16"])?;
        for policy in ["Cluster", "Local"] {
            // The drain time is two seconds. A machine can be suspended for longer.
            let waiting =
                eventually(|| without_answer(cluster, policy, &slow)?.context("it was gone before it had answered"))?;
            ensure!(waiting.is_empty(), "with the policy {policy} {waiting:?} wait in vain");
        }
        Ok(())
    })
}

/// How long conntrack keeps a query without an answer.
const UNANSWERED: &str = "net.netfilter.nf_conntrack_udp_timeout";

/// An answer that comes after conntrack has forgotten the query is the first packet of a new flow. The client's next
/// queries look like answers in that flow. They must still reach the virtual server.
#[test]
fn late_udp_answer_does_not_keep_the_next_query_from_the_vip() -> TestResult {
    let builder = Cluster::builder().pod("dns-1", "node-3", "10.244.3.2").pod("visitor", "node-3", "10.244.3.9");
    scenario(builder, |cluster| {
        let slow = cluster.at("dns-1")?.enter(|| Ok(UdpSocket::bind("10.244.3.2:8053")?))?;
        slow.set_read_timeout(Some(patience()))?;
        cluster.at("client")?.ip("route add 203.0.113.0/24 via 192.168.128.3")?;
        let node = cluster.at("node-3")?;
        cluster.manifests.write("udp", &manifests("Cluster", Some(("10.244.3.2", "node-3"))))?;
        let _proxy = cluster.start_proxy("node-3", &["--cluster-cidr", "10.244.0.0/16"])?;
        for (_, vip) in ALL {
            node.await_serving(&format!("UDP {vip}"), &["10.244.3.2:8053"])?;
        }
        for (from, vip) in ALL {
            node.run("sysctl", &["-w", &format!("{UNANSWERED}=1")])?;
            let mut socket = cluster.at(from)?.connect(Transport::Udp, vip)?;
            socket.send()?;
            let (_, peer) = slow.recv_from(&mut [0; 64]).with_context(|| format!("{from} asks {vip}"))?;
            let question = format!("sport={} dport=", peer.port());
            eventually(|| {
                let flows = node.proc_net_page("nf_conntrack")?;
                ensure!(!flows.contains(&question), "conntrack keeps the question:\n{flows}");
                Ok(())
            })?;
            // The flow of the answer must outlive the next queries.
            node.run("sysctl", &["-w", &format!("{UNANSWERED}=600")])?;
            slow.send_to(b"I", peer)?;
            let answer = format!("sport=8053 dport={}", peer.port());
            eventually(|| {
                let flows = node.proc_net_page("nf_conntrack")?;
                ensure!(flows.contains(&answer), "the answer has made no flow:\n{flows}");
                Ok(())
            })?;
            socket.send()?;
            slow.recv_from(&mut [0; 64]).with_context(|| format!("{from} asks {vip} again"))?;
        }
        Ok(())
    })
}
