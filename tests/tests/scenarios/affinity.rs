//! Scenario 9: `sessionAffinity: ClientIP`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use scenarios::{Cluster, Service, Slice, TestResult, Transport, eventually, scenario};

/// The two pods of `app`, by family, and what real servers they are.
const PODS: [(&str, [&str; 2]); 2] =
    [("app-1", ["10.244.3.2", "fd00:10:244:3::2"]), ("app-2", ["10.244.3.3", "fd00:10:244:3::3"])];

/// `app` with these of its pods, for TCP and UDP in both families.
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

/// One client stays on one pod, by every kind of address, in both families, over TCP and UDP; a pod that is gone is
/// left at once.
#[test]
fn a_client_stays_until_its_pod_is_gone() -> TestResult {
    use Transport::{Tcp, Udp};
    let builder = Cluster::builder().pod("visitor", "node-3", "10.244.3.9 fd00:10:244:3::9");
    let builder = PODS
        .iter()
        .fold(builder, |builder, (pod, addresses)| builder.pod(pod, "node-3", &addresses.join(" ")));
    scenario(builder, |cluster| {
        let all = PODS.iter().flat_map(|(pod, _)| [(*pod, Tcp), (*pod, Udp)]);
        let _servers =
            all.map(|(pod, transport)| cluster.echo(pod, transport, 8080)).collect::<Result<Vec<_>>>()?;
        let client = cluster.at("client")?;
        client.ip("route add 203.0.113.0/24 via 192.168.128.3")?;
        client.ip("route add 2001:db8:1::/64 via fd00:128::3")?;
        let flags = ["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"];
        let _proxy = cluster.start_proxy("node-3", &flags)?;
        let node = cluster.at("node-3")?;
        let put = |policy: &str, pods: &[usize]| -> Result<()> {
            cluster.manifests.write("app", &dual_stack(policy, pods))?;
            for (at, family) in [("203.0.113.7:80", 0), ("10.96.0.7:80", 0), ("[2001:db8:1::7]:80", 1)] {
                let address =
                    |pod: &usize| Ok(SocketAddr::new(PODS[*pod].1[family].parse()?, 8080).to_string());
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
            for (from, transport, to) in [
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
            ] {
                let from = cluster.at(from)?;
                let who = format!("{policy}: {} to {to} over {transport:?}", from.name());
                let first = from.echo(transport, to)?.name;
                for _ in 0..3 {
                    let next = from.echo(transport, to)?.name;
                    ensure!(next == first, "{who} moved from {first} to {next}");
                }
                let left = usize::from(PODS[0].0 == first);
                put(policy, &[left])?;
                let next = from.echo(transport, to)?.name;
                ensure!(next != first, "{who} sticks to {first}, which is gone");
                put(policy, &[0, 1])?;
            }
        }
        Ok(())
    })
}

/// "should have session affinity timeout work for service with type clusterIP", and for the other kinds: a client
/// that was silent for long enough is spread anew. IPVS keeps the bond while any connection of the client is still in
/// its table, and looks again once a minute.
#[test]
fn affinity_ends_after_its_timeout() -> TestResult {
    const TIMEOUT: Duration = Duration::from_secs(4);
    let builder = Cluster::builder()
        .pod("app-1", "node-3", "10.244.3.2 fd00:10:244:3::2")
        .pod("app-2", "node-3", "10.244.3.3 fd00:10:244:3::3")
        .pod("visitor", "node-3", "10.244.3.9 fd00:10:244:3::9");
    scenario(builder, |cluster| {
        let _servers =
            [cluster.echo("app-1", Transport::Tcp, 8080)?, cluster.echo("app-2", Transport::Tcp, 8080)?];
        let service = Service::new("app")
            .line("type: LoadBalancer")
            .line("sessionAffinity: ClientIP")
            .line("sessionAffinityConfig: {clientIP: {timeoutSeconds: 4}}")
            .cluster_ip("10.96.0.7")
            .cluster_ip("fd00:10:96::7")
            .load_balancer_ip("203.0.113.7")
            .port_line("port: 80, targetPort: 8080, nodePort: 30080");
        let v4 =
            Slice::of("app").port(8080).ready("10.244.3.2").on("node-3").ready("10.244.3.3").on("node-3");
        let v6 = Slice::of("app").name("app-v6").port(8080);
        let v6 = v6.ready("fd00:10:244:3::2").on("node-3").ready("fd00:10:244:3::3").on("node-3");
        cluster.manifests.write("app", &format!("{service}---\n{v4}---\n{v6}"))?;
        cluster.at("client")?.ip("route add 203.0.113.0/24 via 192.168.128.3")?;
        let flags = ["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"];
        let _proxy = cluster.start_proxy("node-3", &flags)?;
        let node = cluster.at("node-3")?;
        node.await_serving("TCP 203.0.113.7:80", &["10.244.3.2:8080", "10.244.3.3:8080"])?;
        cluster.await_settled("node-3", &flags)?;
        let cases = [
            ("visitor", "10.96.0.7:80"),
            ("visitor", "[fd00:10:96::7]:80"),
            ("client", "203.0.113.7:80"),
            ("client", "192.168.128.3:30080"),
        ];
        // A connection that ends with a reset leaves IPVS's table soon.
        let ask = |(from, to): (&str, &str)| -> Result<String> {
            let mut conversation = cluster.at(from)?.connect(Transport::Tcp, to)?;
            let name = conversation.say()?.name;
            conversation.reset()?;
            Ok(name)
        };
        let bond = cases.map(ask).into_iter().collect::<Result<Vec<_>>>()?;
        let again = cases.map(ask).into_iter().collect::<Result<Vec<_>>>()?;
        assert_eq!(again, bond, "within the timeout everybody stays");
        let start = Instant::now();
        // Silent all the while: each question would renew the bond.
        eventually(|| {
            let templates = node.run("ipvsadm", &["-Lnc"])?;
            // A template is for all ports of a client: it has port 0.
            let templates = templates.lines().filter(|line| line.contains(":0 ")).count();
            ensure!(templates == 0, "{templates} bonds are left");
            Ok(())
        })?;
        ensure!(start.elapsed() >= TIMEOUT - Duration::from_secs(1), "too soon: {:?}", start.elapsed());
        // Round robin goes on where it was: the next client comes to the other pod.
        for (case, before) in cases.into_iter().zip(bond) {
            ensure!(ask(case)? != before, "{case:?} is still bound to {before}");
        }
        Ok(())
    })
}

/// "should be able to switch session affinity for LoadBalancer service with ESIPP on".
#[test]
fn affinity_is_switched_on_and_off() -> TestResult {
    let builder =
        Cluster::builder().pod("app-1", "node-3", "10.244.3.2").pod("app-2", "node-3", "10.244.3.3");
    scenario(builder, |cluster| {
        let _servers =
            [cluster.echo("app-1", Transport::Tcp, 8080)?, cluster.echo("app-2", Transport::Tcp, 8080)?];
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
            cluster
                .at("node-3")?
                .await_serving("TCP 203.0.113.7:80", &["10.244.3.2:8080", "10.244.3.3:8080"])?;
            cluster.await_settled("node-3", &[])?;
            let names = (0..6).map(|_| Ok(client.echo(Transport::Tcp, "203.0.113.7:80")?.name));
            let names = names.collect::<Result<BTreeSet<_>>>()?;
            ensure!(names.len() == pods, "{affinity}: {names:?} answer");
            // No change of affinity ends a connection.
            let conversation = match &mut lasting {
                Some(conversation) => conversation,
                none => none.insert(client.connect(Transport::Tcp, "203.0.113.7:80")?),
            };
            conversation.say()?;
        }
        Ok(())
    })
}
