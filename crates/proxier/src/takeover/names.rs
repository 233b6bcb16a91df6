//! The names of ipsets and chains in kube-proxy's ipvs mode, for all versions since 1.20 (`ipsetInfo`,
//! `iptablesJumpChain` and `iptablesCleanupChains` of `pkg/proxy/ipvs`).

use crate::model::{Family, Protocol};

/// The tables in which kube-proxy has chains.
pub(crate) const TABLES: [&str; 2] = ["nat", "filter"];

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

/// kube-proxy's chains: table and name.
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

/// The chain for all packets to Services: table and name.
pub(super) const SERVICES: (&str, &str) = ("nat", "KUBE-SERVICES");
pub(super) const FORWARD: &str = "KUBE-FORWARD";
pub(super) const NODE_PORT: &str = "KUBE-NODE-PORT";
pub(super) const POSTROUTING: &str = "KUBE-POSTROUTING";
pub(super) const MARK_MASQ: &str = "KUBE-MARK-MASQ";

/// A chain in `nat` of kubelets before 1.28. These kubelets also make chains that kube-proxy uses.
pub(super) const KUBELETS_MARK: &str = "KUBE-MARK-DROP";

/// A chain that kube-proxy's iptables mode has in both tables, and its ipvs mode in neither.
pub(super) const IPTABLES_MODE: &str = "KUBE-NODEPORTS";

/// The kubelet's chain in `filter`.
pub(super) const KUBELETS_FIREWALL: &str = "KUBE-FIREWALL";

/// kube-proxy's rules in chains of other programs: table, chain, target chain, comment.
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

pub(super) fn is_chain(table: &str, name: &str) -> bool {
    CHAINS.contains(&(table, name))
}

/// Whether kube-proxy's iptables mode has a chain of this name too.
pub(super) fn is_of_both_modes(name: &str) -> bool {
    ["KUBE-SERVICES", POSTROUTING, MARK_MASQ, FORWARD, "KUBE-PROXY-FIREWALL"].contains(&name)
}

/// Whether a chain accepts packets that other chains may drop.
pub(super) fn is_accept_chain(table: &str, name: &str) -> bool {
    table == "filter" && (name == FORWARD || name == NODE_PORT)
}

/// Whether kube-proxy itself has a rule in `from` that jumps to its chain `to`.
pub(super) fn is_jump(table: &str, from: &str, to: &str) -> bool {
    JUMPS.iter().any(|(of, chain, target, _)| (*of, *chain, *target) == (table, from, to))
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
