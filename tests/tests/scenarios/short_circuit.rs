//! Connections through the short circuit of a Service with the policy Local. conntrack handles their packets, IPVS does
//! not see them.

use anyhow::{Result, ensure};
use scenarios::{Cluster, Failure, Service, Slice, TestResult, Transport, eventually, scenario};

const VIP: &str = "203.0.113.7:80";
const FLAGS: [&str; 2] = ["--cluster-cidr", "10.244.0.0/16"];

fn manifests(conditions: &[(&str, &str, &str)]) -> String {
    let service = Service::new("app")
        .line("type: LoadBalancer")
        .line("externalTrafficPolicy: Local")
        .cluster_ip("10.96.0.7")
        .load_balancer_ip("203.0.113.7")
        .port_line("name: tcp, protocol: TCP, port: 80, targetPort: 8080")
        .port_line("name: sctp, protocol: SCTP, port: 80, targetPort: 8080");
    let slice = Slice::of("app").named_port("tcp", "TCP", 8080).named_port("sctp", "SCTP", 8080);
    let slice = conditions
        .iter()
        .fold(slice, |slice, (address, node, conditions)| slice.endpoint(address, conditions).on(node));
    format!("{service}---\n{slice}")
}

fn put(cluster: &Cluster, conditions: &[(&str, &str, &str)]) -> Result<()> {
    cluster.manifests.write("app", &manifests(conditions))
}

const READY: &str = "ready: true, serving: true, terminating: false";
const TERMINATING: &str = "ready: false, serving: true, terminating: true";

/// The endpoint terminates, keeps its connections, and leaves while its server still runs. Its clients learn of it at
/// once, over TCP and SCTP, from a pod and from the node.
#[test]
fn short_circuit_connections_end_with_their_endpoint() -> TestResult {
    let builder = Cluster::builder().pod("old", "node-1", "10.244.1.2").pod("new", "node-2", "10.244.2.2").pod(
        "visitor",
        "node-3",
        "10.244.3.9",
    );
    scenario(builder, |cluster| {
        let transports = [Transport::Tcp, Transport::Sctp];
        let _servers: Vec<_> = ["old", "new"]
            .iter()
            .flat_map(|pod| transports.map(|transport| cluster.echo(pod, transport, 8080)))
            .collect::<Result<_>>()?;
        put(cluster, &[("10.244.1.2", "node-1", READY)])?;
        let proxy = cluster.start_proxy("node-3", &FLAGS)?;
        let node = cluster.at("node-3")?;
        node.await_service("SCTP 10.96.0.7:80", &["10.244.1.2:8080 1"])?;
        cluster.await_settled("node-3", &FLAGS)?;
        // No Node object has a podCIDR.
        let log = proxy.log_text();
        ensure!(log.contains("cannot distinguish IPv4 pods of other nodes"), "{log}");
        let mut conversations = Vec::new();
        for from in ["visitor", "node-3"] {
            for transport in transports {
                let mut conversation = cluster.at(from)?.connect(transport, VIP)?;
                ensure!(conversation.say()?.name == "old");
                conversations.push((from, transport, conversation));
            }
        }
        put(cluster, &[("10.244.1.2", "node-1", TERMINATING), ("10.244.2.2", "node-2", READY)])?;
        node.await_serving("SCTP 10.96.0.7:80", &["10.244.2.2:8080"])?;
        for (from, transport, conversation) in &mut conversations {
            let answer = conversation.say();
            ensure!(answer.is_ok(), "{from} {transport:?} lost a draining endpoint: {answer:?}");
        }
        put(cluster, &[("10.244.2.2", "node-2", READY)])?;
        node.await_service("SCTP 10.96.0.7:80", &["10.244.2.2:8080 1"])?;
        cluster.await_settled("node-3", &FLAGS)?;
        for (from, transport, conversation) in &mut conversations {
            match conversation.say() {
                Err(Failure::Reset | Failure::Refused) => {}
                other => anyhow::bail!("{from} {transport:?}: not told that its endpoint is gone: {other:?}"),
            }
            ensure!(cluster.at(from)?.echo(*transport, VIP)?.name == "new");
        }
        Ok(())
    })
}

/// The only endpoint is briefly not ready, and then is briefly in no slice. kube-ipvs rejects new connections and keeps
/// the established ones, as on the ClusterIP.
#[test]
fn short_circuit_connections_survive_a_moment_without_endpoints() -> TestResult {
    const NOT_READY: &str = "ready: false, serving: false, terminating: false";
    let builder = Cluster::builder().pod("app", "node-1", "10.244.1.2").pod("visitor", "node-3", "10.244.3.9");
    scenario(builder, |cluster| {
        let transports = [Transport::Tcp, Transport::Sctp];
        let _servers: Vec<_> =
            transports.iter().map(|transport| cluster.echo("app", *transport, 8080)).collect::<Result<_>>()?;
        let ready = [("10.244.1.2", "node-1", READY)];
        put(cluster, &ready)?;
        let _proxy = cluster.start_proxy("node-3", &FLAGS)?;
        let node = cluster.at("node-3")?;
        node.await_service("SCTP 10.96.0.7:80", &["10.244.1.2:8080 1"])?;
        cluster.await_settled("node-3", &FLAGS)?;
        let mut conversations = Vec::new();
        for (from, to) in [("visitor", VIP), ("node-3", VIP), ("visitor", "10.96.0.7:80")] {
            for transport in transports {
                let mut conversation = cluster.at(from)?.connect(transport, to)?;
                conversation.say()?;
                conversations.push((format!("{from} {transport:?} {to}"), conversation));
            }
        }
        for moment in [&[("10.244.1.2", "node-1", NOT_READY)][..], &[]] {
            for (endpoints, weight) in [(moment, 0), (&ready[..], 1)] {
                put(cluster, endpoints)?;
                node.await_service("SCTP 10.96.0.7:80", &[&format!("10.244.1.2:8080 {weight}")])?;
                cluster.await_settled("node-3", &FLAGS)?;
                for (who, conversation) in &mut conversations {
                    let answer = conversation.say();
                    ensure!(answer.is_ok(), "{who} with {endpoints:?}: {answer:?}");
                }
                if weight == 0 {
                    cluster.at("visitor")?.expect_refused(Transport::Tcp, VIP)?;
                    node.expect_refused(Transport::Tcp, VIP)?;
                }
            }
        }
        Ok(())
    })
}

/// "proxy implementation should not be vulnerable to the invalid conntrack state bug": conntrack does not assign such a
/// packet to a connection, so NAT does not translate it. With the pod's own address as source, it would make the client
/// reset the connection.
#[test]
fn out_of_window_packet_does_not_reset_the_connection() -> TestResult {
    const INVALID: &str = "drop packets that conntrack calls invalid";
    let builder = Cluster::builder().pod("app", "node-1", "10.244.1.2").pod("visitor", "node-3", "10.244.3.9");
    scenario(builder, |cluster| {
        let _server = cluster.echo("app", Transport::Tcp, 8080)?;
        put(cluster, &[("10.244.1.2", "node-1", READY)])?;
        let _proxy = cluster.start_proxy("node-3", &FLAGS)?;
        let node = cluster.at("node-3")?;
        node.await_service("TCP 10.96.0.7:80", &["10.244.1.2:8080 1"])?;
        cluster.await_settled("node-3", &FLAGS)?;
        for to in ["10.96.0.7:80", VIP] {
            let mut conversation = cluster.at("visitor")?.connect(Transport::Tcp, to)?;
            let peer = conversation.say()?.peer;
            let before = node.nft_packets(INVALID)?;
            scenarios::send_out_of_window(cluster.at("app")?, "10.244.1.2:8080".parse()?, peer)?;
            eventually(|| {
                ensure!(node.nft_packets(INVALID)? > before, "not dropped");
                Ok(())
            })?;
            let answer = conversation.say();
            ensure!(answer.is_ok(), "{to}: the connection was killed: {answer:?}");
        }
        Ok(())
    })
}

/// If both policies are Local, a short circuit leads to a virtual server on a separate port. Direct connections to that
/// port are rejected.
#[test]
fn inner_port_of_a_short_circuit_refuses_direct_clients() -> TestResult {
    let builder = Cluster::builder().pod("app", "node-1", "10.244.1.2").pod("visitor", "node-3", "10.244.3.9");
    scenario(builder, |cluster| {
        let transports = [(Transport::Tcp, "TCP"), (Transport::Udp, "UDP"), (Transport::Sctp, "SCTP")];
        let _servers: Vec<_> =
            transports.iter().map(|(transport, _)| cluster.echo("app", *transport, 8080)).collect::<Result<_>>()?;
        let service = Service::new("app")
            .line("type: LoadBalancer")
            .line("externalTrafficPolicy: Local")
            .line("internalTrafficPolicy: Local")
            .cluster_ip("10.96.0.7")
            .load_balancer_ip("203.0.113.7");
        let line = |name: &str| format!("name: {}, protocol: {name}, port: 80, targetPort: 8080", name.to_lowercase());
        let service = transports.iter().fold(service, |service, (_, name)| service.port_line(&line(name)));
        let slice = transports
            .iter()
            .fold(Slice::of("app"), |slice, (_, name)| slice.named_port(&name.to_lowercase(), name, 8080));
        let slice = slice.ready("10.244.1.2").on("node-1");
        cluster.manifests.write("app", &format!("{service}---\n{slice}"))?;
        let _proxy = cluster.start_proxy("node-3", &FLAGS)?;
        let node = cluster.at("node-3")?;
        node.await_vips(&["10.96.0.7", "203.0.113.7"])?;
        cluster.await_settled("node-3", &FLAGS)?;
        cluster.at("client")?.ip("route add 10.96.0.0/16 via 192.168.128.3")?;
        let keys = node.ip_vs()?.keys();
        for (transport, name) in transports {
            let inner: Vec<&str> = keys
                .iter()
                .filter_map(|key| key.strip_prefix(&format!("{name} ")))
                .filter(|at| at.starts_with("10.96.0.7:") && !at.ends_with(":80"))
                .collect();
            ensure!(inner.len() == 1, "{name}: {inner:?} of {keys:?}");
            for from in ["visitor", "node-3", "client"] {
                let from = cluster.at(from)?;
                from.expect_refused(transport, inner[0])?;
                if !from.name().ends_with("client") {
                    ensure!(from.echo(transport, VIP)?.name == "app");
                }
            }
        }
        Ok(())
    })
}
