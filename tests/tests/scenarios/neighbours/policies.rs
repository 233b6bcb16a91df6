//! The rules of network plugins: Flannel, kube-router's network policies, as in k3s, and Calico. Calico finds
//! `kube-ipvs0` and then uses its rules for ipvs.

use anyhow::{Context, Result, ensure};
use scenarios::{Cluster, Namespace, Service, Slice, TestResult, Transport, eventually, scenario};

const NODE: &str = "node-3";
const FLAGS: [&str; 2] = ["--cluster-cidr", "10.244.0.0/16"];
/// The ClusterIPs of the Services `remote` and `local`.
const REMOTE: &str = "10.96.0.80:80";
const LOCAL: &str = "10.96.0.81:80";

/// Flannel masquerades pods that leave the cluster. It leaves alone packets with the mark of kube-proxy.
const FLANNEL: &str = "*nat
:FLANNEL-POSTRTG - [0:0]
-I POSTROUTING -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.0.0/16 -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.3.0/24 -j RETURN
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE --random-fully
COMMIT
*filter
:FORWARD DROP [0:0]
:FLANNEL-FWD - [0:0]
-A FORWARD -j FLANNEL-FWD
-A FLANNEL-FWD -s 10.244.0.0/16 -j ACCEPT
-A FLANNEL-FWD -d 10.244.0.0/16 -j ACCEPT
COMMIT
";

/// kube-router accepts the addresses of Services at input. Its policies see the packets behind IPVS, at output. The
/// policy of the pod `denied` allows nothing, and that of the pod `visitor` everything.
const KUBE_ROUTER: &str = "*filter
:KUBE-ROUTER-INPUT - [0:0]
:KUBE-ROUTER-FORWARD - [0:0]
:KUBE-ROUTER-OUTPUT - [0:0]
:KUBE-POD-FW-DENIED - [0:0]
:KUBE-POD-FW-VISITOR - [0:0]
:KUBE-NWPLCY-ALL - [0:0]
-I INPUT -j KUBE-ROUTER-INPUT
-I FORWARD -j KUBE-ROUTER-FORWARD
-I OUTPUT -j KUBE-ROUTER-OUTPUT
-A KUBE-ROUTER-INPUT -d 10.96.0.0/16 -j RETURN
-A KUBE-ROUTER-INPUT -p tcp -m addrtype --dst-type LOCAL -m multiport --dports 30000:32767 -j RETURN
-A KUBE-ROUTER-INPUT -s 10.244.3.10 -j KUBE-POD-FW-DENIED
-A KUBE-ROUTER-INPUT -m mark --mark 0x20000/0x20000 -j ACCEPT
-A KUBE-ROUTER-FORWARD -d 10.244.3.10 -j KUBE-POD-FW-DENIED
-A KUBE-ROUTER-FORWARD -s 10.244.3.10 -j KUBE-POD-FW-DENIED
-A KUBE-ROUTER-FORWARD -s 10.244.3.9 -j KUBE-POD-FW-VISITOR
-A KUBE-ROUTER-FORWARD -m mark --mark 0x20000/0x20000 -j ACCEPT
-A KUBE-ROUTER-OUTPUT -d 10.244.3.10 -j KUBE-POD-FW-DENIED
-A KUBE-ROUTER-OUTPUT -s 10.244.3.10 -j KUBE-POD-FW-DENIED
-A KUBE-ROUTER-OUTPUT -s 10.244.3.9 -j KUBE-POD-FW-VISITOR
-A KUBE-ROUTER-OUTPUT -m mark --mark 0x20000/0x20000 -j ACCEPT
-A KUBE-POD-FW-DENIED -m conntrack --ctstate INVALID -j DROP
-A KUBE-POD-FW-DENIED -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-POD-FW-DENIED -m mark ! --mark 0x10000/0x10000 -j REJECT
-A KUBE-POD-FW-VISITOR -m conntrack --ctstate INVALID -j DROP
-A KUBE-POD-FW-VISITOR -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-POD-FW-VISITOR -j KUBE-NWPLCY-ALL
-A KUBE-POD-FW-VISITOR -m mark ! --mark 0x10000/0x10000 -j REJECT
-A KUBE-POD-FW-VISITOR -j MARK --set-xmark 0x0/0x10000
-A KUBE-POD-FW-VISITOR -j MARK --set-xmark 0x20000/0x20000
-A KUBE-NWPLCY-ALL -j MARK --set-xmark 0x10000/0x10000
COMMIT
";

/// Calico marks a packet to a Service at input with its pod, and applies the pod's policy at output. It knows Services
/// by their addresses: they are not in its set of this host's addresses.
const CALICO: &str = "*filter
:cali-INPUT - [0:0]
:cali-FORWARD - [0:0]
:cali-OUTPUT - [0:0]
:cali-forward-check - [0:0]
:cali-set-endpoint-mark - [0:0]
:cali-from-endpoint-mark - [0:0]
:cali-forward-endpoint-mark - [0:0]
:cali-wl-to-host - [0:0]
:cali-fw-denied - [0:0]
:cali-fw-visitor - [0:0]
-I INPUT -j cali-INPUT
-I FORWARD -j cali-FORWARD
-I OUTPUT -j cali-OUTPUT
-A cali-INPUT -j MARK --set-xmark 0x0/0xfff00000
-A cali-INPUT -j cali-forward-check
-A cali-INPUT -m mark ! --mark 0x0/0xfff00000 -j RETURN
-A cali-INPUT -i cni0 -g cali-wl-to-host
-A cali-INPUT -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-forward-check -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A cali-forward-check -p tcp -m multiport --dports 30000:32767 -m set --match-set cali40this-host dst -g cali-set-endpoint-mark
-A cali-forward-check -m set ! --match-set cali40this-host dst -j cali-set-endpoint-mark
-A cali-set-endpoint-mark -i cni0 -s 10.244.3.10 -j MARK --set-xmark 0x1200000/0xfff00000
-A cali-set-endpoint-mark -i cni0 -s 10.244.3.9 -j MARK --set-xmark 0x1100000/0xfff00000
-A cali-set-endpoint-mark -m mark --mark 0x0/0xfff00000 -j MARK --set-xmark 0x100000/0xfff00000
-A cali-wl-to-host -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-wl-to-host -j DROP
-A cali-OUTPUT -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-OUTPUT -m mark ! --mark 0x0/0xfff00000 -g cali-forward-endpoint-mark
-A cali-forward-endpoint-mark -m mark ! --mark 0x100000/0xfff00000 -j cali-from-endpoint-mark
-A cali-forward-endpoint-mark -j MARK --set-xmark 0x0/0xfff00000
-A cali-forward-endpoint-mark -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-from-endpoint-mark -m mark --mark 0x1200000/0xfff00000 -g cali-fw-denied
-A cali-from-endpoint-mark -m mark --mark 0x1100000/0xfff00000 -g cali-fw-visitor
-A cali-from-endpoint-mark -j DROP
-A cali-fw-denied -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-fw-denied -j DROP
-A cali-fw-visitor -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-fw-visitor -j MARK --set-xmark 0x10000/0x10000
-A cali-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-FORWARD -i cni0 -s 10.244.3.10 -j cali-fw-denied
COMMIT
";

fn load(node: &Namespace, rules: &str) -> Result<()> {
    let script = format!("iptables-nft-restore --noflush <<'END'\n{rules}END\n");
    node.run("sh", &["-ec", &script]).map(drop)
}

fn unload(node: &Namespace) -> Result<()> {
    let script = "iptables-nft -P FORWARD ACCEPT\n\
                  for table in filter nat; do iptables-nft -t $table -F; iptables-nft -t $table -X; done";
    node.run("sh", &["-ec", script]).map(drop)
}

/// Clients and the addresses that the endpoints see. kube-ipvs and the plugin both have rules about that.
fn ensure_sources(cluster: &Cluster) -> Result<()> {
    for (from, to, seen) in [
        ("visitor", REMOTE, "10.244.3.9"),
        ("visitor", LOCAL, "10.244.3.9"),
        (NODE, REMOTE, "192.168.128.3"),
        ("client", "192.168.128.3:30080", "192.168.128.3"),
        ("client", "192.168.128.3:30081", "192.168.128.100"),
    ] {
        let answer = cluster.at(from)?.echo(Transport::Tcp, to)?;
        ensure!(answer.peer.ip().to_string() == seen, "{from} to {to}: the endpoint sees {}", answer.peer);
    }
    Ok(())
}

/// The packets that the rule of this chain with this target has dropped or rejected.
fn packets(node: &Namespace, chain: &str, target: &str) -> Result<u64> {
    let listing = node.run("iptables-nft", &["-t", "filter", "-nvxL", chain])?;
    let words = listing.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of_target = words.rev().find(|words| words.get(2) == Some(&target));
    let counted = of_target.with_context(|| format!("no {target} in {chain}:\n{listing}"))?;
    Ok(counted[0].parse()?)
}

/// The plugin's policy for the pod `denied` also applies to its connections to Services.
fn ensure_denied(cluster: &Cluster, chain: &str, target: &str) -> Result<()> {
    let (node, denied) = (cluster.at(NODE)?, cluster.at("denied")?);
    for to in [REMOTE, LOCAL] {
        let before = packets(node, chain, target)?;
        let url = format!("http://{to}/");
        let output = denied.output("curl", &["-sS", "--connect-timeout", "1", &url])?;
        ensure!(!output.status.success(), "the pod reaches {to} against the policy");
        eventually(|| {
            let after = packets(node, chain, target)?;
            ensure!(after > before, "{to}: {chain} has seen no packet");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn network_plugin_policies_and_masquerading_apply_beside_kube_ipvs() -> TestResult {
    let builder = Cluster::builder()
        .pod("remote", "node-1", "10.244.1.2")
        .pod("local", NODE, "10.244.3.2")
        .pod("visitor", NODE, "10.244.3.9")
        .pod("denied", NODE, "10.244.3.10");
    scenario(builder, |cluster| {
        let _servers = [cluster.echo("remote", Transport::Tcp, 8080)?, cluster.echo("local", Transport::Tcp, 8080)?];
        let service = |name: &str, number: u16, policy: &str| {
            let service = Service::new(name).node_port_type().cluster_ip(&format!("10.96.0.{number}"));
            let service = service.line(&format!("externalTrafficPolicy: {policy}"));
            service.port_line(&format!("port: 80, targetPort: 8080, nodePort: {}", 30_000 + number))
        };
        let slice = |name: &str, address: &str, node: &str| Slice::of(name).port(8080).ready(address).on(node);
        let objects = format!(
            "{}---\n{}---\n{}---\n{}",
            service("remote", 80, "Cluster"),
            slice("remote", "10.244.1.2", "node-1"),
            service("local", 81, "Local"),
            slice("local", "10.244.3.2", NODE)
        );
        cluster.manifests.write("all", &objects)?;
        let node = cluster.at(NODE)?;
        // Its chains for NAT come before those of kube-ipvs.
        load(node, FLANNEL)?;
        let _proxy = cluster.start_proxy(NODE, &FLAGS)?;
        cluster.await_settled(NODE, &FLAGS)?;
        ensure_sources(cluster).context("beside Flannel")?;
        unload(node)?;

        load(node, KUBE_ROUTER)?;
        ensure_sources(cluster).context("beside kube-router")?;
        ensure_denied(cluster, "KUBE-POD-FW-DENIED", "REJECT").context("beside kube-router")?;
        unload(node)?;

        node.run("sh", &["-ec", "ipset create cali40this-host hash:ip; ipset add cali40this-host 192.168.128.3"])?;
        load(node, CALICO)?;
        ensure_sources(cluster).context("beside Calico")?;
        ensure_denied(cluster, "cali-fw-denied", "DROP").context("beside Calico")
    })
}
