//! Scenario 9: `sessionAffinity: ClientIP`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use scenarios::{Cluster, Service, Slice, TestResult, Transport, eventually, scenario};

use Transport::{Tcp, Udp};

const PODS: [(&str, [&str; 2]); 2] =
    [("app-1", ["10.244.3.2", "fd00:10:244:3::2"]), ("app-2", ["10.244.3.3", "fd00:10:244:3::3"])];

const WAYS: [(&str, Transport, &str); 10] = [
    ("visitor", Tcp, "10.96.0.7:80"),
    ("visitor", Tcp, "203.0.113.7:80"),
    ("client", Tcp, "192.168.128.3:30080"),
    ("client", Tcp, "203.0.113.7:80"),
    ("node-3", Tcp, "203.0.113.7:80"),
    ("visitor", Udp, "10.96.0.7:80"),
    ("client", Udp, "203.0.113.7:80"),
    ("visitor", Tcp, "[fd00:10:96::7]:80"),
    ("client", Tcp, "[2001:db8:1::7]:80"),
    ("client", Udp, "[fd00:128::3]:30080"),
];

fn dual_stack(policy: &str, pods: &[usize]) -> String {
    let service = Service::new("app")
        .line("type: LoadBalancer")
        .line("sessionAffinity: ClientIP")
        .line(&format!("externalTrafficPolicy: {policy}"))
        .cluster_ip("10.96.0.7")
        .cluster_ip("fd00:10:96::7")
        .load_balancer_ip("203.0.113.7")
        .load_balancer_ip("2001:db8:1::7")
        .port_line("name: tcp, protocol: TCP, port: 80, targetPort: 8080, nodePort: 30080")
        .port_line("name: udp, protocol: UDP, port: 80, targetPort: 8080, nodePort: 30080");
    let slice = |family: usize| {
        let slice = Slice::of("app").name(&format!("app-{family}"));
        let slice = slice.named_port("tcp", "TCP", 8080).named_port("udp", "UDP", 8080);
        pods.iter().fold(slice, |slice, pod| slice.ready(PODS[*pod].1[family]).on("node-3"))
    };
    format!("{service}---\n{}---\n{}", slice(0), slice(1))
}

/// A client stays on one pod, with every kind of address, in both families, over TCP and UDP. If that pod leaves, the
/// client moves at once.
#[test]
fn client_ip_affinity_holds_until_the_pod_is_gone() -> TestResult {
    let builder = Cluster::builder().pod("visitor", "node-3", "10.244.3.9 fd00:10:244:3::9");
    let builder =
        PODS.iter().fold(builder, |builder, (pod, addresses)| builder.pod(pod, "node-3", &addresses.join(" ")));
    scenario(builder, |cluster| {
        let all = PODS.iter().flat_map(|(pod, _)| [(*pod, Tcp), (*pod, Udp)]);
        let _servers = all.map(|(pod, transport)| cluster.echo(pod, transport, 8080)).collect::<Result<Vec<_>>>()?;
        let client = cluster.at("client")?;
        client.ip("route add 203.0.113.0/24 via 192.168.128.3")?;
        client.ip("route add 2001:db8:1::/64 via fd00:128::3")?;
        let flags = ["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"];
        let _proxy = cluster.start_proxy("node-3", &flags)?;
        let node = cluster.at("node-3")?;
        let put = |policy: &str, pods: &[usize]| -> Result<()> {
            cluster.manifests.write("app", &dual_stack(policy, pods))?;
            for (at, family) in [("203.0.113.7:80", 0), ("10.96.0.7:80", 0), ("[2001:db8:1::7]:80", 1)] {
                let address = |pod: &usize| Ok(SocketAddr::new(PODS[*pod].1[family].parse()?, 8080).to_string());
                let reals = pods.iter().map(address).collect::<Result<Vec<String>>>()?;
                let reals: Vec<&str> = reals.iter().map(String::as_str).collect();
                for protocol in ["TCP", "UDP"] {
                    node.await_serving(&format!("{protocol} {at}"), &reals)?;
                }
            }
            cluster.await_settled("node-3", &flags)
        };
        for policy in ["Cluster", "Local"] {
            put(policy, &[0, 1])?;
            let listing = node.run("ipvsadm", &["-Ln"])?;
            ensure!(listing.contains("10.96.0.7:80 rr persistent 10800"), "not persistent:\n{listing}");
            let ask = |(from, transport, to): &(&str, Transport, &str)| -> Result<String> {
                Ok(cluster.at(from)?.echo(*transport, to)?.name)
            };
            let first = WAYS.iter().map(ask).collect::<Result<Vec<_>>>()?;
            for (way, first) in WAYS.iter().zip(&first) {
                for _ in 0..3 {
                    let next = ask(way)?;
                    ensure!(next == *first, "{policy}: {way:?} moved from {first} to {next}");
                }
            }
            // Each pod leaves once: its clients move at once, and all others stay.
            for (gone, left) in [(0, 1), (1, 0)] {
                put(policy, &[left])?;
                for way in &WAYS {
                    let next = ask(way)?;
                    ensure!(next == PODS[left].0, "{policy}: {way:?} sticks to {}, which is gone", PODS[gone].0);
                }
                put(policy, &[0, 1])?;
                for way in &WAYS {
                    let next = ask(way)?;
                    ensure!(next == PODS[left].0, "{policy}: {way:?} moved to {next}, which has come back");
                }
            }
        }
        Ok(())
    })
}

/// "should have session affinity timeout work for service with type clusterIP", and for the other kinds. IPVS schedules
/// a client again after the timeout. It keeps the persistence template while its table has a connection of the client,
/// and checks again once a minute.
#[test]
fn affinity_ends_after_its_timeout() -> TestResult {
    // A little longer than IPVS remembers a reset connection.
    const TIMEOUT: Duration = Duration::from_secs(12);
    const LONG: &str = "86400";
    let builder = Cluster::builder()
        .pod("app-1", "node-3", "10.244.3.2 fd00:10:244:3::2")
        .pod("app-2", "node-3", "10.244.3.3 fd00:10:244:3::3")
        .pod("visitor", "node-3", "10.244.3.9 fd00:10:244:3::9");
    scenario(builder, |cluster| {
        let _servers = [cluster.echo("app-1", Transport::Tcp, 8080)?, cluster.echo("app-2", Transport::Tcp, 8080)?];
        let short = TIMEOUT.as_secs().to_string();
        for (name, seconds, number) in [("long", LONG, 6), ("short", &short, 7)] {
            let service = Service::new(name)
                .line("type: LoadBalancer")
                .line("sessionAffinity: ClientIP")
                .line(&format!("sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}"))
                .cluster_ip(&format!("10.96.0.{number}"))
                .cluster_ip(&format!("fd00:10:96::{number}"))
                .load_balancer_ip(&format!("203.0.113.{number}"))
                .port_line(&format!("port: 80, targetPort: 8080, nodePort: 3008{number}"));
            let v4 = Slice::of(name).port(8080);
            let v4 = v4.ready("10.244.3.2").on("node-3").ready("10.244.3.3").on("node-3");
            let v6 = Slice::of(name).name(&format!("{name}-v6")).port(8080);
            let v6 = v6.ready("fd00:10:244:3::2").on("node-3").ready("fd00:10:244:3::3").on("node-3");
            cluster.manifests.write(name, &format!("{service}---\n{v4}---\n{v6}"))?;
        }
        cluster.at("client")?.ip("route add 203.0.113.0/24 via 192.168.128.3")?;
        let flags = ["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"];
        let _proxy = cluster.start_proxy("node-3", &flags)?;
        let node = cluster.at("node-3")?;
        for (vip, seconds) in [("203.0.113.6", LONG), ("203.0.113.7", &short)] {
            let key = format!("TCP {vip}:80");
            node.await_serving(&key, &["10.244.3.2:8080", "10.244.3.3:8080"])?;
            let flags = node.ipvsadm()?.service(&key).map(|service| service.flags.clone());
            assert_eq!(flags, Some(format!("persistent {seconds}")));
        }
        cluster.await_settled("node-3", &flags)?;
        // IPVS drops a reset connection from its table soon.
        let ask = |from: &str, to: &str| -> Result<String> {
            let mut conversation = cluster.at(from)?.connect(Transport::Tcp, to)?;
            let name = conversation.say()?.name;
            conversation.reset()?;
            Ok(name)
        };
        let cases = |number: u8| {
            [
                ("visitor", format!("10.96.0.{number}:80")),
                ("visitor", format!("[fd00:10:96::{number}]:80")),
                ("client", format!("203.0.113.{number}:80")),
                ("client", format!("192.168.128.3:3008{number}")),
            ]
        };
        let ask_all = |number| {
            let cases = cases(number);
            cases.iter().map(|(from, to)| ask(from, to)).collect::<Result<Vec<_>>>()
        };
        let start = Instant::now();
        let bond = ask_all(7)?;
        let lasting = ask_all(6)?;
        assert_eq!(ask_all(6)?, lasting, "within the timeout each client stays");
        // No requests meanwhile: each request would renew the template.
        let long_ones = lasting.len();
        eventually(|| {
            let templates = node.run("ipvsadm", &["-Lnc"])?;
            // A template stands for all ports of a client, so its port is 0.
            let templates = templates.lines().filter(|line| line.contains(":0 ")).count();
            ensure!(templates == long_ones, "{templates} bonds are left, {long_ones} of them for long");
            Ok(())
        })?;
        // Every template was created after the start. A slow machine sees the end later.
        ensure!(start.elapsed() >= TIMEOUT, "too soon: {:?}", start.elapsed());
        // Round robin continues where it was, so the next client gets the other pod.
        for ((case, before), now) in cases(7).into_iter().zip(bond).zip(ask_all(7)?) {
            ensure!(now != before, "{case:?} is still bound to {before}");
        }
        assert_eq!(ask_all(6)?, lasting, "within the timeout each client stays");
        Ok(())
    })
}

/// "should be able to switch session affinity for LoadBalancer service with ESIPP on".
#[test]
fn switched_affinity_applies_to_new_connections_only() -> TestResult {
    let builder = Cluster::builder().pod("app-1", "node-3", "10.244.3.2").pod("app-2", "node-3", "10.244.3.3");
    scenario(builder, |cluster| {
        let _servers = [cluster.echo("app-1", Transport::Tcp, 8080)?, cluster.echo("app-2", Transport::Tcp, 8080)?];
        let manifests = |affinity: &str| {
            let service = Service::new("app")
                .line("type: LoadBalancer")
                .line("externalTrafficPolicy: Local")
                .line(&format!("sessionAffinity: {affinity}"))
                .cluster_ip("10.96.0.7")
                .load_balancer_ip("203.0.113.7")
                .port_line("port: 80, targetPort: 8080");
            let slice = Slice::of("app").port(8080);
            let slice = slice.ready("10.244.3.2").on("node-3").ready("10.244.3.3").on("node-3");
            format!("{service}---\n{slice}")
        };
        let client = cluster.at("client")?;
        client.ip("route add 203.0.113.0/24 via 192.168.128.3")?;
        let _proxy = cluster.start_proxy("node-3", &[])?;
        let mut lasting = None;
        for (affinity, pods) in [("None", 2), ("ClientIP", 1), ("None", 2), ("ClientIP", 1)] {
            cluster.manifests.write("app", &manifests(affinity))?;
            cluster.at("node-3")?.await_serving("TCP 203.0.113.7:80", &["10.244.3.2:8080", "10.244.3.3:8080"])?;
            cluster.await_settled("node-3", &[])?;
            let names = (0..6).map(|_| Ok(client.echo(Transport::Tcp, "203.0.113.7:80")?.name));
            let names = names.collect::<Result<BTreeSet<_>>>()?;
            ensure!(names.len() == pods, "{affinity}: {names:?} answer");
            // A change of affinity ends no connection.
            let conversation = match &mut lasting {
                Some(conversation) => conversation,
                none => none.insert(client.connect(Transport::Tcp, "203.0.113.7:80")?),
            };
            conversation.say()?;
        }
        Ok(())
    })
}
