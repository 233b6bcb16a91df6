//! A node as kube-proxy 1.36 leaves it in ipvs mode, created with the tools that kube-proxy runs.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use scenarios::Namespace;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    Nft,
    Legacy,
}

impl Backend {
    fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        }
    }

    pub(super) fn rules(self, node: &Namespace) -> Result<String> {
        let name = self.name();
        sh(node, &format!("iptables-{name}-save; ip6tables-{name}-save"))
    }
}

pub(super) fn sh(node: &Namespace, script: &str) -> Result<String> {
    node.run("sh", &["-ec", script])
}

pub(super) fn sets(node: &Namespace) -> Result<Vec<String>> {
    Ok(sh(node, "ipset list -name | sort")?.lines().map(str::to_owned).collect())
}

const SETS: [(&str, &str); 17] = [
    ("LOOP-BACK", "hash:ip,port,ip"),
    ("CLUSTER-IP", "hash:ip,port"),
    ("EXTERNAL-IP", "hash:ip,port"),
    ("EXTERNAL-IP-LOCAL", "hash:ip,port"),
    ("LOAD-BALANCER", "hash:ip,port"),
    ("LOAD-BALANCER-FW", "hash:ip,port"),
    ("LOAD-BALANCER-LOCAL", "hash:ip,port"),
    ("LOAD-BALANCER-SOURCE-IP", "hash:ip,port,ip"),
    ("LOAD-BALANCER-SOURCE-CIDR", "hash:ip,port,net"),
    ("NODE-PORT-TCP", "bitmap:port"),
    ("NODE-PORT-LOCAL-TCP", "bitmap:port"),
    ("NODE-PORT-UDP", "bitmap:port"),
    ("NODE-PORT-LOCAL-UDP", "bitmap:port"),
    ("NODE-PORT-SCTP-HASH", "hash:ip,port"),
    ("NODE-PORT-LOCAL-SCTP-HASH", "hash:ip,port"),
    ("HEALTH-CHECK-NODE-PORT", "bitmap:port"),
    ("IPVS-IPS", "hash:ip"),
];

/// The elements of the ipsets: `web` with a node port, `talk` with a node port, a load balancer's address, and a
/// deleted Service.
const ENTRIES: [(&str, &str); 13] = [
    ("CLUSTER-IP", "10.96.0.80,tcp:80"),
    ("CLUSTER-IP", "10.96.0.81,tcp:7"),
    ("CLUSTER-IP", "10.96.0.99,tcp:80"),
    ("LOAD-BALANCER", "203.0.113.80,tcp:80"),
    ("LOAD-BALANCER-FW", "203.0.113.80,tcp:80"),
    ("LOAD-BALANCER-SOURCE-CIDR", "203.0.113.80,tcp:80,192.168.0.0/16"),
    ("NODE-PORT-TCP", "30080"),
    ("NODE-PORT-TCP", "30081"),
    ("HEALTH-CHECK-NODE-PORT", "32000"),
    ("IPVS-IPS", "10.96.0.80"),
    ("IPVS-IPS", "10.96.0.81"),
    ("IPVS-IPS", "10.96.0.99"),
    ("IPVS-IPS", "203.0.113.80"),
];

/// kube-proxy's virtual servers on node-3. They are out of date: a pod is missing and another is draining.
const SERVERS: [&str; 18] = [
    "-A -t 10.96.0.80:80 -s rr",
    "-a -t 10.96.0.80:80 -r 10.244.1.2:8080 -m -w 1",
    "-a -t 10.96.0.80:80 -r 10.244.2.2:8080 -m -w 1",
    "-a -t 10.96.0.80:80 -r 10.244.9.9:8080 -m -w 0",
    "-A -t 203.0.113.80:80 -s rr",
    "-a -t 203.0.113.80:80 -r 10.244.1.2:8080 -m -w 1",
    "-A -t 192.168.128.3:30080 -s rr",
    "-a -t 192.168.128.3:30080 -r 10.244.1.2:8080 -m -w 1",
    "-a -t 192.168.128.3:30080 -r 10.244.2.2:8080 -m -w 1",
    "-A -t 10.96.0.81:7 -s wlc",
    "-a -t 10.96.0.81:7 -r 10.244.1.2:9090 -m -w 1",
    "-a -t 10.96.0.81:7 -r 10.244.2.2:9090 -m -w 3",
    "-A -t 192.168.128.3:30081 -s rr",
    "-a -t 192.168.128.3:30081 -r 10.244.1.2:9090 -m -w 1",
    "-a -t 192.168.128.3:30081 -r 10.244.2.2:9090 -m -w 1",
    "-A -t 10.96.0.99:80 -s rr",
    "-a -t 10.96.0.99:80 -r 10.244.1.2:8080 -m -w 1",
    // Belongs to no Service: kube-proxy ended after creating it and before writing the sets.
    "-A -t 10.96.0.81:9 -s rr",
];

const VIPS: [&str; 4] = ["10.96.0.80", "10.96.0.81", "10.96.0.99", "203.0.113.80"];

/// The kubelet's chains: the canary in each table, and its firewall in `filter`.
const KUBELET: &str = "*mangle\n:KUBE-KUBELET-CANARY - [0:0]\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n\
                       *nat\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n\
                       *filter\n:KUBE-KUBELET-CANARY - [0:0]\n:KUBE-FIREWALL - [0:0]\n\
                       -A INPUT -j KUBE-FIREWALL\n-A OUTPUT -j KUBE-FIREWALL\n\
                       -A KUBE-FIREWALL -m comment --comment \"block incoming localnet connections\" ! -s LO -d LO \
                       -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP\nCOMMIT\n";

/// kube-proxy's rules. `SET-` prefixes the names of sets.
const RULES: &str = r#"*nat
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-LOAD-BALANCER - [0:0]
:KUBE-MARK-MASQ - [0:0]
-I OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-SERVICES -s LO -j RETURN
-A KUBE-POSTROUTING -m comment --comment "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose" -m set --match-set SET-LOOP-BACK dst,dst,src -j MASQUERADE
-A KUBE-SERVICES -m comment --comment "Kubernetes service lb portal" -m set --match-set SET-LOAD-BALANCER dst,dst -j KUBE-LOAD-BALANCER
-A KUBE-NODE-PORT -p tcp -m comment --comment "Kubernetes nodeport TCP port for masquerade purpose" -m set --match-set SET-NODE-PORT-TCP dst -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m comment --comment "Kubernetes service cluster ip + port for masquerade purpose" -m set --match-set SET-CLUSTER-IP dst,dst ! -s PODS -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT
-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m set --match-set SET-CLUSTER-IP dst,dst -j ACCEPT
-A KUBE-SERVICES -m set --match-set SET-LOAD-BALANCER dst,dst -j ACCEPT
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
COMMIT
*filter
:KUBE-FORWARD - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SOURCE-RANGES-FIREWALL - [0:0]
:KUBE-IPVS-FILTER - [0:0]
:KUBE-IPVS-OUT-FILTER - [0:0]
-I FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-I INPUT -m comment --comment "kubernetes health check rules" -j KUBE-NODE-PORT
-I INPUT -m comment --comment "kube-proxy firewall rules" -j KUBE-PROXY-FIREWALL
-I FORWARD -m comment --comment "kube-proxy firewall rules" -j KUBE-PROXY-FIREWALL
-I INPUT -m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-FILTER
-I OUTPUT -m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-OUT-FILTER
-A KUBE-PROXY-FIREWALL -m comment --comment "Kubernetes service load balancer ip + port for load balancer with sourceRange" -m set --match-set SET-LOAD-BALANCER-FW dst,dst -j KUBE-SOURCE-RANGES-FIREWALL
-A KUBE-SOURCE-RANGES-FIREWALL -m comment --comment "Kubernetes service load balancer ip + port + source cidr for packet filter purpose" -m set --match-set SET-LOAD-BALANCER-SOURCE-CID dst,dst,src -j RETURN
-A KUBE-SOURCE-RANGES-FIREWALL -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-NODE-PORT -m comment --comment "Kubernetes health check node port" -m set --match-set SET-HEALTH-CHECK-NODE-PORT dst -j ACCEPT
-A KUBE-IPVS-FILTER -m set --match-set SET-LOAD-BALANCER dst,dst -j RETURN
-A KUBE-IPVS-FILTER -m set --match-set SET-CLUSTER-IP dst,dst -j RETURN
-A KUBE-IPVS-FILTER -m set --match-set SET-EXTERNAL-IP dst,dst -j RETURN
-A KUBE-IPVS-FILTER -m set --match-set SET-EXTERNAL-IP-LOCAL dst,dst -j RETURN
-A KUBE-IPVS-FILTER -m set --match-set SET-HEALTH-CHECK-NODE-PORT dst -j RETURN
-A KUBE-IPVS-FILTER -m conntrack --ctstate NEW -m set --match-set SET-IPVS-IPS dst -j REJECT
COMMIT
"#;

/// kube-proxy's name for a set. It truncates long ones.
fn set_name(is_v6: bool, name: &str) -> String {
    let name = format!("KUBE-{}{name}", if is_v6 { "6-" } else { "" });
    name.chars().take(31).collect()
}

/// Creates the state of kube-proxy and the kubelet, with sysctls, in both families.
pub(super) fn prepare(node: &Namespace, backend: Backend) -> Result<()> {
    let mut script = String::new();
    let name = backend.name();
    for (program, local) in [("iptables", "127.0.0.0/8"), ("ip6tables", "::1/128")] {
        let rules = KUBELET.replace("LO ", &format!("{local} "));
        write!(script, "{program}-{name}-restore --noflush <<'END'\n{rules}END\n")?;
    }
    sh(node, &script)?;
    leave_behind(node, backend)
}

/// Creates the state of kube-proxy, with sysctls, in both families.
pub(super) fn leave_behind(node: &Namespace, backend: Backend) -> Result<()> {
    write_sets_and_rules(node, backend)?;
    let mut script = String::from("ip link add kube-ipvs0 type dummy\n");
    VIPS.iter().try_for_each(|vip| writeln!(script, "ip addr add {vip}/32 dev kube-ipvs0"))?;
    write!(script, "ipvsadm -R <<'END'\n{}\nEND\n", SERVERS.join("\n"))?;
    sh(node, &script)?;
    node.sysctls(&[("ipv4.vs.conntrack", "1"), ("ipv4.ip_forward", "1")])?;
    let has = sets(node)?;
    ensure!(has.len() == 2 * SETS.len(), "{has:?}");
    Ok(())
}

/// Writes the state that kube-proxy writes at each sync, except IPVS.
pub(super) fn write_sets_and_rules(node: &Namespace, backend: Backend) -> Result<()> {
    let mut script = String::from("ipset -exist restore <<'END'\n");
    for is_v6 in [false, true] {
        for (name, kind) in SETS {
            let name = set_name(is_v6, name);
            let options = match (kind, is_v6) {
                ("bitmap:port", _) => "range 0-65535",
                (_, false) => "family inet",
                (_, true) => "family inet6",
            };
            writeln!(script, "create {name} {kind} {options}")?;
        }
    }
    for (name, entry) in ENTRIES {
        writeln!(script, "add {} {entry}", set_name(false, name))?;
    }
    script.push_str("END\n");
    let kind = backend.name();
    for (program, is_v6, local, pods) in
        [("iptables", false, "127.0.0.0/8", "10.244.0.0/16"), ("ip6tables", true, "::1/128", "fd00:10:244::/56")]
    {
        let cut = set_name(is_v6, "LOAD-BALANCER-SOURCE-CIDR");
        let rules = RULES
            .replace("SET-LOAD-BALANCER-SOURCE-CID ", &format!("{cut} "))
            .replace("SET-", &set_name(is_v6, ""))
            .replace("-s LO ", &format!("-s {local} "))
            .replace("PODS", pods);
        write!(script, "{program}-{kind}-restore --noflush <<'END'\n{rules}END\n")?;
    }
    sh(node, &script).map(drop)
}
