//! Node ports on 127.0.0.1, which a flag enables.

use scenarios::{Attempt, Cluster, Service, Slice, TestResult, Transport, eventually, scenario, socket_address};

/// Processes of the node reach local and remote pods through 127.0.0.1, over TCP and UDP. Hosts on the LAN do not,
/// whatever listens there.
#[test]
fn node_ports_on_localhost_serve_the_node_and_not_the_lan() -> TestResult {
    let builder = Cluster::builder().pod("web-1", "node-1", "10.244.1.2").pod("web-3", "node-3", "10.244.3.2");
    scenario(builder, |cluster| {
        let _servers = [
            cluster.echo("web-1", Transport::Tcp, 8080)?,
            cluster.echo("web-1", Transport::Udp, 8080)?,
            cluster.echo("web-3", Transport::Tcp, 8080)?,
            cluster.echo("web-3", Transport::Udp, 8080)?,
            cluster.echo("node-3", Transport::Tcp, 8080)?,
        ];
        let service = Service::new("web")
            .node_port_type()
            .cluster_ip("10.96.0.80")
            .port_line("name: tcp, port: 80, targetPort: 8080, nodePort: 30080")
            .port_line("name: udp, protocol: UDP, port: 80, targetPort: 8080, nodePort: 30080");
        let slice = || Slice::of("web").named_port("tcp", "TCP", 8080).named_port("udp", "UDP", 8080);
        let elsewhere = slice().ready("10.244.1.2").on("node-1");
        cluster.manifests.write("web", &service)?;
        cluster.manifests.write("slice", &elsewhere)?;
        let flags = ["--cluster-cidr=10.244.0.0/16", "--localhost-nodeports"];
        let _proxy = cluster.start_proxy("node-3", &flags)?;
        let node = cluster.at("node-3")?;
        node.await_vips(&["10.96.0.80"])?;
        eventually(|| node.echo(Transport::Tcp, "127.0.0.1:30080"))?;
        for transport in [Transport::Tcp, Transport::Udp] {
            let answer = node.echo(transport, "127.0.0.1:30080")?;
            assert_eq!((&*answer.name, answer.peer.ip()), ("web-1", cluster.node("node-3")?.ipv4()));
            assert_eq!(node.echo(transport, "192.168.128.3:30080")?.name, "web-1");
        }
        // An endpoint on this node is preferred. Established connections stay where they are.
        let mut held = node.connect(Transport::Tcp, "127.0.0.1:30080")?;
        assert_eq!(held.say()?.name, "web-1");
        cluster.manifests.write("slice", &elsewhere.ready("10.244.3.2").on("node-3"))?;
        for transport in [Transport::Tcp, Transport::Udp] {
            eventually(|| {
                let answer = node.echo(transport, "127.0.0.1:30080")?;
                anyhow::ensure!(answer.name == "web-3", "{}", answer.name);
                Ok(())
            })?;
        }
        assert_eq!(held.say()?.name, "web-1");
        cluster.manifests.write("slice", &slice().ready("192.168.128.3").on("node-3"))?;
        eventually(|| {
            let answer = node.echo(Transport::Tcp, "127.0.0.1:30080")?;
            anyhow::ensure!(answer.name == "node-3", "{}", answer.name);
            Ok(())
        })?;
        cluster.manifests.write("slice", &slice())?;
        eventually(|| node.expect_refused(Transport::Tcp, "127.0.0.1:30080"))?;

        // A client on the LAN routes 127.0.0.1 through the node.
        let client = cluster.at("client")?;
        client.sysctls(&[("ipv4.conf.all.route_localnet", "1")])?;
        for route in ["127.0.0.0/8", "127.0.0.1"] {
            client.run("ip", &["route", "del", "table", "local", "local", route, "dev", "lo"])?;
        }
        client.ip("route add 127.0.0.1 via 192.168.128.3 src 192.168.128.100")?;
        let mut attempt = Attempt::start(client, Transport::Tcp, socket_address("127.0.0.1:8080")?)?;
        eventually(|| {
            let rules = node.run("nft", &["list", "chain", "ip", "kube-ipvs", "firewall-in"])?;
            let rule = rules.lines().find(|rule| rule.contains("127.0.0.0/8")).unwrap_or_default();
            anyhow::ensure!(
                rule.contains("packets ") && !rule.contains("packets 0 "),
                "the rule has not stopped it: {rules}"
            );
            Ok(())
        })?;
        assert_eq!(attempt.outcome()?, None, "127.0.0.1 is reached from the LAN");
        Ok(())
    })
}
