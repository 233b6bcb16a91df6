//! kube-ipvs takes over a live node from kube-proxy's iptables and nftables modes, and gives it back. No client
//! notices. `KUBE_IPVS_CONNECTIONS` is the number of open connections.

mod iptables;
mod kube_proxy;
mod nftables;
mod setup;
mod users;

use std::thread;

use anyhow::{Context, Result, ensure};
use iptables::{LINES_OF_OTHERS, rules, write_others};
use kube_proxy::{Family, Mode, sh};
use scenarios::{Cluster, Namespace, Proxy, TestResult, Transport, eventually, scenario};
use setup::{FLAGS, NODE, cluster, deploy};
use users::{Connections, Idle, Loads};

fn await_logged(proxy: &Proxy, text: &str) -> Result<String> {
    eventually(|| {
        let log = proxy.log_text();
        ensure!(log.contains(text), "the log does not have {text:?}:\n{log}");
        Ok(log)
    })
}

/// Fails unless kube-proxy's rules are gone, and those of other programs are there in both families.
fn ensure_only_others(node: &Namespace) -> Result<()> {
    let rules = rules(node, "nft")?;
    for line in LINES_OF_OTHERS {
        let count = rules.lines().filter(|found| found.starts_with(line)).count();
        ensure!(count >= 2, "{line} should be there in both families:\n{rules}");
    }
    let is_others = |line: &str| {
        ["KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT", "KUBE-FIREWALL", "KUBE-NWPLCY-", "KUBE-POD-FW-", "KUBE-ROUTER-"]
            .iter()
            .any(|name| line.contains(name))
    };
    let left: Vec<&str> = rules.lines().filter(|line| line.contains("KUBE-") && !is_others(line)).collect();
    ensure!(left.is_empty(), "{left:?}");
    let tables = sh(node, "nft list tables")?;
    ensure!(!tables.contains("kube-proxy"), "{tables}");
    Ok(())
}

fn ensure_preview(cluster: &Cluster, lines: &[&str]) -> Result<()> {
    let preview = cluster.kube_ipvs(NODE)?.run(&["takeover", "--dry-run"])?;
    for line in lines {
        ensure!(preview.lines().any(|found| found == *line), "{line:?} is missing:\n{preview}");
    }
    ensure!(
        !preview.contains("KUBE-ROUTER") && !preview.contains("KUBELET") && !preview.contains("KUBE-FIREWALL"),
        "{preview}"
    );
    Ok(())
}

fn no_services_in_ipvs(node: &Namespace) -> Result<()> {
    let table = node.ipvsadm()?;
    ensure!(table.keys().is_empty(), "{:?}", table.keys());
    ensure!(!node.has_device("kube-ipvs0")?, "kube-ipvs0 is there");
    ensure!(!sh(node, "nft list tables")?.contains("kube-ipvs"), "the tables of kube-ipvs are there");
    Ok(())
}

/// Runs `cleanup --handover`, which ends when these connections through IPVS have ended. Fails if one was lost.
fn hand_over(cluster: &Cluster, connections: Connections, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    let (node, kube_ipvs) = (cluster.at(NODE)?, cluster.kube_ipvs(NODE)?);
    thread::scope(|scope| {
        let handover = scope.spawn(|| kube_ipvs.run(&["cleanup", "--handover", "--timeout", "1h"]));
        eventually(|| {
            let weights = node.ipvsadm()?.weights("TCP 10.96.0.81:7").unwrap_or_default();
            ensure!(weights == ["10.244.1.2:9090 0", "10.244.2.2:9090 0"], "{weights:?}");
            Ok(())
        })?;
        connections.go_on()?;
        meanwhile()?;
        ensure!(!handover.is_finished(), "the handover did not wait for connections");
        connections.close()?;
        handover.join().expect("the handover panicked").map(drop)
    })
}

fn await_served(node: &Namespace) -> Result<()> {
    for family in [Family::V4, Family::V6] {
        let pods = [1, 2].map(|node| family.at(&family.pod(node), 9090));
        let talk = format!("TCP {}", family.at(&family.cluster_ip(81), 7));
        node.await_serving(&talk, &pods.each_ref().map(String::as_str))?;
    }
    Ok(())
}

/// Connections through kube-proxy's DNAT stay with conntrack at the takeover. Those through IPVS stay with IPVS at the
/// way back, until they end.
fn takeover_and_back(mode: Mode, preview: &'static [&'static str]) -> TestResult {
    scenario(cluster(), move |cluster| {
        let _servers = deploy(cluster)?;
        let node = cluster.at(NODE)?;
        write_others(node)?;
        mode.write_rules(node)?;
        let (earlier, loads) = (Connections::open(cluster)?, Loads::start(cluster, |from| from != NODE)?);
        let loads_of_node = Loads::start(cluster, |from| from == NODE)?;
        ensure_preview(cluster, preview)?;

        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        let log = await_logged(&proxy, "took over from kube-proxy")?;
        ensure!(!log.contains("ERROR") && !log.contains("stays"), "{log}");
        ensure_only_others(node)?;
        ensure!(
            cluster.kube_ipvs(NODE)?.run(&["takeover", "--dry-run"])?.is_empty(),
            "a second takeover has work to do"
        );
        await_served(node)?;
        for family in [Family::V4, Family::V6] {
            for address in [family.at(&family.cluster_ip(84), 7), family.at(&family.node(), 30084)] {
                let refused = cluster.at("client")?.try_echo(Transport::Tcp, &address)?;
                ensure!(refused.is_err(), "{address} answers: {refused:?}");
            }
        }
        earlier.go_on()?;
        loads.go_on()?;
        loads_of_node.go_on()?;

        // The way back.
        let later = Connections::open(cluster)?;
        let mut datagrams = cluster.at("visitor")?.connect_from_own_port(Transport::Udp, "10.96.0.81:53")?;
        datagrams.say()?;
        loads_of_node.stop()?;
        ensure!(proxy.terminate()?.success());
        let kube_ipvs = cluster.kube_ipvs(NODE)?;
        let refused = kube_ipvs.output(&["cleanup", "--handover"])?;
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        let lacking = "no rules of kube-proxy that serve IPv4 and IPv6.";
        ensure!(!refused.status.success() && error.contains(lacking), "{error}");
        mode.write_rules(node)?;
        loads.go_on()?;
        later.go_on()?;
        hand_over(cluster, later, || {
            loads.go_on()?;
            datagrams.say().map(drop).context("UDP through IPVS")
        })?;
        no_services_in_ipvs(node)?;
        // No connection of UDP ends, so the handover does not wait for it. kube-proxy's rules serve it now.
        datagrams.say().context("UDP after the handover")?;
        earlier.close()?;
        loads.stop()
    })
}

#[test]
fn iptables_mode_takeover_and_handover_lose_no_connection() -> TestResult {
    takeover_and_back(
        Mode::Iptables,
        &[
            "kube-proxy's iptables mode has left objects here",
            "remove chain ip nat KUBE-SERVICES",
            "remove chain ip6 nat KUBE-SVC-TALKQQQQQQQQQQQQ",
            "remove chain ip filter KUBE-EXTERNAL-SERVICES",
            "remove chain ip6 mangle KUBE-PROXY-CANARY",
        ],
    )
}

#[test]
fn nftables_mode_takeover_and_handover_lose_no_connection() -> TestResult {
    takeover_and_back(
        Mode::Nftables,
        &[
            "kube-proxy's nftables mode has left objects here",
            "remove table ip kube-proxy",
            "remove table ip6 kube-proxy",
        ],
    )
}

// The commands of docs/migrating-from-other-modes.md.
const SAVE: &str = r#"sysctl -w net.ipv4.vs.expire_nodest_conn=0
ipvsadm -Sn > ipvs; ip -o address show dev kube-ipvs0 | awk '{print $4}' > vips"#;
const HOLD: &str = r#"for family in ip ip6; do
  nft list set $family kube-ipvs vips | sed "s/^table $family kube-ipvs/table $family hold/" | nft -f -
  for hook in prerouting output; do
    nft add chain $family hold $hook "{ type filter hook $hook priority mangle; }"
    nft add rule $family hold $hook ct original $family daddr @vips drop
    nft add rule $family hold $hook meta l4proto { tcp, sctp } ct original proto-dst 30000-32767 drop
  done
done"#;
const RESTORE: &str =
    "ip link add kube-ipvs0 type dummy; while read vip; do ip address add $vip dev kube-ipvs0; done < vips
ipvsadm -R < ipvs
nft delete table ip hold; nft delete table ip6 hold";

/// Without virtual servers, the kernel hands the packets of open connections past IPVS: the node itself resets them.
#[test]
fn connections_and_clients_wait_while_the_nftables_mode_removes_all_virtual_servers() -> TestResult {
    scenario(cluster(), |cluster| {
        let _servers = deploy(cluster)?;
        let node = cluster.at(NODE)?;
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        await_served(node)?;
        let (mut idle, loads) = (Idle::open_tcp(cluster)?, Loads::start_tcp(cluster, |from| from != NODE)?);
        ensure!(proxy.terminate()?.success());
        let here = |script: &str| sh(node, &format!("cd {}; {script}", cluster.directory().display()));
        here(SAVE)?;
        here(HOLD)?;
        // kube-proxy does this in its first second.
        here("ipvsadm -C")?;
        idle.send()?;
        here("ip link delete kube-ipvs0")?;
        Mode::Nftables.write_rules(node)?;
        here(RESTORE)?;
        idle.hear()?;
        let connections = Connections::of(idle);
        connections.go_on()?;
        loads.go_on()?;
        hand_over(cluster, connections, || loads.go_on())?;
        no_services_in_ipvs(node)?;
        loads.stop()
    })
}

/// As docs/migrating-from-other-modes.md prints it.
const REMOVE_LEGACY: &str = r#"CHAINS='KUBE-(SERVICES|EXTERNAL-SERVICES|NODEPORTS|FORWARD|PROXY-FIREWALL|PROXY-CANARY|(SVC|SVL|EXT|FW|SEP|XLB)-[A-Z2-7]{16})( |$)'
for program in iptables ip6tables; do
  $program-legacy-save -c | grep -vE "$CHAINS" | $program-legacy-restore -c
done"#;

#[test]
fn legacy_iptables_mode_rules_are_reported_and_their_removal_loses_no_connection() -> TestResult {
    scenario(cluster(), |cluster| {
        let _servers = deploy(cluster)?;
        let node = cluster.at(NODE)?;
        write_others(node)?;
        Mode::LegacyIptables.write_rules(node)?;
        sh(
            node,
            "iptables-legacy -t nat -N KUBE-ROUTER-SERVICES; iptables-legacy -t nat -A OUTPUT -j KUBE-ROUTER-SERVICES",
        )?;
        let (earlier, loads) = (Connections::open(cluster)?, Loads::start(cluster, |_| true)?);
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        await_logged(&proxy, "rules of iptables-legacy in the table nat. kube-ipvs cannot see them")?;
        await_served(node)?;
        sh(node, REMOVE_LEGACY)?;
        let rules = rules(node, "legacy")?;
        let left = |line: &&str| line.contains("KUBE-") && !line.contains("MASQ") && !line.contains("POSTROUTING");
        let left: Vec<&str> = rules.lines().filter(left).map(|line| line.split(" [").next().unwrap_or(line)).collect();
        assert_eq!(left, [":KUBE-ROUTER-SERVICES -", "-A OUTPUT -j KUBE-ROUTER-SERVICES"]);
        let later = Connections::open(cluster)?;
        let in_ipvs = sh(node, "ipvsadm -Lnc | grep -c ESTABLISHED")?;
        ensure!(in_ipvs.trim().parse::<usize>()? >= 14, "{in_ipvs}");
        later.close()?;
        earlier.close()?;
        loads.stop()
    })
}
