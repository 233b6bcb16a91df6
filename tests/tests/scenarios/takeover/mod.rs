//! kube-ipvs takes over a live node from kube-proxy's ipvs mode. No client notices, and kube-ipvs removes kube-proxy's
//! leftovers.

mod faults;
mod kube_proxy;
mod setup;
mod users;
mod waits;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube_proxy::{Backend, prepare, sets, sh, write_sets_and_rules};
use scenarios::{Cluster, Namespace, Proxy, Service, Slice, TestResult, Transport, eventually, scenario, throughout};
use setup::{FLAGS, NODE, PODS, SERVED, TALK_PORT, WEB_PORT, cluster, deploy, objects, servers};
use users::Users;

fn await_taken_over(proxy: &Proxy) -> Result<String> {
    await_said(proxy, "took over from kube-proxy")
}

fn await_said(proxy: &Proxy, what: &str) -> Result<String> {
    eventually(|| {
        let log = proxy.log_text();
        ensure!(log.contains(what), "the log does not say {what:?}:\n{log}");
        Ok(log)
    })
}

/// Fails unless IPVS has exactly the virtual servers of the Services with all pods, and those in `others`.
fn ensure_ours(cluster: &Cluster, others: &[&str]) -> Result<()> {
    let node = cluster.at(NODE)?;
    let mut expected: Vec<String> = SERVED.iter().chain(others).map(|&key| key.to_owned()).collect();
    expected.sort();
    assert_eq!(node.ipvsadm()?.keys(), expected);
    for (key, port) in SERVED.iter().zip([8080, 9090, 8080, 9090, 8080]) {
        let pods: Vec<String> = PODS.iter().map(|(.., address)| format!("{address}:{port}")).collect();
        let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
        node.await_serving(key, &pods)?;
    }
    node.await_vips(&["10.96.0.80", "10.96.0.81", "203.0.113.80"])?;
    assert_eq!(node.nft_sets()?.get("ip served").context("no set `served`")?.len(), SERVED.len());
    let listed = cluster.kube_ipvs(NODE)?.run(&["ls"])?;
    ensure!(listed.contains("default/web") && listed.contains("default/talk"), "{listed}");
    cluster.await_settled(NODE, &FLAGS)
}

/// kube-proxy's lines in iptables, without the kubelet's chains, whose names begin alike.
fn kube_proxys(rules: &str) -> Vec<&str> {
    let kubelets = ["KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT"];
    let is_its = |line: &&str| line.contains("KUBE-") && !kubelets.iter().any(|chain| line.contains(chain));
    rules.lines().filter(is_its).collect()
}

fn ensure_kubelets_are_there(rules: &str) -> Result<()> {
    for line in [":KUBE-KUBELET-CANARY", ":KUBE-IPTABLES-HINT", "-A INPUT -j KUBE-FIREWALL", "-A KUBE-FIREWALL"] {
        let count = rules.lines().filter(|found| found.starts_with(line)).count();
        ensure!(count >= 2, "{line} should be there in both families:\n{rules}");
    }
    Ok(())
}

/// Adds rules, an ipset and a virtual server of another program, which kube-proxy excluded.
fn add_others(node: &Namespace) -> Result<()> {
    sh(
        node,
        "ipset create blocked hash:net\n ipset add blocked 198.18.0.0/15\n\
         iptables-nft -t nat -N CNI-HOSTPORT\n\
         iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT\n\
         iptables-nft -I INPUT -m set --match-set blocked src -j DROP\n\
         ipvsadm -A -t 192.168.128.3:5000 -s wlc\n ipvsadm -a -t 192.168.128.3:5000 -r 10.244.1.2:8080 -m -w 7",
    )
    .map(drop)
}

/// Fails unless the dry run names the objects to adopt and to remove, and nothing of other programs.
fn ensure_preview(cluster: &Cluster) -> Result<()> {
    let preview = cluster.kube_ipvs(NODE)?.run(&["takeover", "--dry-run"])?;
    for line in [
        "kube-proxy's ipvs mode has left objects here",
        "adopt virtual server TCP 10.96.0.80:80",
        "adopt virtual server TCP 10.96.0.81:9",
        "adopt address 203.0.113.80",
        "remove chain ip nat KUBE-SERVICES",
        "remove chain ip6 filter KUBE-IPVS-FILTER",
        "remove ipset KUBE-CLUSTER-IP",
    ] {
        ensure!(preview.lines().any(|found| found == line), "{line:?} is missing:\n{preview}");
    }
    for other in ["192.168.128.3:5000", "KUBE-FIREWALL", "KUBELET", "blocked", "keep"] {
        ensure!(!preview.contains(other), "{other} is there:\n{preview}");
    }
    Ok(())
}

/// No request fails. kube-ipvs adopts the virtual servers and VIPs that are still needed, and removes the rest.
#[test]
fn takeover_drops_no_connection_and_leaves_no_kube_proxy_rules() -> TestResult {
    scenario(cluster(), |cluster| {
        let _servers = deploy(cluster)?;
        let node = cluster.at(NODE)?;
        prepare(node, Backend::Nft)?;
        add_others(node)?;
        let mut users = Users::arrive(cluster)?;
        ensure_preview(cluster)?;
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        let log = await_taken_over(&proxy)?;
        ensure_ours(cluster, &["TCP 192.168.128.3:5000"])?;
        users.still_talk()?;

        assert_eq!(sets(node)?, ["blocked"]);
        let rules = Backend::Nft.rules(node)?;
        ensure!(kube_proxys(&rules).is_empty(), "{rules}");
        ensure_kubelets_are_there(&rules)?;
        ensure!(rules.contains("-j CNI-HOSTPORT") && rules.contains("--match-set blocked src"), "{rules}");
        assert_eq!(node.ipvsadm()?.weights("TCP 192.168.128.3:5000").unwrap_or_default(), ["10.244.1.2:8080 7"]);
        ensure!(!log.contains("ERROR") && !log.contains("stay"), "{log}");

        ensure!(proxy.terminate()?.success());
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        cluster.await_settled(NODE, &FLAGS)?;
        // Longer than the sync period of two seconds.
        throughout(Duration::from_secs(3), || {
            ensure!(!proxy.log_text().contains("kube-proxy"), "{}", proxy.log_text());
            Ok(())
        })?;
        users.leave()?;

        proxy.terminate()?;
        cluster.kube_ipvs(NODE)?.run(&["cleanup"])?;
        assert_eq!(node.ipvsadm()?.keys(), ["TCP 192.168.128.3:5000"]);
        ensure!(!node.has_device("kube-ipvs0")?, "kube-ipvs0 is there");
        ensure_kubelets_are_there(&Backend::Nft.rules(node)?)
    })
}

/// If FORWARD or INPUT drops packets, kube-ipvs keeps the chains that let Services through, and logs that. It removes
/// them when nothing drops any more.
#[test]
fn takeover_keeps_accept_chains_while_the_firewall_drops() -> TestResult {
    scenario(cluster(), |cluster| {
        let _servers = deploy(cluster)?;
        let node = cluster.at(NODE)?;
        prepare(node, Backend::Nft)?;
        sh(node, "iptables-nft -P FORWARD DROP; iptables-nft -A INPUT -j ACCEPT; iptables-nft -A INPUT -j DROP")?;
        let users = Users::arrive(cluster)?;
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        let log = await_taken_over(&proxy)?;
        await_said(&proxy, "kube-proxy's chain KUBE-FORWARD stays (IPv4): FORWARD drops")?;
        await_said(&proxy, "kube-proxy's chain KUBE-NODE-PORT stays (IPv4): INPUT drops")?;
        ensure!(!log.contains("stays (IPv6)"), "{log}");
        ensure_ours(cluster, &[])?;
        assert_eq!(sets(node)?, ["KUBE-HEALTH-CHECK-NODE-PORT"]);
        let rules = Backend::Nft.rules(node)?;
        for line in kube_proxys(&rules) {
            ensure!(line.contains("KUBE-FORWARD") || line.contains("KUBE-NODE-PORT"), "{line} is there:\n{rules}");
        }
        ensure!(rules.contains("--mark 0x4000/0x4000 -j ACCEPT"), "{rules}");
        users.leave()?;

        proxy.terminate()?;
        let users = Users::arrive(cluster)?;
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        await_said(&proxy, "KUBE-FORWARD stays")?;
        proxy.terminate()?;
        // A conditional last rule can also affect Services.
        let last = "FORWARD ! -s 198.18.0.0/15 -m conntrack --ctstate NEW -j DROP";
        sh(node, &format!("iptables-nft -P FORWARD ACCEPT; iptables-nft -A {last}"))?;
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        await_said(&proxy, "KUBE-FORWARD stays (IPv4): FORWARD drops")?;
        proxy.terminate()?;
        sh(node, &format!("iptables-nft -D {last}; iptables-nft -D INPUT -j DROP"))?;
        let _proxy = cluster.start_proxy(NODE, &FLAGS)?;
        eventually(|| {
            let rules = Backend::Nft.rules(node)?;
            ensure!(kube_proxys(&rules).is_empty() && sets(node)?.is_empty(), "{rules}");
            Ok(())
        })?;
        users.leave()
    })
}

/// Netlink cannot remove rules of legacy iptables. kube-ipvs empties ipsets so that the rules match nothing, and logs
/// the commands that remove them.
#[test]
fn takeover_disarms_legacy_iptables_rules_and_logs_commands() -> TestResult {
    scenario(cluster(), |cluster| {
        let _servers = deploy(cluster)?;
        let node = cluster.at(NODE)?;
        prepare(node, Backend::Legacy)?;
        let mut users = Users::arrive(cluster)?;
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        await_taken_over(&proxy)?;
        let log = await_said(&proxy, "ipset destroy KUBE-6-HEALTH-CHECK-NODE-PORT")?;
        ensure_ours(cluster, &[])?;
        let entries = sh(node, "ipset save | grep '^add' || true")?;
        assert_eq!(entries.trim(), "add KUBE-HEALTH-CHECK-NODE-PORT 32000");
        users.still_talk()?;

        // A new port of an address that kube-proxy knew: its filter would have rejected it.
        let more = Service::new("more")
            .cluster_ip("10.96.0.90")
            .line("externalIPs: [203.0.113.80]")
            .port_line("port: 81, targetPort: 9090");
        let slice = Slice::of("more").port(9090).ready("10.244.1.2").on("node-1");
        cluster.manifests.write("more", &format!("{more}---\n{slice}"))?;
        node.await_serving("TCP 203.0.113.80:81", &["10.244.1.2:9090"])?;
        for from in ["visitor", NODE] {
            cluster.at(from)?.echo(Transport::Tcp, "203.0.113.80:81")?;
        }
        cluster.manifests.remove("more")?;

        let is_command = |line: &&str| {
            ["iptables-legacy ", "ip6tables-legacy ", "ipset "].iter().any(|start| line.starts_with(start))
        };
        let commands: Vec<&str> = log.lines().filter(is_command).collect();
        ensure!(commands.len() > 50, "{commands:?}");
        for command in commands {
            // Commands for missing chains and rules fail.
            let _ = node.run("sh", &["-c", command]);
        }
        assert_eq!(sets(node)?, [""; 0]);
        let rules = Backend::Legacy.rules(node)?;
        for line in kube_proxys(&rules) {
            ensure!(line.contains("KUBE-POSTROUTING") || line.contains("KUBE-MARK-MASQ"), "{line}:\n{rules}");
        }
        ensure_kubelets_are_there(&rules)?;
        users.leave()
    })
}

/// Kills the daemon repeatedly, each time a little later, until it has removed kube-proxy's sets before the kill.
/// Returns the number of kills.
fn killed_until_taken_over(cluster: &Cluster, first: Duration) -> Result<usize> {
    let mut wait = first;
    for kills in 1.. {
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        // The delays cover every phase of the takeover.
        std::thread::sleep(wait);
        proxy.kill_nine()?;
        if sets(cluster.at(NODE)?)?.is_empty() {
            return Ok(kills);
        }
        wait = wait * 4 / 3;
    }
    Ok(usize::MAX)
}

#[test]
fn takeover_killed_midway_is_completed_by_the_next_start() -> TestResult {
    scenario(cluster(), |cluster| {
        let _servers = deploy(cluster)?;
        let node = cluster.at(NODE)?;
        prepare(node, Backend::Nft)?;
        let users = Users::arrive(cluster)?;
        // On any machine, the first kills come before the takeover begins, and later ones in the middle.
        let mut first = Duration::from_millis(100);
        while killed_until_taken_over(cluster, first)? <= 2 {
            first /= 4;
            write_sets_and_rules(node, Backend::Nft)?;
        }
        let _proxy = cluster.start_proxy(NODE, &FLAGS)?;
        cluster.await_settled(NODE, &FLAGS)?;
        ensure_ours(cluster, &[])?;
        let rules = Backend::Nft.rules(node)?;
        ensure!(kube_proxys(&rules).is_empty(), "{rules}");
        users.leave()
    })
}

/// While another process holds kube-proxy's health port, kube-ipvs keeps kube-proxy's leftovers. If kube-proxy's sets
/// return after the takeover, kube-ipvs logs that and leaves them.
#[test]
fn takeover_does_not_fight_a_running_kube_proxy() -> TestResult {
    scenario(cluster(), |cluster| {
        let _servers = deploy(cluster)?;
        let node = cluster.at(NODE)?;
        prepare(node, Backend::Nft)?;
        let before = sets(node)?;
        let healthz = cluster.echo(NODE, Transport::Tcp, 10256)?;
        let users = Users::arrive(cluster)?;
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        await_said(&proxy, "port 10256 is taken")?;
        ensure_ours(cluster, &[])?;
        assert_eq!(sets(node)?, before);
        drop(healthz);
        await_taken_over(&proxy)?;
        assert_eq!(sets(node)?, [""; 0]);

        write_sets_and_rules(node, Backend::Nft)?;
        await_said(&proxy, "kube-proxy's rules are back")?;
        // Longer than several sync periods.
        throughout(Duration::from_secs(15), || {
            ensure!(sets(node)? == before, "they are gone");
            Ok(())
        })?;
        users.leave()
    })
}

/// With `--takeover=false`, kube-proxy's virtual servers count as foreign. kube-ipvs changes none of kube-proxy's
/// objects.
#[test]
fn takeover_turned_off_leaves_kube_proxys_objects_alone() -> TestResult {
    scenario(cluster(), |cluster| {
        let _servers = deploy(cluster)?;
        let node = cluster.at(NODE)?;
        prepare(node, Backend::Nft)?;
        let before = (sets(node)?, Backend::Nft.rules(node)?.lines().count(), node.ipvsadm()?.configuration());
        let flags = [&FLAGS[..], &["--takeover=false"]].concat();
        let proxy = cluster.start_proxy(NODE, &flags)?;
        await_said(&proxy, "TCP 10.96.0.80:80")?;
        // Longer than the sync period of two seconds.
        throughout(Duration::from_secs(3), || {
            let now = (sets(node)?, Backend::Nft.rules(node)?.lines().count(), node.ipvsadm()?.configuration());
            ensure!(now == before, "{now:?}");
            Ok(())
        })
    })
}

/// kube-proxy serves again, and only the rules of kube-ipvs are removed.
#[test]
fn handover_to_kube_proxy_keeps_connections() -> TestResult {
    scenario(cluster(), |cluster| {
        let _servers = deploy(cluster)?;
        let node = cluster.at(NODE)?;
        prepare(node, Backend::Nft)?;
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        await_taken_over(&proxy)?;
        let users = Users::arrive(cluster)?;
        proxy.terminate()?;
        let (rules, kube_ipvs) = (node.nft_sets()?, cluster.kube_ipvs(NODE)?);
        let refused = kube_ipvs.run(&["cleanup", "--handover"]).unwrap_err().to_string();
        ensure!(refused.contains("no rules of kube-proxy that serve IPv4."), "{refused}");
        assert_eq!(node.nft_sets()?, rules);
        write_sets_and_rules(node, Backend::Nft)?;
        let servers = node.ipvsadm()?.configuration();
        kube_ipvs.run(&["cleanup", "--handover"])?;
        assert_eq!((node.nft_sets()?.len(), node.ipvsadm()?.configuration()), (0, servers));
        node.await_vips(&["10.96.0.80", "10.96.0.81", "203.0.113.80"])?;
        let tables = sh(node, "nft list tables")?;
        ensure!(!tables.contains("kube-ipvs"), "{tables}");
        users.leave()?;

        let users = Users::arrive(cluster)?;
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        await_taken_over(&proxy)?;
        ensure_ours(cluster, &[])?;
        users.leave()
    })
}
