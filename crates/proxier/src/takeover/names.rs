//! The names of kube-proxy's ipsets, chains and tables, for all versions since 1.20 (`ipsetInfo`, `iptablesJumpChain`
//! and `iptablesCleanupChains` of `pkg/proxy/ipvs`, `iptablesJumpChains` of `pkg/proxy/iptables`, `kubeProxyTable` of
//! `pkg/proxy/nftables`).
//!
//! Other programs own names that begin alike: the kubelet (`KUBE-FIREWALL`, `KUBE-KUBELET-CANARY`,
//! `KUBE-IPTABLES-HINT`) and kube-router (`KUBE-ROUTER-*`, `KUBE-NWPLCY-*`, `KUBE-POD-FW-*`).

use crate::model::{Family, Protocol};

/// The tables of iptables in which kube-proxy has chains.
pub(crate) const TABLES: [&str; 3] = ["nat", "filter", "mangle"];

/// The table of kube-proxy's nftables mode, one in each family.
pub(crate) const NFTABLES_MODE: &str = "kube-proxy";

/// The longest name of an ipset in the kernel (`IPSET_MAXNAMELEN` without its NUL). kube-proxy truncates its names to
/// it.
const LONGEST_SET: usize = 31;

/// The meaning of the entries in an ipset of kube-proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IpsetKind {
    /// Virtual servers: address, protocol and port.
    Servers,
    /// Ports of this protocol that kube-proxy serves on addresses of the node.
    NodePorts(Protocol),
    /// Addresses on `kube-ipvs0`.
    Vips,
    /// Entries that do not identify a virtual server.
    Other,
}

/// The set of ports on which load balancers check the health of Services.
pub(super) const HEALTH_CHECKS: &str = "KUBE-HEALTH-CHECK-NODE-PORT";

/// The set of endpoints for hairpin traffic, and the comment of its rule.
const LOOP_BACK: &str = "KUBE-LOOP-BACK";
const LOOP_BACK_COMMENT: &str = "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose";

/// kube-proxy's ipsets, in the order in which they can be flushed while rules still look them up: first the sets whose
/// entries are dropped or rejected. The last set marks a node with an incomplete takeover.
const SETS: [(&str, IpsetKind); 17] = [
    ("KUBE-IPVS-IPS", IpsetKind::Vips),
    ("KUBE-LOAD-BALANCER-FW", IpsetKind::Servers),
    ("KUBE-LOAD-BALANCER-SOURCE-IP", IpsetKind::Other),
    ("KUBE-LOAD-BALANCER-SOURCE-CIDR", IpsetKind::Other),
    ("KUBE-LOAD-BALANCER-LOCAL", IpsetKind::Servers),
    ("KUBE-LOAD-BALANCER", IpsetKind::Servers),
    ("KUBE-EXTERNAL-IP-LOCAL", IpsetKind::Servers),
    ("KUBE-EXTERNAL-IP", IpsetKind::Servers),
    ("KUBE-NODE-PORT-LOCAL-TCP", IpsetKind::NodePorts(Protocol::Tcp)),
    ("KUBE-NODE-PORT-TCP", IpsetKind::NodePorts(Protocol::Tcp)),
    ("KUBE-NODE-PORT-LOCAL-UDP", IpsetKind::NodePorts(Protocol::Udp)),
    ("KUBE-NODE-PORT-UDP", IpsetKind::NodePorts(Protocol::Udp)),
    ("KUBE-NODE-PORT-LOCAL-SCTP-HASH", IpsetKind::Servers),
    ("KUBE-NODE-PORT-SCTP-HASH", IpsetKind::Servers),
    (LOOP_BACK, IpsetKind::Other),
    (HEALTH_CHECKS, IpsetKind::Other),
    ("KUBE-CLUSTER-IP", IpsetKind::Servers),
];

/// The chains of kube-proxy's ipvs mode: table and name.
const CHAINS: [(&str, &str); 12] = [
    SERVICES,
    ("nat", POSTROUTING),
    ("nat", "KUBE-FIRE-WALL"),
    ("nat", NODE_PORT),
    ("nat", "KUBE-LOAD-BALANCER"),
    ("nat", MARK_MASQ),
    ("filter", FORWARD),
    ("filter", NODE_PORT),
    ("filter", "KUBE-PROXY-FIREWALL"),
    ("filter", "KUBE-SOURCE-RANGES-FIREWALL"),
    ("filter", "KUBE-IPVS-FILTER"),
    ("filter", "KUBE-IPVS-OUT-FILTER"),
];

/// The chains that only kube-proxy's iptables mode has: table and name.
const IPTABLES_CHAINS: [(&str, &str); 7] = [
    ("nat", NODE_PORTS),
    ("nat", CANARY),
    ("filter", "KUBE-SERVICES"),
    ("filter", "KUBE-EXTERNAL-SERVICES"),
    ("filter", NODE_PORTS),
    ("filter", CANARY),
    ("mangle", CANARY),
];

/// The chains in `nat` that kube-proxy's iptables mode makes for each Service port or endpoint. A hash follows each
/// prefix.
const HASHED_CHAINS: [&str; 6] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-", "KUBE-XLB-"];
/// The length of the hash, which is in base 32.
const HASH_LENGTH: usize = 16;

/// The chain for all packets to Services: table and name.
pub(crate) const SERVICES: (&str, &str) = ("nat", "KUBE-SERVICES");
pub(super) const FORWARD: &str = "KUBE-FORWARD";
pub(super) const NODE_PORT: &str = "KUBE-NODE-PORT";
pub(super) const POSTROUTING: &str = "KUBE-POSTROUTING";
pub(super) const MARK_MASQ: &str = "KUBE-MARK-MASQ";

/// A chain in `nat` of kubelets before 1.28. These kubelets also make chains that kube-proxy uses.
pub(super) const KUBELETS_MARK: &str = "KUBE-MARK-DROP";

/// A chain that kube-proxy's iptables mode has in `nat` and `filter`, and its ipvs mode in neither. The one in `filter`
/// accepts health checks.
pub(super) const NODE_PORTS: &str = "KUBE-NODEPORTS";

/// An empty chain by which kube-proxy's iptables mode notices that another program has emptied iptables.
const CANARY: &str = "KUBE-PROXY-CANARY";

/// The kubelet's chain in `filter`.
pub(super) const KUBELETS_FIREWALL: &str = "KUBE-FIREWALL";

/// The rules of kube-proxy's ipvs mode in chains of other programs: table, chain, target chain, comment.
const JUMPS: [(&str, &str, &str, &str); 9] = [
    ("nat", "OUTPUT", "KUBE-SERVICES", "kubernetes service portals"),
    ("nat", "PREROUTING", "KUBE-SERVICES", "kubernetes service portals"),
    ("nat", "POSTROUTING", POSTROUTING, "kubernetes postrouting rules"),
    ("filter", "FORWARD", FORWARD, "kubernetes forwarding rules"),
    ("filter", "INPUT", NODE_PORT, "kubernetes health check rules"),
    ("filter", "INPUT", "KUBE-PROXY-FIREWALL", "kube-proxy firewall rules"),
    ("filter", "FORWARD", "KUBE-PROXY-FIREWALL", "kube-proxy firewall rules"),
    ("filter", "INPUT", "KUBE-IPVS-FILTER", "kubernetes ipvs access filter"),
    ("filter", "OUTPUT", "KUBE-IPVS-OUT-FILTER", "kubernetes ipvs access filter"),
];

/// The rules of kube-proxy's iptables mode in chains of other programs, except those that the ipvs mode has too: table,
/// chain, target chain.
const IPTABLES_JUMPS: [(&str, &str, &str); 7] = [
    ("filter", "INPUT", "KUBE-EXTERNAL-SERVICES"),
    ("filter", "FORWARD", "KUBE-EXTERNAL-SERVICES"),
    ("filter", "INPUT", NODE_PORTS),
    ("filter", "FORWARD", "KUBE-SERVICES"),
    ("filter", "OUTPUT", "KUBE-SERVICES"),
    ("filter", "OUTPUT", "KUBE-PROXY-FIREWALL"),
    // kube-proxy does not write this rule any more. It removes it.
    ("filter", "INPUT", "KUBE-SERVICES"),
];

pub(super) fn is_chain(table: &str, name: &str) -> bool {
    CHAINS.contains(&(table, name)) || is_of_iptables_mode(table, name)
}

/// Whether only kube-proxy's iptables mode has a chain of this name.
pub(super) fn is_of_iptables_mode(table: &str, name: &str) -> bool {
    IPTABLES_CHAINS.contains(&(table, name)) || table == "nat" && is_hashed(name)
}

fn is_hashed(name: &str) -> bool {
    let is_base_32 = |byte: u8| byte.is_ascii_uppercase() || (b'2'..=b'7').contains(&byte);
    let hash = HASHED_CHAINS.iter().find_map(|prefix| name.strip_prefix(prefix));
    hash.is_some_and(|hash| hash.len() == HASH_LENGTH && hash.bytes().all(is_base_32))
}

/// Whether a chain shows that kube-proxy served this node. Old kubelets have `KUBE-POSTROUTING` and `KUBE-MARK-MASQ`
/// too. An accepting chain can be left from an earlier takeover.
pub(super) fn is_evidence(table: &str, name: &str) -> bool {
    let is_shared = name == POSTROUTING || name == MARK_MASQ;
    is_chain(table, name) && !is_shared && !is_accept_chain(table, name)
}

/// Whether a chain accepts packets that other chains may drop.
pub(super) fn is_accept_chain(table: &str, name: &str) -> bool {
    table == "filter" && [FORWARD, NODE_PORT, NODE_PORTS].contains(&name)
}

/// Whether kube-proxy itself has a rule in `from` that jumps to its chain `to`.
pub(super) fn is_jump(table: &str, from: &str, to: &str) -> bool {
    JUMPS.iter().any(|(of, chain, target, _)| (*of, *chain, *target) == (table, from, to))
        || IPTABLES_JUMPS.contains(&(table, from, to))
}

pub(super) fn set_name(family: Family, name: &str) -> String {
    match (family, name.strip_prefix("KUBE-")) {
        (Family::V6, Some(rest)) => format!("KUBE-6-{rest}").chars().take(LONGEST_SET).collect(),
        _ => name.to_owned(),
    }
}

/// kube-proxy's sets of both families, in the order of `SETS`.
fn sets() -> impl Iterator<Item = (String, IpsetKind)> {
    Family::ALL
        .into_iter()
        .rev()
        .flat_map(|family| SETS.into_iter().map(move |(name, holds)| (set_name(family, name), holds)))
}

/// The meaning of a set's entries; `None` if the set is not kube-proxy's.
pub(crate) fn holds(name: &str) -> Option<IpsetKind> {
    sets().find(|(known, _)| known == name).map(|(_, holds)| holds)
}

/// kube-proxy's existing sets, in the order of removal. In the families of `health_checks`, a chain that stays needs
/// the set of health-check ports, so that set stays.
pub(crate) fn sets_to_destroy(existing: &[String], health_checks: &[Family]) -> Vec<String> {
    let stays = |name: &String| health_checks.iter().any(|family| *name == set_name(*family, HEALTH_CHECKS));
    sets().map(|(name, _)| name).filter(|name| existing.contains(name) && !stays(name)).collect()
}

/// The sets to flush, in order, if rules that kube-ipvs cannot remove still look them up. Stale entries would soon make
/// rules wrong that reject packets missing in a set. The set of health-check ports stays, because rules only accept
/// packets by it.
pub(crate) fn sets_to_empty(busy: &[String]) -> Vec<String> {
    sets_to_destroy(busy, &Family::ALL)
}

/// A shell script that removes kube-proxy's rules from legacy iptables, and then the sets. The kernel offers no netlink
/// for these tables, so kube-ipvs does not know their rules.
///
/// Chains that other programs may use stay: `KUBE-MARK-MASQ` and, except for one rule, `KUBE-POSTROUTING`. The
/// accepting chains come last, so that the operator can omit them on nodes where other chains drop packets.
pub(crate) fn legacy_commands(sets: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    for is_last in [false, true] {
        if is_last {
            lines.push(LAST.to_owned());
        }
        for (family, program) in [(Family::V4, "iptables-legacy"), (Family::V6, "ip6tables-legacy")] {
            let sets: Vec<&String> = sets.iter().filter(|name| family_of(name) == family).collect();
            if !sets.is_empty() {
                lines.extend(legacy_rules(family, program, is_last));
                let health_checks = set_name(family, HEALTH_CHECKS);
                let chosen = sets.into_iter().filter(|name| (**name == health_checks) == is_last);
                lines.extend(chosen.map(|name| format!("ipset destroy {name}")));
            }
        }
    }
    lines
}

const LAST: &str =
    "# Only if neither INPUT nor FORWARD drops packets, by its policy or by a last rule (iptables-legacy -S):";

fn legacy_rules(family: Family, program: &str, is_last: bool) -> Vec<String> {
    let is_shared = |chain: &str| chain == POSTROUTING || chain == MARK_MASQ;
    let is_due = |table: &str, chain: &str| !is_shared(chain) && is_accept_chain(table, chain) == is_last;
    let jumps = JUMPS.iter().filter(|(table, _, to, _)| is_due(table, to));
    let mut lines: Vec<String> = jumps
        .map(|(table, from, to, comment)| {
            format!("{program} -t {table} -D {from} -m comment --comment '{comment}' -j {to}")
        })
        .collect();
    if !is_last {
        lines.push(format!(
            "{program} -t nat -D {POSTROUTING} -m comment --comment '{LOOP_BACK_COMMENT}' \
             -m set --match-set {} dst,dst,src -j MASQUERADE",
            set_name(family, LOOP_BACK)
        ));
    }
    // Chains refer to each other, so the script flushes all before it deletes any.
    for action in ["-F", "-X"] {
        let chains = CHAINS.iter().filter(|(table, chain)| is_due(table, chain));
        lines.extend(chains.map(|(table, chain)| format!("{program} -t {table} {action} {chain}")));
    }
    lines
}

pub(super) fn family_of(set: &str) -> Family {
    if set.starts_with("KUBE-6-") { Family::V6 } else { Family::V4 }
}
