//! kube-ipvs beside other programs: it leaves their rules alone, and their rules still work.

use anyhow::{Result, ensure};
use scenarios::{Cluster, Namespace, Service, Slice, TestResult, Transport, eventually, scenario};

const FLAGS: [&str; 2] = ["--cluster-cidr", "10.244.0.0/16"];

/// Rules that an administrator, a CNI plugin and an old node agent could have added.
const OF_OTHERS: [&str; 10] = [
    "nft add table inet admin",
    "nft 'add set inet admin blocked { type ipv4_addr; flags interval; elements = { 198.18.0.0/15 }; }'",
    "nft 'add chain inet admin input { type filter hook input priority 0; }'",
    "nft 'add rule inet admin input ip saddr @blocked counter drop'",
    "iptables-nft -t nat -N CNI-HOSTPORT",
    "iptables-nft -t nat -A CNI-HOSTPORT -p tcp --dport 8888 -j DNAT --to-destination 10.244.3.8:8080",
    "iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT",
    "iptables-nft -t nat -A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT",
    "iptables-legacy -A INPUT -p tcp --dport 9999 -j REJECT --reject-with tcp-reset",
    "ip6tables-legacy -A FORWARD -s 2001:db8:dead::/48 -j DROP",
];

fn rules_of_others(node: &Namespace) -> Result<String> {
    let listings = [
        "nft list table inet admin",
        "iptables-nft-save",
        "iptables-legacy-save",
        "ip6tables-legacy-save",
        "nft list tables",
    ];
    // Counters and timestamps change by themselves. The tables of kube-ipvs are left out.
    let lines = |listing: &str| -> Result<String> {
        let text =
            node.run("sh", &["-c", &format!("{listing} | sed 's/packets [0-9]* bytes [0-9]*//; s/\\[.*\\]//'")])?;
        let kept = text.lines().filter(|line| !line.starts_with('#') && !line.contains("kube-ipvs"));
        Ok(kept.collect::<Vec<_>>().join("\n"))
    };
    listings.into_iter().map(|listing| Ok(format!("==> {listing}\n{}\n", lines(listing)?))).collect()
}

/// Rules in nftables and in both kinds of iptables survive a Service's lifetime and `cleanup`. A hostPort is a DNAT
/// rule of a CNI plugin. It works beside node ports, from outside, from a pod and from the node.
#[test]
fn foreign_rules_stay_and_a_host_port_works() -> TestResult {
    let builder = Cluster::builder().pod("web", "node-1", "10.244.1.2").pod("host-port", "node-3", "10.244.3.8").pod(
        "visitor",
        "node-1",
        "10.244.1.9",
    );
    scenario(builder, |cluster| {
        let _servers = [cluster.echo("web", Transport::Tcp, 8080)?, cluster.echo("host-port", Transport::Tcp, 8080)?];
        let node = cluster.at("node-3")?;
        for command in OF_OTHERS {
            node.run("sh", &["-c", command])?;
        }
        let before = rules_of_others(node)?;
        ensure!(before.contains("CNI-HOSTPORT") && before.contains("--dport 9999"), "{before}");
        let service = Service::new("web")
            .node_port_type()
            .cluster_ip("10.96.0.7")
            .port_line("port: 80, targetPort: 8080, nodePort: 30080");
        let slice = Slice::of("web").port(8080).ready("10.244.1.2").on("node-1");
        cluster.manifests.write("web", &format!("{service}---\n{slice}"))?;
        let proxy = cluster.start_proxy("node-3", &FLAGS)?;
        node.await_service("TCP 192.168.128.3:30080", &["10.244.1.2:8080 1"])?;
        cluster.await_settled("node-3", &FLAGS)?;
        for from in ["client", "visitor", "node-3"] {
            let from = cluster.at(from)?;
            assert_eq!(from.echo(Transport::Tcp, "192.168.128.3:8888")?.name, "host-port");
            assert_eq!(from.echo(Transport::Tcp, "192.168.128.3:30080")?.name, "web");
            from.expect_refused(Transport::Tcp, "192.168.128.3:9999")?;
        }
        assert_eq!(rules_of_others(node)?, before);
        cluster.manifests.remove("web")?;
        node.await_no_service("TCP 192.168.128.3:30080")?;
        assert_eq!(rules_of_others(node)?, before);
        proxy.terminate()?;
        cluster.kube_ipvs("node-3")?.run(&["cleanup"])?;
        assert_eq!(rules_of_others(node)?, before);
        assert_eq!(cluster.at("client")?.echo(Transport::Tcp, "192.168.128.3:8888")?.name, "host-port");
        Ok(())
    })
}

/// The daemon, `diff` and `explain` name the firewall.
#[test]
fn firewall_that_drops_forwarded_packets_is_reported() -> TestResult {
    scenario(Cluster::builder(), |cluster| {
        let node = cluster.at("node-3")?;
        node.run("iptables-nft", &["-P", "FORWARD", "DROP"])?;
        node.run("nft", &["add", "table", "inet", "firewalld"])?;
        let chain = "{ type filter hook forward priority 10; policy accept; }";
        node.run("nft", &["add", "chain", "inet", "firewalld", "filter_FORWARD", chain])?;
        cluster.manifests.write("web", &Service::new("web").cluster_ip("10.96.0.7").port(80))?;
        let proxy = cluster.start_proxy("node-3", &FLAGS)?;
        node.await_vips(&["10.96.0.7"])?;
        let named = "the chain ip filter FORWARD drops packets that none of its rules accepts";
        let is_said = |said: &str| {
            ensure!(said.contains(named) && !said.contains("firewalld"), "{said}");
            Ok(())
        };
        is_said(&proxy.log_text())?;
        let [flag, path] = cluster.source();
        for command in [&["diff"][..], &["explain", "web"]] {
            let source = [flag.as_str(), path.as_str(), "--hostname-override", "node-3"];
            let output = cluster.kube_ipvs("node-3")?.output(&[command, &source].concat())?;
            is_said(&String::from_utf8_lossy(&output.stderr))?;
        }
        Ok(())
    })
}

#[test]
fn service_port_and_node_port_with_one_number_both_work() -> TestResult {
    let builder = Cluster::builder().pod("one", "node-1", "10.244.1.2").pod("other", "node-2", "10.244.2.2").pod(
        "visitor",
        "node-3",
        "10.244.3.9",
    );
    scenario(builder, |cluster| {
        let _servers = [cluster.echo("one", Transport::Tcp, 8080)?, cluster.echo("other", Transport::Tcp, 8080)?];
        let one = Service::new("one").cluster_ip("10.96.0.1").port_line("port: 31000, targetPort: 8080");
        let other = Service::new("other")
            .node_port_type()
            .cluster_ip("10.96.0.2")
            .port_line("port: 80, targetPort: 8080, nodePort: 31000");
        let slices = (
            Slice::of("one").port(8080).ready("10.244.1.2").on("node-1"),
            Slice::of("other").port(8080).ready("10.244.2.2").on("node-2"),
        );
        cluster.manifests.write("all", &format!("{one}---\n{other}---\n{}---\n{}", slices.0, slices.1))?;
        let _proxy = cluster.start_proxy("node-3", &FLAGS)?;
        cluster.at("node-3")?.await_service("TCP 192.168.128.3:31000", &["10.244.2.2:8080 1"])?;
        cluster.await_settled("node-3", &FLAGS)?;
        cluster.at("client")?.ip("route add 10.96.0.0/16 via 192.168.128.3")?;
        for from in ["visitor", "node-3", "client"] {
            let from = cluster.at(from)?;
            let answer = from.echo(Transport::Tcp, "10.96.0.1:31000")?;
            assert_eq!(answer.name, "one");
            if from.name().ends_with("visitor") {
                assert_eq!(answer.peer.ip().to_string(), "10.244.3.9", "a pod keeps its address");
            }
            assert_eq!(from.echo(Transport::Tcp, "192.168.128.3:31000")?.name, "other");
            from.expect_refused(Transport::Tcp, "10.96.0.2:31000")?;
        }
        Ok(())
    })
}

/// A load balancer with `ipMode: Proxy` serves its address itself. kube-ipvs does not bind it, and pods connect to the
/// load balancer.
#[test]
fn load_balancer_ip_with_ip_mode_proxy_is_not_bound() -> TestResult {
    let builder = Cluster::builder()
        .pod("web", "node-1", "10.244.1.2")
        .pod("visitor", "node-3", "10.244.3.9")
        .host("balancer", "192.168.128.200 fd00:128::200");
    scenario(builder, |cluster| {
        let _servers = [cluster.echo("web", Transport::Tcp, 8080)?, cluster.echo("balancer", Transport::Tcp, 80)?];
        let node = cluster.at("node-3")?;
        cluster.at("balancer")?.ip("route add 10.244.3.0/24 via 192.168.128.3")?;
        let service = Service::new("web")
            .line("type: LoadBalancer")
            .cluster_ip("10.96.0.7")
            .port_line("port: 80, targetPort: 8080");
        let slice = Slice::of("web").port(8080).ready("10.244.1.2").on("node-1");
        for (mode, answers) in [("Proxy", "balancer"), ("VIP", "web"), ("Proxy", "balancer")] {
            let status = format!("status: {{loadBalancer: {{ingress: [{{ip: 192.168.128.200, ipMode: {mode}}}]}}}}\n");
            cluster.manifests.write("web", &format!("{service}{status}---\n{slice}"))?;
            let proxy = cluster.start_proxy("node-3", &FLAGS)?;
            let vips = if mode == "VIP" { vec!["10.96.0.7", "192.168.128.200"] } else { vec!["10.96.0.7"] };
            node.await_vips(&vips)?;
            cluster.await_settled("node-3", &FLAGS)?;
            for from in ["visitor", "node-3"] {
                let name = cluster.at(from)?.echo(Transport::Tcp, "192.168.128.200:80")?.name;
                ensure!(name == answers, "ipMode {mode}, {from}: {name} answers, not {answers}");
            }
            proxy.terminate()?;
        }
        Ok(())
    })
}

/// Another program's virtual server has an address that is also a VIP of kube-ipvs. Clients still reach it, even if a
/// Service wants its port. When that virtual server is deleted, kube-ipvs serves the Service.
#[test]
fn foreign_virtual_server_on_a_vip_stays_reachable() -> TestResult {
    let builder = Cluster::builder().pod("web", "node-3", "10.244.3.2").pod("theirs", "node-3", "10.244.3.8").pod(
        "visitor",
        "node-3",
        "10.244.3.9",
    );
    scenario(builder, |cluster| {
        let _servers = [cluster.echo("web", Transport::Tcp, 8080)?, cluster.echo("theirs", Transport::Tcp, 8080)?];
        let node = cluster.at("node-3")?;
        for port in ["81", "82"] {
            let at = format!("203.0.113.10:{port}");
            node.run("ipvsadm", &["-A", "-t", &at, "-s", "wlc"])?;
            node.run("ipvsadm", &["-a", "-t", &at, "-r", "10.244.3.8:8080", "-m"])?;
        }
        let service = Service::new("web")
            .line("externalIPs: [203.0.113.10]")
            .cluster_ip("10.96.0.7")
            .port_line("name: own, port: 80, targetPort: 8080")
            .port_line("name: theirs, port: 81, targetPort: 8080");
        let slice = Slice::of("web").named_port("own", "TCP", 8080).named_port("theirs", "TCP", 8080);
        cluster.manifests.write("web", &format!("{service}---\n{}", slice.ready("10.244.3.2").on("node-3")))?;
        let _proxy = cluster.start_proxy("node-3", &[&FLAGS[..], &["--ipvs-sync-period", "1s"]].concat())?;
        node.await_service("TCP 203.0.113.10:80", &["10.244.3.2:8080 1"])?;
        cluster.await_settled("node-3", &FLAGS)?;
        cluster.at("client")?.ip("route add 203.0.113.0/24 via 192.168.128.3")?;
        for from in ["client", "visitor", "node-3"] {
            let from = cluster.at(from)?;
            for (port, pod) in [(80, "web"), (81, "theirs"), (82, "theirs")] {
                let answer = from.echo(Transport::Tcp, &format!("203.0.113.10:{port}"))?;
                ensure!(answer.name == pod, "{} answers at port {port}", answer.name);
            }
            from.expect_refused(Transport::Tcp, "203.0.113.10:83")?;
        }
        for port in ["81", "82"] {
            node.run("ipvsadm", &["-D", "-t", &format!("203.0.113.10:{port}")])?;
        }
        node.await_service("TCP 203.0.113.10:81", &["10.244.3.2:8080 1"])?;
        eventually(|| cluster.at("client")?.expect_refused(Transport::Tcp, "203.0.113.10:82"))
    })
}

/// Another program uses addresses of the service range: virtual servers on a local and on a foreign address, and a DNAT
/// rule. Clients still reach all of them. kube-ipvs rejects unallocated addresses.
#[test]
fn foreign_addresses_within_the_service_range_stay_reachable() -> TestResult {
    const NAT: [&str; 2] = ["PREROUTING", "OUTPUT"];
    let builder = Cluster::builder().pod("theirs", "node-3", "10.244.3.8").pod("visitor", "node-3", "10.244.3.9");
    scenario(builder, |cluster| {
        let _server = cluster.echo("theirs", Transport::Tcp, 8080)?;
        let node = cluster.at("node-3")?;
        for at in ["10.96.50.1:80", "10.96.50.2:80"] {
            node.run("ipvsadm", &["-A", "-t", at, "-s", "wlc"])?;
            node.run("ipvsadm", &["-a", "-t", at, "-r", "10.244.3.8:8080", "-m"])?;
        }
        node.ip("addr add 10.96.50.1/32 dev lo")?;
        for chain in NAT {
            let rule = format!("-t nat -A {chain} -d 10.96.50.3 -p tcp -j DNAT --to-destination 10.244.3.8:8080");
            node.run("iptables-nft", &rule.split(' ').collect::<Vec<_>>())?;
        }
        let range = "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: kubernetes}\n\
                     spec: {cidrs: [10.96.0.0/16]}\n";
        let service = Service::new("web").cluster_ip("10.96.0.7").port(80);
        cluster.manifests.write("web", &format!("{service}---\n{range}"))?;
        let _proxy = cluster.start_proxy("node-3", &FLAGS)?;
        node.await_vips(&["10.96.0.7"])?;
        cluster.await_settled("node-3", &FLAGS)?;
        for (from, reached) in [
            ("visitor", &["10.96.50.1:80", "10.96.50.3:80"][..]),
            ("node-3", &["10.96.50.1:80", "10.96.50.2:80", "10.96.50.3:80"]),
        ] {
            let from = cluster.at(from)?;
            for to in reached {
                let answer = from.echo(Transport::Tcp, to);
                ensure!(answer.is_ok(), "{} to {to}: {answer:?}", from.name());
            }
            for transport in [Transport::Tcp, Transport::Udp, Transport::Sctp] {
                from.expect_refused(transport, "10.96.50.4:80")?;
            }
        }
        Ok(())
    })
}
