//! UDP clients that keep one socket while the servers behind it change.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use scenarios::{Cluster, Conversation, Service, Slice, TestResult, Transport, eventually, scenario};

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

/// Everybody's next datagrams are answered by `pod`. One may be lost on the way from one server to the other.
fn answered_by(sockets: &mut [Conversation], ways: &[(&str, &str)], pod: &str) -> Result<()> {
    for (socket, (from, to)) in sockets.iter_mut().zip(ways) {
        let result = eventually(|| {
            let name = socket.say().map_err(|failure| anyhow::anyhow!("{failure}"))?.name;
            ensure!(name == pod, "{name} answers");
            Ok(())
        });
        result.map_err(|error| error.context(format!("{from} to {to}, which {pod} should answer")))?;
    }
    Ok(())
}

fn one_socket_follows(policy: &'static str) -> TestResult {
    let builder = Cluster::builder()
        .pod("dns-1", "node-3", "10.244.3.2")
        .pod("dns-2", "node-3", "10.244.3.3")
        .pod("visitor", "node-3", "10.244.3.9");
    scenario(builder, move |cluster| {
        let _servers =
            [cluster.echo("dns-1", Transport::Udp, 8053)?, cluster.echo("dns-2", Transport::Udp, 8053)?];
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
        // Nobody for a while: clients go on asking, and what they are told is not kept.
        cluster.manifests.write("udp", &manifests(policy, None))?;
        node.await_service("UDP 203.0.113.53:53", &[])?;
        for socket in &mut sockets {
            ensure!(socket.say().is_err(), "somebody answers although nobody is there");
        }
        cluster.manifests.write("udp", &manifests(policy, Some(("10.244.3.2", "node-3"))))?;
        answered_by(&mut sockets, &ALL, "dns-1")
    })
}

#[test]
fn one_socket_follows_the_servers() -> TestResult {
    one_socket_follows("Cluster")
}

/// Here pods and processes of the node come by the short cut, which IPVS does not see.
#[test]
fn one_socket_follows_the_servers_of_a_local_service() -> TestResult {
    one_socket_follows("Local")
}

/// Everybody asks before the Service is there, and goes on asking from the same socket: what conntrack has made of
/// the first datagrams does not keep the next ones from it.
#[test]
fn who_asked_too_early_is_answered_as_soon_as_there_is_a_service() -> TestResult {
    let builder =
        Cluster::builder().pod("dns-1", "node-1", "10.244.1.2").pod("visitor", "node-3", "10.244.3.9");
    scenario(builder, |cluster| {
        let _server = cluster.echo("dns-1", Transport::Udp, 8053)?;
        cluster.at("client")?.ip("route add 203.0.113.0/24 via 192.168.128.3")?;
        let node = cluster.at("node-3")?;
        for policy in ["Cluster", "Local"] {
            let proxy = cluster.start_proxy("node-3", &["--cluster-cidr", "10.244.0.0/16"])?;
            // Outside, the policy Local finds nobody on this node.
            let asked = |(from, _): &(&str, &str)| policy == "Cluster" || *from != "client";
            let all: Vec<(&str, &str)> = ALL.into_iter().filter(asked).collect();
            let mut sockets = Vec::new();
            for (from, to) in &all {
                let mut socket = cluster.at(from)?.connect(Transport::Udp, to)?;
                ensure!(socket.say().is_err(), "somebody answers although there is no Service");
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

/// Everybody asks a server that leaves before it answers: whom the answer does not reach.
fn without_answer(
    cluster: &Cluster,
    policy: &str,
    slow: &UdpSocket,
) -> Result<Vec<(&'static str, &'static str)>> {
    let node = cluster.at("node-3")?;
    cluster.manifests.write("udp", &manifests(policy, Some(("10.244.3.2", "node-3"))))?;
    for (_, vip) in ALL {
        node.await_serving(&format!("UDP {vip}"), &["10.244.3.2:8053"])?;
    }
    let mut asked = Vec::new();
    for (from, vip) in ALL {
        let socket = cluster.at(from)?.enter(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.connect(vip)?;
        socket.send(b"who?")?;
        let (_, peer) = slow.recv_from(&mut [0; 8]).with_context(|| format!("{from} asks {vip}"))?;
        asked.push((from, vip, socket, peer));
    }
    cluster.manifests.write("udp", &manifests(policy, Some(("10.244.3.3", "node-3"))))?;
    node.await_serving("UDP 10.96.0.53:53", &["10.244.3.3:8053"])?;
    for (.., peer) in &asked {
        slow.send_to(b"I", peer)?;
    }
    let waits = asked.into_iter().filter(|(_, _, socket, _)| socket.recv(&mut [0; 8]).is_err());
    let waiting = waits.map(|(from, vip, ..)| (from, vip)).collect();
    // And not for longer than that.
    node.await_service("UDP 10.96.0.53:53", &["10.244.3.3:8053 1"])?;
    Ok(waiting)
}

/// A DNS query that is under way when its server goes must not cost its client a time-out.
#[test]
fn what_a_server_was_asked_it_may_still_answer_when_it_leaves() -> TestResult {
    let builder = Cluster::builder()
        .pod("dns-1", "node-3", "10.244.3.2")
        .pod("dns-2", "node-3", "10.244.3.3")
        .pod("visitor", "node-3", "10.244.3.9");
    scenario(builder, |cluster| {
        let slow = cluster.at("dns-1")?.enter(|| Ok(UdpSocket::bind("10.244.3.2:8053")?))?;
        slow.set_read_timeout(Some(Duration::from_secs(3)))?;
        let _other = cluster.echo("dns-2", Transport::Udp, 8053)?;
        cluster.at("client")?.ip("route add 203.0.113.0/24 via 192.168.128.3")?;
        let _proxy = cluster.start_proxy("node-3", &["--cluster-cidr", "10.244.0.0/16"])?;
        for policy in ["Cluster", "Local"] {
            let mut waiting = Vec::new();
            // A busy machine may answer too late once; what is not let through never arrives.
            for _ in 0..3 {
                waiting = without_answer(cluster, policy, &slow)?;
                if waiting.is_empty() {
                    break;
                }
            }
            ensure!(waiting.is_empty(), "with the policy {policy} {waiting:?} wait in vain");
        }
        Ok(())
    })
}
