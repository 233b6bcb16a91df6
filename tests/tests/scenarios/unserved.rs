//! Ports that a VIP does not serve: those of node processes on the wildcard address, and unallocated ClusterIPs.

use std::net::SocketAddr;

use anyhow::ensure;
use scenarios::{Cluster, ClusterBuilder, Service, Slice, TestResult, Transport, eventually, scenario, time_out};

const VIPS: [&str; 6] =
    ["10.96.0.80", "203.0.113.10", "198.51.100.10", "fd00:10:96::80", "2001:db8:1::10", "2001:db8:2::10"];
const RANGES: [(&str, &str); 6] = [
    ("10.96.0.0/16", "192.168.128.3"),
    ("203.0.113.0/24", "192.168.128.3"),
    ("198.51.100.0/24", "192.168.128.3"),
    ("fd00:10:96::/64", "fd00:128::3"),
    ("2001:db8:1::/64", "fd00:128::3"),
    ("2001:db8:2::/64", "fd00:128::3"),
];

fn builder() -> ClusterBuilder {
    let cluster = Cluster::builder().pod("web-1", "node-1", "10.244.1.2 fd00:10:244:1::2");
    cluster.pod("visitor", "node-3", "10.244.3.9 fd00:10:244:3::9")
}

/// A node's `sshd` is not reachable through a VIP, and stays reachable at the node. VIPs answer pings.
#[test]
fn ports_of_the_node_are_not_reached_through_vips() -> TestResult {
    scenario(builder(), |cluster| {
        let _servers = [
            cluster.echo("web-1", Transport::Tcp, 8080)?,
            cluster.echo("node-3", Transport::Tcp, 22)?,
            cluster.echo("node-3", Transport::Udp, 22)?,
        ];
        let service = Service::new("web")
            .line("type: LoadBalancer")
            .line("externalIPs: [198.51.100.10, \"2001:db8:2::10\"]")
            .cluster_ip("10.96.0.80")
            .cluster_ip("fd00:10:96::80")
            .load_balancer_ip("203.0.113.10")
            .load_balancer_ip("2001:db8:1::10")
            .port_line("port: 80, targetPort: 8080");
        let slice = Slice::of("web").port(8080).ready("10.244.1.2").on("node-1");
        let slice_v6 = Slice::of("web").name("web-v6").port(8080).ready("fd00:10:244:1::2").on("node-1");
        let ranges = "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: kubernetes}\n\
                      spec: {cidrs: [10.96.0.0/16, \"fd00:10:96::/112\"]}\n";
        cluster.manifests.write("web", &format!("{service}---\n{slice}---\n{slice_v6}---\n{ranges}"))?;
        let flags = ["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"];
        let _proxy = cluster.start_proxy("node-3", &flags)?;
        let node = cluster.at("node-3")?;
        // One client gets more ICMP errors per second than a kernel sends to one peer by default.
        node.sysctls(&[("ipv4.icmp_ratemask", "0"), ("ipv6.icmp.ratemask", "128")])?;
        node.await_vips(&VIPS)?;
        cluster.await_settled("node-3", &flags)?;
        for (range, gateway) in RANGES {
            cluster.at("client")?.ip(&format!("route add {range} via {gateway}"))?;
        }
        for from in ["visitor", "client", "node-3"] {
            let from = cluster.at(from)?;
            for vip in VIPS {
                let at = |port| SocketAddr::new(vip.parse().unwrap(), port).to_string();
                from.echo(Transport::Tcp, &at(80))?;
                from.expect_refused(Transport::Tcp, &at(22))?;
                from.expect_refused(Transport::Udp, &at(22))?;
                from.expect_refused(Transport::Sctp, &at(22))?;
                from.run("ping", &["-c", "1", "-W", &time_out(), vip])?;
            }
            // Packets to unallocated ClusterIPs do not loop between the nodes and their router.
            for unallocated in ["10.96.99.99:80", "[fd00:10:96::9999]:80"] {
                from.expect_refused(Transport::Tcp, unallocated)?;
                from.expect_refused(Transport::Udp, unallocated)?;
                from.expect_refused(Transport::Sctp, unallocated)?;
            }
            from.echo(Transport::Tcp, "192.168.128.3:22")?;
            from.echo(Transport::Tcp, "[fd00:128::3]:22")?;
        }
        Ok(())
    })
}

/// curl's exit code for a refused connection. A time-out is 28.
const COULD_NOT_CONNECT: i32 = 7;

/// IPVS can pass a packet for a Service on to the node: without a virtual server, as while one is being created or is
/// refused, and from port 20, which IPVS takes for FTP data. Such a packet must not reach a process of the node on the
/// wildcard address.
#[test]
fn node_listener_gets_no_packet_that_ipvs_does_not_schedule() -> TestResult {
    scenario(builder(), |cluster| {
        let _servers = [
            cluster.echo("web-1", Transport::Tcp, 8080)?,
            cluster.echo("node-3", Transport::Tcp, 80)?,
            cluster.echo("node-3", Transport::Udp, 80)?,
        ];
        let service = Service::new("web")
            .line("externalIPs: [198.51.100.10, \"2001:db8:2::10\"]")
            .cluster_ip("10.96.0.80")
            .cluster_ip("fd00:10:96::80")
            .port_line("name: tcp, port: 80, targetPort: 8080")
            .port_line("name: udp, protocol: UDP, port: 80, targetPort: 8080");
        let slice = |name: &str, address: &str| {
            let slice = Slice::of("web").name(name).named_port("tcp", "TCP", 8080).named_port("udp", "UDP", 8080);
            slice.ready(address).on("node-1")
        };
        let slices = [slice("web-v4", "10.244.1.2"), slice("web-v6", "fd00:10:244:1::2")];
        cluster.manifests.write("web", &format!("{service}---\n{}---\n{}", slices[0], slices[1]))?;
        let flags = ["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48", "--ipvs-sync-period", "1h"];
        let _proxy = cluster.start_proxy("node-3", &flags)?;
        let node = cluster.at("node-3")?;
        node.sysctls(&[("ipv4.icmp_ratemask", "0"), ("ipv6.icmp.ratemask", "128")])?;
        cluster.await_settled("node-3", &flags)?;
        for (range, gateway) in RANGES {
            cluster.at("client")?.ip(&format!("route add {range} via {gateway}"))?;
        }
        let vips = ["10.96.0.80:80", "198.51.100.10:80", "[fd00:10:96::80]:80", "[2001:db8:2::10]:80"];
        for from in ["visitor", "client", "node-3"] {
            let from = cluster.at(from)?;
            for vip in vips {
                ensure!(from.echo(Transport::Tcp, vip)?.name == "web-1");
                let url = format!("http://{vip}/");
                let arguments = ["-sS", "--max-time", &time_out(), "--local-port", "20", &url];
                let ftp_data = from.output("curl", &arguments)?;
                ensure!(ftp_data.status.code() == Some(COULD_NOT_CONNECT), "{vip} from port 20: {ftp_data:?}");
            }
        }
        node.run("ipvsadm", &["-C"])?;
        for from in ["visitor", "client", "node-3"] {
            for vip in vips {
                cluster.at(from)?.expect_refused(Transport::Tcp, vip)?;
                cluster.at(from)?.expect_refused(Transport::Udp, vip)?;
            }
        }
        node.echo(Transport::Tcp, "192.168.128.3:80")?;
        Ok(())
    })
}

/// Without ping answers, kube-ipvs rejects pings as any other unserved packet.
#[test]
fn pings_of_vips_can_be_turned_off() -> TestResult {
    scenario(Cluster::builder().pod("visitor", "node-3", "10.244.3.9"), |cluster| {
        cluster.manifests.write("web", &Service::new("web").cluster_ip("10.96.0.80").port(80))?;
        let _proxy = cluster.start_proxy("node-3", &["--vip-ping=false"])?;
        cluster.at("node-3")?.await_vips(&["10.96.0.80"])?;
        let visitor = cluster.at("visitor")?;
        let icmp = |name| visitor.counter("snmp", "Icmp:", name);
        let (unreachable, answered) = (icmp("InDestUnreachs")?, icmp("InEchoReps")?);
        // ping gets the ICMP error at once, and still waits for an answer: one second is enough.
        visitor.output("ping", &["-c", "1", "-W", "1", "10.96.0.80"])?;
        eventually(|| {
            anyhow::ensure!(icmp("InDestUnreachs")? > unreachable, "no ICMP error came back");
            Ok(())
        })?;
        assert_eq!(icmp("InEchoReps")?, answered, "a VIP answers");
        visitor.run("ping", &["-c", "1", "-W", &time_out(), "192.168.128.3"])?;
        Ok(())
    })
}

/// An external IP is the address of a node. Clients everywhere still reach that node. No node binds the address to
/// kube-ipvs0.
#[test]
fn external_ip_equal_to_a_node_address_is_not_bound() -> TestResult {
    let builder = Cluster::builder().pod("web-1", "node-1", "10.244.1.2").pod("visitor", "node-2", "10.244.2.9");
    scenario(builder, |cluster| {
        let _servers = [cluster.echo("web-1", Transport::Tcp, 8080)?, cluster.echo("node-3", Transport::Tcp, 22)?];
        let service = Service::new("web")
            .line("externalIPs: [192.168.128.3]")
            .cluster_ip("10.96.0.80")
            .port_line("port: 80, targetPort: 8080");
        let slice = Slice::of("web").port(8080).ready("10.244.1.2").on("node-1");
        let mut text = format!("{service}---\n{slice}");
        for node in cluster.nodes() {
            text += &format!(
                "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {}}}\nstatus:\n  addresses:\n  - type: InternalIP\n    \
                 address: {}\n",
                node.name(),
                node.ipv4()
            );
        }
        cluster.manifests.write("web", &text)?;
        let _proxies = cluster.start_proxies(&["--cluster-cidr", "10.244.0.0/16"])?;
        for node in cluster.nodes() {
            node.namespace().await_vips(&["10.96.0.80"])?;
            node.namespace().await_service("TCP 10.96.0.80:80", &["10.244.1.2:8080 1"])?;
        }
        cluster.at("node-3")?.await_service("TCP 192.168.128.3:80", &["10.244.1.2:8080 1"])?;
        for from in ["client", "visitor", "node-1", "node-3"] {
            let from = cluster.at(from)?;
            assert_eq!(from.echo(Transport::Tcp, "192.168.128.3:80")?.name, "web-1");
            assert_eq!(from.echo(Transport::Tcp, "192.168.128.3:22")?.name, "node-3");
        }
        Ok(())
    })
}
