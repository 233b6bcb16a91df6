//! Scenario 5: loadBalancerSourceRanges, for outside clients, pods and the node itself.

use anyhow::{Context, Result, ensure};
use scenarios::{
    Attempt, Cluster, Failure, Service, Slice, TestResult, Transport, eventually, scenario, socket_address,
};

const VIP: &str = "203.0.113.10:80";
const VIP_V6: &str = "[2001:db8:1::10]:80";
const FLAGS: [&str; 2] = ["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"];
const NODE: &str = "node-3";
const CLIENTS: [&str; 4] = ["client", "other", "visitor", NODE];

/// Checks that exactly these clients reach a load-balancer IP. The rule on the node drops and counts the first packet
/// of every other client, so the test waits for no time-out.
fn ensure_let_through(cluster: &Cluster, transport: Transport, vip: &str, expected: &[&str]) -> Result<()> {
    let node = cluster.at(NODE)?;
    let mut counted = node.nft_packets(RULE)?;
    for client in CLIENTS.iter().filter(|client| !expected.contains(client)) {
        let who = format!("{client} to {vip} over {transport:?}");
        let mut attempt = Attempt::start(cluster.at(client)?, transport, socket_address(vip)?)?;
        counted = eventually(|| {
            let now = node.nft_packets(RULE)?;
            ensure!(now > counted, "{who}: nothing is dropped");
            Ok(now)
        })?;
        match attempt.outcome()? {
            None => {}
            // The kernel reports a local drop to the process at once.
            Some(Err(Failure::Refused)) if *client == NODE && transport == Transport::Udp => {}
            Some(outcome) => anyhow::bail!("{who}: dropped, and yet {outcome:?}"),
        }
        drop(attempt);
        // The client can have retransmitted before it ended.
        counted = counted.max(node.nft_packets(RULE)?);
    }
    for client in expected {
        cluster.at(client)?.echo(transport, vip)?;
    }
    let now = node.nft_packets(RULE)?;
    ensure!(now == counted, "{transport:?} {vip}: {} packets of {expected:?} were dropped", now - counted);
    Ok(())
}

/// The bridge of node-3's pods has an address in the pods' range, so the Node must name the node's address.
const NODE_OBJECT: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: node-3}\n\
                           status: {addresses: [{type: InternalIP, address: 192.168.128.3}, \
                           {type: InternalIP, address: \"fd00:128::3\"}]}\n";

const RULE: &str = "loadBalancerSourceRanges";

#[test]
fn only_sources_in_the_ranges_reach_a_load_balancer_ip() -> TestResult {
    let builder = Cluster::builder()
        .pod("web-1", "node-1", "10.244.1.2 fd00:10:244:1::2")
        .pod("visitor", "node-3", "10.244.3.9 fd00:10:244:3::9")
        .host("other", "192.168.128.101 fd00:128::101");
    scenario(builder, |cluster| {
        let _server = cluster.echo("web-1", Transport::Tcp, 8080)?;
        let web = |ranges: &str| {
            let service = Service::new("web")
                .line("type: LoadBalancer")
                .line(&format!("loadBalancerSourceRanges: [{ranges}]"))
                .cluster_ip("10.96.0.80")
                .cluster_ip("fd00:10:96::80")
                .load_balancer_ip("203.0.113.10")
                .load_balancer_ip("2001:db8:1::10");
            let service = service.port_line("port: 80, targetPort: 8080, nodePort: 30080");
            let slice = Slice::of("web").port(8080).ready("10.244.1.2").on("node-1");
            let slice_v6 = Slice::of("web").name("web-v6").port(8080).ready("fd00:10:244:1::2").on("node-1");
            format!("{service}---\n{slice}---\n{slice_v6}---\n{NODE_OBJECT}")
        };
        for client in ["client", "other"] {
            cluster.at(client)?.ip("route add 203.0.113.0/24 via 192.168.128.3")?;
            cluster.at(client)?.ip("route add 2001:db8:1::/64 via fd00:128::3")?;
        }
        let node = cluster.at("node-3")?;
        let without_visitor: Vec<_> = CLIENTS.into_iter().filter(|client| *client != "visitor").collect();
        // The ranges, and the clients within them in each family. A process of the node uses the VIP as source.
        for (ranges, v4, v6) in [
            ("192.168.128.100/32, \"fd00:128::101/128\"", vec!["client"], vec!["other"]),
            // Ranges of one family do not restrict the other.
            ("10.244.0.0/16, 10.244.3.0/24", vec!["visitor"], CLIENTS.to_vec()),
            ("192.168.128.0/25, \"fd00:10:244::/48\"", without_visitor.clone(), vec!["visitor"]),
            ("\"192.168.128.101/32\", \"fd00:128::/64\", \"fd00:128::/96\"", vec!["other"], without_visitor),
            ("0.0.0.0/0, \"::/0\"", CLIENTS.to_vec(), CLIENTS.to_vec()),
        ] {
            cluster.manifests.write("web", &web(ranges))?;
            let proxy = cluster.start_proxy("node-3", &FLAGS)?;
            cluster.await_settled("node-3", &FLAGS)?;
            for (vip, expected) in [(VIP, v4), (VIP_V6, v6)] {
                ensure_let_through(cluster, Transport::Tcp, vip, &expected)
                    .with_context(|| format!("with {ranges}"))?;
            }
            for client in CLIENTS {
                cluster.at(client)?.echo(Transport::Tcp, "192.168.128.3:30080")?;
                cluster.at(client)?.echo(Transport::Tcp, "[fd00:128::3]:30080")?;
            }
            for cluster_ip in ["10.96.0.80:80", "[fd00:10:96::80]:80"] {
                cluster.at("visitor")?.echo(Transport::Tcp, cluster_ip)?;
                node.echo(Transport::Tcp, cluster_ip)?;
            }
            proxy.terminate()?;
        }
        Ok(())
    })
}

/// The ranges change, for every protocol: to others, to none, and back. They apply to new connections, and established
/// ones continue.
#[test]
fn changed_source_ranges_apply_to_new_connections_only() -> TestResult {
    let builder = Cluster::builder()
        .pod("web-1", "node-1", "10.244.1.2")
        .pod("visitor", "node-3", "10.244.3.9")
        .host("other", "192.168.128.101");
    scenario(builder, |cluster| {
        let transports = [(Transport::Tcp, "TCP"), (Transport::Udp, "UDP"), (Transport::Sctp, "SCTP")];
        let _servers = transports
            .iter()
            .map(|(transport, _)| cluster.echo("web-1", *transport, 8080))
            .collect::<Result<Vec<_>>>()?;
        for client in ["client", "other"] {
            cluster.at(client)?.ip("route add 203.0.113.0/24 via 192.168.128.3")?;
        }
        let web = |ranges: &str| {
            let service = Service::new("web")
                .line("type: LoadBalancer")
                .line(&format!("loadBalancerSourceRanges: [{ranges}]"))
                .cluster_ip("10.96.0.80")
                .load_balancer_ip("203.0.113.10");
            let (service, slice) =
                transports.iter().fold((service, Slice::of("web")), |(service, slice), (_, name)| {
                    let lower = name.to_lowercase();
                    let line = format!("name: {lower}, protocol: {name}, port: 80, targetPort: 8080");
                    (service.port_line(&line), slice.named_port(&lower, name, 8080))
                });
            format!("{service}---\n{}---\n{NODE_OBJECT}", slice.ready("10.244.1.2").on("node-1"))
        };
        let _proxy = cluster.start_proxy(NODE, &FLAGS)?;
        let mut lasting = None;
        for (ranges, expected) in [
            ("192.168.128.100/32", vec!["client"]),
            ("192.168.128.100/31", vec!["client", "other"]),
            ("192.168.128.101/32", vec!["other"]),
            ("", CLIENTS.to_vec()),
            ("10.244.0.0/16", vec!["visitor"]),
        ] {
            cluster.manifests.write("web", &web(ranges))?;
            cluster.await_settled(NODE, &FLAGS)?;
            for (transport, _) in transports {
                ensure_let_through(cluster, transport, VIP, &expected).with_context(|| format!("with {ranges}"))?;
            }
            let conversation = match &mut lasting {
                Some(conversation) => conversation,
                none => none.insert(cluster.at("client")?.connect(Transport::Tcp, VIP)?),
            };
            conversation.say()?;
        }
        Ok(())
    })
}
