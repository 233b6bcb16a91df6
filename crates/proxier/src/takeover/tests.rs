mod iptables_mode;

use expect_test::{Expect, expect};
use iptables_mode::IPTABLES_MODE;

use super::*;
use crate::model::Family;

/// The chains of kube-proxy 1.36 in ipvs mode, with those of the kubelet. A line is a chain: table, name, hook (`!`:
/// the policy is drop), then its rules. `>CHAIN` jumps, `drop` drops, `set` and `set>CHAIN` look up an ipset, and `?`
/// precedes a rule with a match.
const KUBE_PROXY: &str = "
    nat PREROUTING other: >KUBE-SERVICES
    nat OUTPUT other: >KUBE-SERVICES
    nat POSTROUTING other: >KUBE-POSTROUTING
    nat KUBE-SERVICES: ?other set ?>KUBE-MARK-MASQ ?>KUBE-NODE-PORT ?>KUBE-LOAD-BALANCER set
    nat KUBE-POSTROUTING: set ?other other other
    nat KUBE-NODE-PORT: ?>KUBE-MARK-MASQ
    nat KUBE-LOAD-BALANCER: >KUBE-MARK-MASQ
    nat KUBE-MARK-MASQ: other
    nat KUBE-KUBELET-CANARY:
    filter INPUT input: >KUBE-IPVS-FILTER >KUBE-PROXY-FIREWALL >KUBE-NODE-PORT >KUBE-FIREWALL
    filter FORWARD forward: >KUBE-PROXY-FIREWALL >KUBE-FORWARD
    filter OUTPUT other: >KUBE-IPVS-OUT-FILTER >KUBE-FIREWALL
    filter KUBE-FORWARD: ?other ?other
    filter KUBE-NODE-PORT: set
    filter KUBE-PROXY-FIREWALL: ?>KUBE-SOURCE-RANGES-FIREWALL
    filter KUBE-SOURCE-RANGES-FIREWALL: set drop
    filter KUBE-IPVS-FILTER: set set ?drop
    filter KUBE-IPVS-OUT-FILTER:
    filter KUBE-FIREWALL: ?drop
    filter KUBE-KUBELET-CANARY:";

fn chains(text: &str) -> Vec<Chain> {
    let mut handles = 1..;
    let mut rule = |word: &str| {
        let (is_conditional, what) =
            word.strip_prefix('?').map_or((word.starts_with("set"), word), |what| (true, what));
        let uses_set = what.starts_with("set");
        let verdict = match what.trim_start_matches("set").strip_prefix('>') {
            Some(chain) => Verdict::Jump(chain.into()),
            None if what == "drop" => Verdict::Reject,
            None => Verdict::Other,
        };
        Rule { handle: handles.next().unwrap(), verdict, is_conditional, uses_set }
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (head, rules) = line.split_once(':').unwrap();
            let words: Vec<&str> = head.split(' ').collect();
            let base = words.get(2).map(|hook| Base {
                hook: match hook.trim_end_matches('!') {
                    "input" => Hook::Input,
                    "forward" => Hook::Forward,
                    _ => Hook::Other,
                },
                drops: hook.ends_with('!'),
            });
            let id = ChainId { family: Family::V4, table: words[0].into(), name: words[1].into() };
            Chain { id, base, rules: rules.split_whitespace().map(&mut rule).collect() }
        })
        .collect()
}

/// `KUBE_PROXY` with additional chains, which replace those of the same name.
fn with(changes: &str) -> Vec<Chain> {
    let names: Vec<_> = chains(changes).into_iter().map(|chain| chain.id).collect();
    let mut all = chains(KUBE_PROXY);
    all.retain(|chain| !names.contains(&chain.id));
    all.extend(chains(changes));
    all
}

fn check(chains: &[Chain], has_sets: bool, expected: Expect) {
    let leftovers = Leftovers::among(chains, has_sets);
    let mut text = String::new();
    let mut line = |line: String| text.extend([&line, "\n"]);
    let id = |id: &ChainId| format!("{} {}", id.table, id.name);
    let goes = |chain: &&Chain| leftovers.chains.contains(&chain.id);
    line(format!("{} chains go", chains.iter().filter(goes).count()));
    for chain in chains.iter().filter(|chain| !goes(chain)) {
        let goes = |rule: &&Rule| leftovers.rules.contains(&(chain.id.clone(), rule.handle));
        let gone = chain.rules.iter().filter(goes).count();
        line(format!("{}: {gone} of {} rules go", id(&chain.id), chain.rules.len()));
    }
    leftovers.kept.iter().for_each(|kept| line(kept.to_string()));
    // No remaining rule jumps to a removed chain.
    for chain in chains.iter().filter(|chain| !goes(chain)) {
        for rule in &chain.rules {
            let Verdict::Jump(to) = &rule.verdict else { continue };
            let dangles = leftovers.chains.iter().any(|gone| gone.table == chain.id.table && gone.name == *to);
            assert!(!dangles || leftovers.rules.contains(&(chain.id.clone(), rule.handle)), "{chain:?}");
        }
    }
    expected.assert_eq(&text);
}

#[test]
fn cleanup_removes_kube_proxy_chains_and_keeps_kubelet_chains() {
    check(
        &chains(KUBE_PROXY),
        true,
        expect![[r#"
            11 chains go
            nat PREROUTING: 1 of 1 rules go
            nat OUTPUT: 1 of 1 rules go
            nat POSTROUTING: 1 of 1 rules go
            nat KUBE-KUBELET-CANARY: 0 of 0 rules go
            filter INPUT: 3 of 4 rules go
            filter FORWARD: 2 of 2 rules go
            filter OUTPUT: 1 of 2 rules go
            filter KUBE-FIREWALL: 0 of 1 rules go
            filter KUBE-KUBELET-CANARY: 0 of 0 rules go
        "#]],
    );
}

#[test]
fn second_cleanup_removes_nothing() {
    for text in [KUBE_PROXY, "filter FORWARD forward!: >KUBE-FORWARD\n filter KUBE-FORWARD: ?other"] {
        let mut chains = chains(text);
        let leftovers = Leftovers::among(&chains, true);
        chains.retain(|chain| !leftovers.chains.contains(&chain.id));
        for chain in &mut chains {
            let id = chain.id.clone();
            chain.rules.retain(|rule| !leftovers.rules.contains(&(id.clone(), rule.handle)));
        }
        let again = Leftovers::among(&chains, true);
        assert_eq!((again.rules, again.chains, again.kept), (vec![], vec![], leftovers.kept));
    }
}

#[test]
fn accepting_chains_stay_if_the_base_policy_drops() {
    check(
        &with(
            "filter INPUT input!: >KUBE-IPVS-FILTER >KUBE-PROXY-FIREWALL >KUBE-NODE-PORT
             filter FORWARD forward!: >KUBE-PROXY-FIREWALL >KUBE-FORWARD",
        ),
        true,
        expect![[r#"
            9 chains go
            nat PREROUTING: 1 of 1 rules go
            nat OUTPUT: 1 of 1 rules go
            nat POSTROUTING: 1 of 1 rules go
            nat KUBE-KUBELET-CANARY: 0 of 0 rules go
            filter OUTPUT: 1 of 2 rules go
            filter KUBE-FORWARD: 0 of 2 rules go
            filter KUBE-NODE-PORT: 0 of 1 rules go
            filter KUBE-FIREWALL: 0 of 1 rules go
            filter KUBE-KUBELET-CANARY: 0 of 0 rules go
            filter INPUT: 2 of 3 rules go
            filter FORWARD: 1 of 2 rules go
            kube-proxy's chain KUBE-FORWARD stays (IPv4): FORWARD drops packets that no rule accepts, and this chain accepts those of Services. This proxy does not update it
            kube-proxy's chain KUBE-NODE-PORT stays (IPv4): INPUT drops packets that no rule accepts, and this chain accepts those of Services. This proxy does not update it
        "#]],
    );
}

/// Such last rules are firewalld's, ufw's or an administrator's.
#[test]
fn accepting_chain_stays_if_the_last_rule_may_drop() {
    let forward = |rules: &str| {
        with(&format!(
            "filter FORWARD forward: >KUBE-FORWARD {rules}
             filter ufw-reject: drop
             filter ufw-after: >ufw-reject
             filter by-interface: drop
             filter loop: >loop"
        ))
    };
    for (rules, stays) in [
        ("drop", true),
        (">ufw-after", true),
        // kube-ipvs does not interpret the condition.
        ("?drop", true),
        ("?>by-interface", true),
        ("?drop >KUBE-PROXY-FIREWALL", true),
        // The author of the rules handled the packets after the drop.
        ("?drop ?other", false),
        ("?>by-interface other", false),
        (">loop", false),
        ("other", false),
        // A drop by kube-proxy's last rule does not require kube-proxy's accepting chain.
        (">KUBE-SOURCE-RANGES-FIREWALL", false),
    ] {
        let kept = Leftovers::among(&forward(rules), true).kept;
        let is_forward = |kept: &Kept| matches!(kept, Kept::AcceptingChain { chain, .. } if &**chain == "KUBE-FORWARD");
        assert_eq!(kept.iter().any(is_forward), stays, "{rules}: {kept:?}");
    }
}

#[test]
fn kept_accepting_chain_goes_once_nothing_drops() {
    let kept = "filter FORWARD forward: >KUBE-FORWARD\n filter KUBE-FORWARD: ?other\n nat KUBE-MARK-MASQ: other";
    check(
        &chains(kept),
        false,
        expect![[r#"
            1 chains go
            filter FORWARD: 1 of 1 rules go
            nat KUBE-MARK-MASQ: 0 of 1 rules go
        "#]],
    );
}

#[test]
fn chain_used_by_other_programs_stays_with_its_targets() {
    check(
        &with("nat CNI-HOSTPORT-SNAT: ?>KUBE-MARK-MASQ\n nat LOCAL: ?>KUBE-LOAD-BALANCER"),
        true,
        expect![[r#"
            9 chains go
            nat PREROUTING: 1 of 1 rules go
            nat OUTPUT: 1 of 1 rules go
            nat POSTROUTING: 1 of 1 rules go
            nat KUBE-LOAD-BALANCER: 0 of 1 rules go
            nat KUBE-MARK-MASQ: 0 of 1 rules go
            nat KUBE-KUBELET-CANARY: 0 of 0 rules go
            filter INPUT: 3 of 4 rules go
            filter FORWARD: 2 of 2 rules go
            filter OUTPUT: 1 of 2 rules go
            filter KUBE-FIREWALL: 0 of 1 rules go
            filter KUBE-KUBELET-CANARY: 0 of 0 rules go
            nat CNI-HOSTPORT-SNAT: 0 of 1 rules go
            nat LOCAL: 0 of 1 rules go
            kube-proxy's chain KUBE-LOAD-BALANCER in nat stays (IPv4): the chain LOCAL, which this proxy does not remove, jumps to it
            kube-proxy's chain KUBE-MARK-MASQ in nat stays (IPv4): the chain CNI-HOSTPORT-SNAT, which this proxy does not remove, jumps to it
        "#]],
    );
}

#[test]
fn shared_chains_of_old_kubelets_stay_without_kube_proxy_rules() {
    check(
        &with("nat KUBE-MARK-DROP: other"),
        true,
        expect![[r#"
            9 chains go
            nat PREROUTING: 1 of 1 rules go
            nat OUTPUT: 1 of 1 rules go
            nat POSTROUTING: 0 of 1 rules go
            nat KUBE-POSTROUTING: 1 of 4 rules go
            nat KUBE-MARK-MASQ: 0 of 1 rules go
            nat KUBE-KUBELET-CANARY: 0 of 0 rules go
            filter INPUT: 3 of 4 rules go
            filter FORWARD: 2 of 2 rules go
            filter OUTPUT: 1 of 2 rules go
            filter KUBE-FIREWALL: 0 of 1 rules go
            filter KUBE-KUBELET-CANARY: 0 of 0 rules go
            nat KUBE-MARK-DROP: 0 of 1 rules go
            the chain KUBE-MARK-MASQ in nat stays (IPv4): the kubelet maintains it too
            the chain KUBE-POSTROUTING in nat stays (IPv4): the kubelet maintains it too
        "#]],
    );
}

/// kube-ipvs sees remaining rules in nftables. Rules that it does not see belong to legacy iptables.
#[test]
fn busy_sets_are_attributed_to_nftables_or_legacy_iptables() {
    let busy = || ["KUBE-CLUSTER-IP", "KUBE-6-CLUSTER-IP"].map(str::to_owned).to_vec();
    let seen = Leftovers::among(&with("nat LOCAL: ?>KUBE-LOAD-BALANCER\n nat KUBE-LOAD-BALANCER: set"), true);
    let kept = seen.sets_in_use(busy());
    let in_use = Kept::SetsInUse { sets: vec!["KUBE-CLUSTER-IP".into()] };
    assert_eq!(kept, [in_use, Kept::LegacySets { sets: vec!["KUBE-6-CLUSTER-IP".into()] }]);
    // The set of health-check ports stays with its chain, and does not keep other sets.
    let drops = Leftovers::among(&with("filter INPUT input!: >KUBE-NODE-PORT"), true);
    assert_eq!(drops.sets_in_use(busy()), [Kept::LegacySets { sets: busy() }]);
    assert_eq!(drops.sets_in_use(Vec::new()), []);
}

#[test]
fn ipset_names_of_both_families_are_recognized() {
    assert_eq!(holds("KUBE-CLUSTER-IP"), Some(IpsetKind::Servers));
    assert_eq!(holds("KUBE-6-IPVS-IPS"), Some(IpsetKind::Vips));
    // kube-proxy truncates these names.
    assert_eq!(holds("KUBE-6-LOAD-BALANCER-SOURCE-CID"), Some(IpsetKind::Other));
    assert_eq!(holds("KUBE-6-NODE-PORT-LOCAL-SCTP-HAS"), Some(IpsetKind::Servers));
    for others in ["KUBE-DST-VBSGQ5UKBBSPLXXL", "KUBE-ROUTER-SVIP", "cali40all-vxlan-net", ""] {
        assert_eq!(holds(others), None, "{others}");
    }
}

/// Rules that kube-ipvs cannot remove must not block traffic while the sets go.
#[test]
fn sets_are_destroyed_in_an_order_that_rejects_no_traffic() {
    let existing =
        ["KUBE-CLUSTER-IP", "others", "KUBE-HEALTH-CHECK-NODE-PORT", "KUBE-LOAD-BALANCER-FW", "KUBE-IPVS-IPS"]
            .map(str::to_owned);
    let all = ["KUBE-IPVS-IPS", "KUBE-LOAD-BALANCER-FW", "KUBE-HEALTH-CHECK-NODE-PORT", "KUBE-CLUSTER-IP"];
    assert_eq!(sets_to_destroy(&existing, &[]), all);
    assert_eq!(sets_to_destroy(&existing, &[Family::V6]), all);
    let without = ["KUBE-IPVS-IPS", "KUBE-LOAD-BALANCER-FW", "KUBE-CLUSTER-IP"];
    assert_eq!(sets_to_destroy(&existing, &[Family::V4]), without);
    assert_eq!(sets_to_empty(&existing), without);
}

#[test]
fn legacy_commands_remove_jumps_chains_and_sets() {
    let sets = ["KUBE-IPVS-IPS", "KUBE-HEALTH-CHECK-NODE-PORT", "KUBE-CLUSTER-IP"].map(str::to_owned);
    expect![[r#"
        iptables-legacy -t nat -D OUTPUT -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES
        iptables-legacy -t nat -D PREROUTING -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES
        iptables-legacy -t filter -D INPUT -m comment --comment 'kube-proxy firewall rules' -j KUBE-PROXY-FIREWALL
        iptables-legacy -t filter -D FORWARD -m comment --comment 'kube-proxy firewall rules' -j KUBE-PROXY-FIREWALL
        iptables-legacy -t filter -D INPUT -m comment --comment 'kubernetes ipvs access filter' -j KUBE-IPVS-FILTER
        iptables-legacy -t filter -D OUTPUT -m comment --comment 'kubernetes ipvs access filter' -j KUBE-IPVS-OUT-FILTER
        iptables-legacy -t nat -D KUBE-POSTROUTING -m comment --comment 'Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose' -m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE
        iptables-legacy -t nat -F KUBE-SERVICES
        iptables-legacy -t nat -F KUBE-FIRE-WALL
        iptables-legacy -t nat -F KUBE-NODE-PORT
        iptables-legacy -t nat -F KUBE-LOAD-BALANCER
        iptables-legacy -t filter -F KUBE-PROXY-FIREWALL
        iptables-legacy -t filter -F KUBE-SOURCE-RANGES-FIREWALL
        iptables-legacy -t filter -F KUBE-IPVS-FILTER
        iptables-legacy -t filter -F KUBE-IPVS-OUT-FILTER
        iptables-legacy -t nat -X KUBE-SERVICES
        iptables-legacy -t nat -X KUBE-FIRE-WALL
        iptables-legacy -t nat -X KUBE-NODE-PORT
        iptables-legacy -t nat -X KUBE-LOAD-BALANCER
        iptables-legacy -t filter -X KUBE-PROXY-FIREWALL
        iptables-legacy -t filter -X KUBE-SOURCE-RANGES-FIREWALL
        iptables-legacy -t filter -X KUBE-IPVS-FILTER
        iptables-legacy -t filter -X KUBE-IPVS-OUT-FILTER
        ipset destroy KUBE-IPVS-IPS
        ipset destroy KUBE-CLUSTER-IP
        # Only if neither INPUT nor FORWARD drops packets, by its policy or by a last rule (iptables-legacy -S):
        iptables-legacy -t filter -D FORWARD -m comment --comment 'kubernetes forwarding rules' -j KUBE-FORWARD
        iptables-legacy -t filter -D INPUT -m comment --comment 'kubernetes health check rules' -j KUBE-NODE-PORT
        iptables-legacy -t filter -F KUBE-FORWARD
        iptables-legacy -t filter -F KUBE-NODE-PORT
        iptables-legacy -t filter -X KUBE-FORWARD
        iptables-legacy -t filter -X KUBE-NODE-PORT
        ipset destroy KUBE-HEALTH-CHECK-NODE-PORT
    "#]]
    .assert_eq(&(legacy_commands(&sets).join("\n") + "\n"));
    let both = legacy_commands(&["KUBE-6-CLUSTER-IP".to_owned(), "KUBE-CLUSTER-IP".to_owned()]);
    assert!(both.iter().any(|line| line.starts_with("ip6tables-legacy -t nat -F KUBE-SERVICES")), "{both:?}");
    assert!(both.iter().any(|line| line.starts_with("iptables-legacy -t nat -F KUBE-SERVICES")), "{both:?}");
}

#[test]
fn kube_proxy_counts_as_serving_once_rules_lead_to_services() {
    let rules = chains(KUBE_PROXY);
    assert_eq!(served_by_kube_proxy(&rules, &[]), [(Family::V4, KubeProxyMode::Ipvs)].into());
    // kube-proxy during its first sync.
    let chains_alone: Vec<Chain> = rules.iter().map(|chain| Chain { rules: Vec::new(), ..chain.clone() }).collect();
    assert!(served_by_kube_proxy(&chains_alone, &[]).is_empty());
    let iptables_mode = chains(IPTABLES_MODE);
    assert_eq!(served_by_kube_proxy(&iptables_mode, &[]), [(Family::V4, KubeProxyMode::Iptables)].into());
    let without_services = chains("nat KUBE-SERVICES: ?>KUBE-NODEPORTS\n nat KUBE-NODEPORTS:");
    assert!(served_by_kube_proxy(&without_services, &[]).is_empty());
    assert_eq!(served_by_kube_proxy(&[], &[Family::V6]), [(Family::V6, KubeProxyMode::Nftables)].into());
}

#[test]
fn preview_names_each_object() {
    let preview = Preview {
        modes: [KubeProxyMode::Iptables, KubeProxyMode::Nftables].into(),
        servers: ["TCP 10.96.0.1:443"].map(crate::testing::key).into(),
        vips: ["10.96.0.1".parse().unwrap()].into(),
        chains: vec![(Family::V6, "nat".into(), "KUBE-SERVICES".into())],
        tables: vec![Family::V4],
        sets: vec!["KUBE-CLUSTER-IP".into()],
        kept: vec![Kept::KubeletChain { family: Family::V4, chain: "KUBE-MARK-MASQ".into() }],
    };
    expect![[r#"
        kube-proxy's iptables mode has left objects here
        kube-proxy's nftables mode has left objects here
        adopt virtual server TCP 10.96.0.1:443
        adopt address 10.96.0.1
        remove chain ip6 nat KUBE-SERVICES
        remove table ip kube-proxy
        remove ipset KUBE-CLUSTER-IP
        keep: the chain KUBE-MARK-MASQ in nat stays (IPv4): the kubelet maintains it too
    "#]]
    .assert_eq(&preview.to_string());
}
