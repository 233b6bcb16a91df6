//! Services that are forwarded without NAT: their endpoints have the VIP too, and answer clients themselves.

use std::net::UdpSocket;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use scenarios::{
    Attempt, Cluster, ClusterBuilder, Namespace, Proxy, Server, Service, Slice, TestResult, Transport, eventually,
    patience, scenario, socket_address,
};

pub(crate) const VIPS: [&str; 2] = ["203.0.113.80", "2001:db8:e::80"];
const CLUSTER_IPS: [&str; 2] = ["10.96.0.80", "fd00:10:96::80"];
pub(crate) const FLAGS: [&str; 3] = ["--annotations=all", "--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"];

fn at_port_80(address: &str) -> String {
    if address.contains(':') { format!("[{address}]:80") } else { format!("{address}:80") }
}

/// A dual-stack Service on TCP and UDP 80, with a VIP of each family.
pub(crate) fn service(annotations: &[(&str, &str)], policy: &str) -> Service {
    let service = Service::new("app")
        .line("type: LoadBalancer")
        .line("allocateLoadBalancerNodePorts: false")
        .line(&format!("externalTrafficPolicy: {policy}"))
        .named_port("tcp", "TCP", 80)
        .named_port("udp", "UDP", 80);
    let service = CLUSTER_IPS.iter().fold(service, |service, ip| service.cluster_ip(ip));
    let service = VIPS.iter().fold(service, |service, ip| service.load_balancer_ip(ip));
    annotations.iter().fold(service, |service, (name, value)| service.annotation(name, value))
}

/// The slices of the Service, one per family. Each endpoint has its node, or none.
pub(crate) fn slices(endpoints: &[(&str, Option<&str>)]) -> String {
    let of_family = |name: &str, v6: bool| {
        let slice = Slice::of("app").name(name).named_port("tcp", "TCP", 80).named_port("udp", "UDP", 80);
        endpoints.iter().fold(slice, |slice, (addresses, node)| {
            let address = addresses.split(' ').find(|address| address.contains(':') == v6);
            let slice = slice.ready(address.unwrap_or_default());
            node.iter().fold(slice, |slice, node| slice.on(node))
        })
    };
    format!("{}---\n{}", of_family("app-4", false), of_family("app-6", true))
}

pub(crate) fn serve(cluster: &Cluster, name: &str) -> Result<Vec<Server>> {
    let namespace = cluster.at(name)?;
    let mut servers = vec![cluster.echo(name, Transport::Tcp, 80)?];
    for vip in VIPS.iter().chain(&CLUSTER_IPS) {
        let length = if vip.contains(':') { "128 dev lo nodad" } else { "32 dev lo" };
        namespace.ip(&format!("addr add {vip}/{length}"))?;
        servers.push(cluster.echo_at(name, Transport::Udp, &at_port_80(vip))?);
    }
    Ok(servers)
}

/// Makes nodes forward packets whose source is one of their own addresses: the answers of endpoints.
pub(crate) fn accept_answers(cluster: &Cluster) -> TestResult {
    cluster.nodes().iter().try_for_each(|node| {
        node.namespace().sysctls(&[("ipv4.conf.all.accept_local", "1"), ("ipv4.conf.all.rp_filter", "0")])
    })
}

pub(crate) fn route_vips(cluster: &Cluster, node: u8) -> TestResult {
    cluster.at("client")?.ip(&format!(
        "route replace 203.0.113.0/24 via 192.168.128.{node}\nroute replace 2001:db8:e::/64 via fd00:128::{node}"
    ))
}

/// Checks that exactly `names` answer, each at least once, and that each sees the client's own address.
fn answered(from: &Namespace, own: [&str; 2], ips: [&str; 2], names: &[&str]) -> TestResult {
    for (ip, own) in ips.into_iter().zip(own) {
        for transport in [Transport::Tcp, Transport::Udp] {
            let mut seen = Vec::new();
            for _ in 0..2 * names.len() {
                let answer = from.echo(transport, &at_port_80(ip))?;
                ensure!(answer.peer.ip().to_string() == own, "{transport:?} {ip}: {answer:?} sees not {own}");
                seen.push(answer.name);
            }
            seen.sort_unstable();
            seen.dedup();
            ensure!(seen == names, "{transport:?} {ip}: {seen:?} answer");
        }
    }
    Ok(())
}

fn await_log(proxy: &Proxy, text: &str) -> Result<()> {
    eventually(|| {
        let log = proxy.log_text();
        ensure!(log.contains(text), "{log}");
        Ok(())
    })
}

/// Waits until all real servers of a virtual server use this forwarding method, and until the VIPs are bound.
pub(crate) fn await_forwarding(node: &Namespace, key: &str, forward: &str, count: usize) -> TestResult {
    node.await_vips(&[VIPS, CLUSTER_IPS].concat())?;
    eventually(|| {
        let table = node.ipvsadm()?;
        let real_servers = &table.service(key).with_context(|| format!("no {key}"))?.real_servers;
        let right = real_servers.iter().filter(|real| real.forward == forward && real.weight > 0).count();
        ensure!((right, real_servers.len()) == (count, count), "{key} {forward}: {real_servers:?}");
        Ok(())
    })
}

const CLIENT: [&str; 2] = ["192.168.128.100", "fd00:128::100"];
const VISITOR: [&str; 2] = ["10.244.3.9", "fd00:10:244:3::9"];

pub(crate) fn lan() -> ClusterBuilder {
    Cluster::builder().host("real-1", "192.168.128.51 fd00:128::51").host("real-2", "192.168.128.52 fd00:128::52").pod(
        "visitor",
        "node-3",
        "10.244.3.9 fd00:10:244:3::9",
    )
}

/// The classic setup: the servers are on the LAN and answer clients directly.
#[test]
fn direct_routing_to_lan_servers_keeps_client_addresses() -> TestResult {
    scenario(lan(), |cluster| {
        let mut servers = serve(cluster, "real-1")?;
        servers.extend(serve(cluster, "real-2")?);
        accept_answers(cluster)?;
        route_vips(cluster, 3)?;
        let endpoints = [("192.168.128.51 fd00:128::51", None), ("192.168.128.52 fd00:128::52", None)];
        cluster.manifests.write("slices", &slices(&endpoints))?;
        cluster.manifests.write("app", &service(&[], "Cluster"))?;
        let _proxy = cluster.start_proxy("node-3", &FLAGS)?;
        let (node, client, visitor) = (cluster.at("node-3")?, cluster.at("client")?, cluster.at("visitor")?);
        await_forwarding(node, "TCP 203.0.113.80:80", "Masq", 2)?;
        // With NAT the servers see the node's address.
        let mut held = client.connect(Transport::Tcp, "203.0.113.80:80")?;
        let before = held.say()?;
        ensure!(before.peer.ip().to_string() == "192.168.128.3", "{before:?}");

        // The method changes while connections are open. They keep the old one.
        cluster.manifests.write("app", &service(&[("forwarding", "direct")], "Cluster"))?;
        for key in ["TCP 203.0.113.80:80", "UDP [2001:db8:e::80]:80", "TCP 10.96.0.80:80", "UDP 10.96.0.80:80"] {
            await_forwarding(node, key, "Route", 2)?;
        }
        eventually(|| {
            let sets = node.run("nft", &["list", "set", "ip", "kube-ipvs", "external-ips"])?;
            ensure!(!sets.contains("203.0.113.80"), "still masqueraded: {sets}");
            Ok(())
        })?;
        let both = ["real-1", "real-2"];
        answered(client, CLIENT, VIPS, &both)?;
        // Checked last: the kernel caches one route per real server. The route of a NAT connection would send ARP
        // requests for the VIP, which both servers have.
        ensure!(held.say()? == before, "an open connection has changed");
        answered(visitor, VISITOR, CLUSTER_IPS, &both)?;
        // A process of the node has the VIP as source, so it is masqueraded nevertheless.
        node.echo(Transport::Tcp, "10.96.0.80:80")?;

        // IPVS schedules every datagram of one socket separately.
        let annotations = [("forwarding", "direct"), ("udp-scheduling", "datagram")];
        cluster.manifests.write("app", &service(&annotations, "Cluster"))?;
        eventually(|| {
            let table = node.ipvsadm()?;
            let flags = table.service("UDP 203.0.113.80:80").map(|service| service.flags.clone());
            ensure!(flags.as_deref() == Some("ops"), "{flags:?}");
            Ok(())
        })?;
        for vip in VIPS {
            let mut socket = client.connect(Transport::Udp, &at_port_80(vip))?;
            let names: Vec<String> = (0..10).map(|_| Ok(socket.say()?.name)).collect::<Result<_>>()?;
            let first = names.iter().filter(|name| *name == "real-1").count();
            ensure!(first == 5, "{vip}: one socket's ten datagrams go to {names:?}");
        }
        cluster.manifests.write("app", &service(&[], "Cluster"))?;
        await_forwarding(node, "UDP 203.0.113.80:80", "Masq", 2)?;
        ensure!(held.say()? == before, "an open connection has changed");
        let answer = client.echo(Transport::Tcp, "203.0.113.80:80")?;
        ensure!(answer.peer.ip().to_string() == "192.168.128.3", "{answer:?}");
        Ok(())
    })
}

/// kube-ipvs cannot route directly to pods of other nodes. If a VIP has such a pod, kube-ipvs uses NAT for all its
/// pods.
#[test]
fn direct_routing_is_used_only_if_all_pods_are_on_the_node() -> TestResult {
    let builder = Cluster::builder()
        .pod("near-1", "node-3", "10.244.3.2 fd00:10:244:3::2")
        .pod("near-2", "node-3", "10.244.3.3 fd00:10:244:3::3")
        .pod("far", "node-2", "10.244.2.2 fd00:10:244:2::2");
    scenario(builder, |cluster| {
        let mut servers = Vec::new();
        for pod in ["near-1", "near-2", "far"] {
            servers.extend(serve(cluster, pod)?);
        }
        route_vips(cluster, 3)?;
        let endpoints = [
            ("10.244.3.2 fd00:10:244:3::2", Some("node-3")),
            ("10.244.3.3 fd00:10:244:3::3", Some("node-3")),
            ("10.244.2.2 fd00:10:244:2::2", Some("node-2")),
        ];
        cluster.manifests.write("slices", &slices(&endpoints))?;
        let direct = [("forwarding", "direct")];
        cluster.manifests.write("app", &service(&direct, "Local"))?;
        let proxies = cluster.start_proxies(&FLAGS)?;
        let (node, client) = (cluster.at("node-3")?, cluster.at("client")?);
        await_forwarding(node, "TCP 203.0.113.80:80", "Route", 2)?;
        // This VIP has pods of other nodes, so it uses NAT.
        await_forwarding(node, "TCP 10.96.0.80:80", "Masq", 3)?;
        // Linux drops IPv4 packets from one of its own addresses. docs/annotations.md has the remedy.
        let before = client.first_packets_resent(Transport::Tcp)?;
        let mut attempt = Attempt::start(client, Transport::Tcp, socket_address("203.0.113.80:80")?)?;
        eventually(|| {
            // Twice, because on a busy machine an answer can be a little late.
            let resent = client.first_packets_resent(Transport::Tcp)? - before;
            ensure!(resent >= 2, "the first packet was sent again {resent} times");
            Ok(())
        })?;
        let outcome = attempt.outcome()?;
        ensure!(outcome.is_none(), "without accept_local: {outcome:?}");
        drop(attempt);
        client.echo(Transport::Tcp, "[2001:db8:e::80]:80")?;
        accept_answers(cluster)?;
        answered(client, CLIENT, VIPS, &["near-1", "near-2"])?;

        cluster.manifests.write("app", &service(&direct, "Cluster"))?;
        await_forwarding(node, "TCP 203.0.113.80:80", "Masq", 3)?;
        let mut names: Vec<String> =
            (0..6).map(|_| Ok(client.echo(Transport::Tcp, "203.0.113.80:80")?.name)).collect::<Result<_>>()?;
        names.sort_unstable();
        names.dedup();
        ensure!(names == ["far", "near-1", "near-2"], "{names:?}");
        let reason = "Service default/app:tcp asks for forwarding without NAT, and is forwarded with NAT on TCP \
                      203.0.113.80:80: endpoint 10.244.2.2:80 is on another node";
        // The daemon logs it after it has changed the kernel.
        await_log(&proxies[2], reason)?;
        let manifests = cluster.manifests.directory().to_string_lossy().into_owned();
        let explain = ["explain", "app", "--manifests", &manifests, "--hostname-override", "node-3"];
        let explained = cluster.kube_ipvs("node-3")?.run(&[&explain[..], &FLAGS].concat())?;
        ensure!(explained.contains(reason), "{explained}");
        Ok(())
    })
}

/// Sets up the kernel's tunnel devices in a pod, which accept packets from any peer.
fn open_tunnels(pod: &Namespace) -> TestResult {
    pod.sysctls(&[("ipv4.conf.all.rp_filter", "0"), ("ipv4.conf.default.rp_filter", "0")])?;
    pod.ip("link set tunl0 up\nlink set gre0 up\nlink set ip6tnl0 up\nlink set ip6gre0 up")?;
    pod.sysctls(&[("ipv4.conf.tunl0.rp_filter", "0"), ("ipv4.conf.gre0.rp_filter", "0")])?;
    pod.run("ip", &["fou", "add", "port", "6080", "gue"])?;
    pod.run("ip", &["-6", "fou", "add", "port", "6080", "gue"])?;
    Ok(())
}

/// Tunnels end in pods of other nodes. Those nodes see only the answers.
#[test]
fn tunnels_reach_pods_of_other_nodes() -> TestResult {
    let builder = Cluster::builder()
        .pod("app-1", "node-1", "10.244.1.2 fd00:10:244:1::2")
        .pod("app-2", "node-2", "10.244.2.2 fd00:10:244:2::2")
        .pod("visitor", "node-3", "10.244.3.9 fd00:10:244:3::9");
    scenario(builder, |cluster| {
        let modules = ["-a", "ipip", "ip_gre", "fou", "ip6_tunnel", "ip6_gre", "fou6"];
        ensure!(Command::new("modprobe").args(modules).status()?.success(), "the kernel lacks tunnels");
        let mut servers = Vec::new();
        for pod in ["app-1", "app-2"] {
            servers.extend(serve(cluster, pod)?);
            open_tunnels(cluster.at(pod)?)?;
        }
        accept_answers(cluster)?;
        route_vips(cluster, 3)?;
        let endpoints =
            [("10.244.1.2 fd00:10:244:1::2", Some("node-1")), ("10.244.2.2 fd00:10:244:2::2", Some("node-2"))];
        cluster.manifests.write("slices", &slices(&endpoints))?;
        cluster.manifests.write("app", &service(&[], "Cluster"))?;
        let _proxies = cluster.start_proxies(&FLAGS)?;
        let (node, client, visitor) = (cluster.at("node-3")?, cluster.at("client")?, cluster.at("visitor")?);
        for (value, info) in [("ipip", "ipip"), ("gre", "gre"), ("gue:6080", "gue:6080")] {
            cluster.manifests.write("app", &service(&[("forwarding", value)], "Cluster"))?;
            for name in ["node-1", "node-2", "node-3"] {
                await_forwarding(cluster.at(name)?, "UDP [2001:db8:e::80]:80", "Tunnel", 2)?;
            }
            eventually(|| {
                let said = node.run("ipvsadm", &["-Ln", "--tun-info"])?;
                let real_servers: Vec<&str> =
                    said.lines().filter(|line| line.contains("-> ") && !line.contains("Remote")).collect();
                let all = real_servers.len() == 16 && real_servers.iter().all(|line| line.contains(info));
                ensure!(all, "not all by {info}: {said}");
                Ok(())
            })?;
            let both = ["app-1", "app-2"];
            answered(client, CLIENT, VIPS, &both).with_context(|| format!("by {value}, from outside"))?;
            answered(visitor, VISITOR, CLUSTER_IPS, &both).with_context(|| format!("by {value}, from a pod"))?;
        }
        Ok(())
    })
}

/// With NAT, kube-ipvs schedules datagrams separately only if the Service declares that there are no answers.
#[test]
fn datagram_scheduling_with_nat_requires_one_way_datagrams() -> TestResult {
    let builder = Cluster::builder().pod("log-1", "node-1", "10.244.1.2 fd00:10:244:1::2").pod(
        "log-2",
        "node-2",
        "10.244.2.2 fd00:10:244:2::2",
    );
    scenario(builder, |cluster| {
        let endpoints =
            [("10.244.1.2 fd00:10:244:1::2", Some("node-1")), ("10.244.2.2 fd00:10:244:2::2", Some("node-2"))];
        cluster.manifests.write("slices", &slices(&endpoints).replace("port: 80", "port: 514"))?;
        cluster.manifests.write("app", &service(&[("udp-scheduling", "datagram")], "Cluster"))?;
        let listen = |pod: &str| {
            let socket = cluster.at(pod)?.enter(|| Ok(UdpSocket::bind("[::]:514")?))?;
            socket.set_read_timeout(Some(patience()))?;
            anyhow::Ok(socket)
        };
        let pods = [listen("log-1")?, listen("log-2")?];
        route_vips(cluster, 3)?;
        let proxy = cluster.start_proxy("node-3", &FLAGS)?;
        let (node, client) = (cluster.at("node-3")?, cluster.at("client")?);
        let keys = ["UDP 203.0.113.80:80", "UDP [2001:db8:e::80]:80"];
        let await_flags = |wanted: &str| {
            eventually(|| {
                let table = node.ipvsadm()?;
                let flags = keys.map(|key| table.service(key).map(|service| service.flags.clone()));
                ensure!(flags == [Some(wanted.to_owned()), Some(wanted.to_owned())], "{flags:?}");
                Ok(())
            })
        };
        await_forwarding(node, keys[0], "Masq", 2)?;
        await_flags("")?;
        let refused = "Service default/app:udp is scheduled by flow on UDP 203.0.113.80:80, not by datagram";
        await_log(&proxy, refused)?;

        cluster.manifests.write("app", &service(&[("udp-scheduling", "one-way-datagram")], "Cluster"))?;
        await_flags("ops")?;
        for vip in VIPS {
            let socket = client.enter(|| Ok(UdpSocket::bind("[::]:0")?))?;
            for number in 0..10 {
                socket.send_to(format!("line {number}").as_bytes(), socket_address(&at_port_80(vip))?)?;
            }
            for pod in &pods {
                let mut buffer = [0; 100];
                let lines = (0..5).map(|_| Ok(pod.recv_from(&mut buffer)?)).collect::<Result<Vec<_>>>();
                let lines = lines.with_context(|| format!("{vip}: every other line comes to each pod"))?;
                ensure!(lines.len() == 5, "{vip}: {lines:?}");
            }
        }
        Ok(())
    })
}
