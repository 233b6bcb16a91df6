//! Chains of kube-proxy's iptables mode.

use super::*;

/// The chains of kube-proxy 1.36 in iptables mode with one Service, and chains of the kubelet and of kube-router.
pub(super) const IPTABLES_MODE: &str = "
    nat PREROUTING other: >KUBE-SERVICES
    nat OUTPUT other: >KUBE-SERVICES
    nat POSTROUTING other: >KUBE-POSTROUTING
    nat KUBE-SERVICES: ?>KUBE-SVC-ERIFXISQEP7F7OF4 ?>KUBE-EXT-ERIFXISQEP7F7OF4 ?>KUBE-NODEPORTS
    nat KUBE-NODEPORTS: ?>KUBE-EXT-ERIFXISQEP7F7OF4
    nat KUBE-EXT-ERIFXISQEP7F7OF4: >KUBE-MARK-MASQ >KUBE-SVC-ERIFXISQEP7F7OF4
    nat KUBE-FW-ERIFXISQEP7F7OF4: >KUBE-EXT-ERIFXISQEP7F7OF4
    nat KUBE-SVC-ERIFXISQEP7F7OF4: ?>KUBE-MARK-MASQ ?>KUBE-SEP-RBTZUNKTUZP2ZNKN >KUBE-SEP-2222222222222222
    nat KUBE-SEP-RBTZUNKTUZP2ZNKN: ?>KUBE-MARK-MASQ other
    nat KUBE-SEP-2222222222222222: ?>KUBE-MARK-MASQ other
    nat KUBE-POSTROUTING: ?other other other
    nat KUBE-MARK-MASQ: other
    nat KUBE-PROXY-CANARY:
    nat KUBE-KUBELET-CANARY:
    mangle KUBE-PROXY-CANARY:
    mangle KUBE-KUBELET-CANARY:
    mangle KUBE-IPTABLES-HINT:
    filter INPUT input: ?>KUBE-PROXY-FIREWALL >KUBE-NODEPORTS ?>KUBE-EXTERNAL-SERVICES >KUBE-FIREWALL >KUBE-ROUTER-INPUT
    filter FORWARD forward: ?>KUBE-PROXY-FIREWALL >KUBE-FORWARD ?>KUBE-SERVICES ?>KUBE-EXTERNAL-SERVICES
    filter OUTPUT other: ?>KUBE-PROXY-FIREWALL ?>KUBE-SERVICES >KUBE-FIREWALL
    filter KUBE-SERVICES: ?drop
    filter KUBE-EXTERNAL-SERVICES: ?drop
    filter KUBE-NODEPORTS: ?other
    filter KUBE-FORWARD: ?drop ?other ?other
    filter KUBE-PROXY-FIREWALL: ?drop
    filter KUBE-PROXY-CANARY:
    filter KUBE-FIREWALL: ?drop
    filter KUBE-KUBELET-CANARY:
    filter KUBE-ROUTER-INPUT: ?>KUBE-NWPLCY-DEFAULT
    filter KUBE-NWPLCY-DEFAULT: other
    filter KUBE-POD-FW-4BDGZEWEU32YM75H: ?drop";

#[test]
fn iptables_mode_chains_go_and_chains_that_begin_alike_stay() {
    check(
        &chains(IPTABLES_MODE),
        false,
        expect![[r#"
        17 chains go
        nat PREROUTING: 1 of 1 rules go
        nat OUTPUT: 1 of 1 rules go
        nat POSTROUTING: 1 of 1 rules go
        nat KUBE-KUBELET-CANARY: 0 of 0 rules go
        mangle KUBE-KUBELET-CANARY: 0 of 0 rules go
        mangle KUBE-IPTABLES-HINT: 0 of 0 rules go
        filter INPUT: 3 of 5 rules go
        filter FORWARD: 4 of 4 rules go
        filter OUTPUT: 2 of 3 rules go
        filter KUBE-FIREWALL: 0 of 1 rules go
        filter KUBE-KUBELET-CANARY: 0 of 0 rules go
        filter KUBE-ROUTER-INPUT: 0 of 1 rules go
        filter KUBE-NWPLCY-DEFAULT: 0 of 1 rules go
        filter KUBE-POD-FW-4BDGZEWEU32YM75H: 0 of 1 rules go
    "#]],
    );
}

#[test]
fn iptables_mode_health_checks_stay_if_input_drops() {
    let drops = IPTABLES_MODE.replace("filter INPUT input:", "filter INPUT input!:");
    let kept = Leftovers::among(&chains(&drops), false).kept;
    let [Kept::AcceptingChain { chain, .. }] = &kept[..] else { panic!("{kept:?}") };
    assert_eq!(&**chain, "KUBE-NODEPORTS");
}

#[test]
fn iptables_mode_chain_that_another_program_uses_stays() {
    let used = format!("{IPTABLES_MODE}\n nat CNI-HOSTPORT-SETMARK: >KUBE-MARK-MASQ");
    let leftovers = Leftovers::among(&chains(&used), false);
    let [Kept::ChainInUse { chain, by, .. }] = &leftovers.kept[..] else { panic!("{:?}", leftovers.kept) };
    assert_eq!((&**chain, &**by), ("KUBE-MARK-MASQ", "CNI-HOSTPORT-SETMARK"));
}

#[test]
fn chain_names_of_other_programs_are_not_recognized() {
    let others = [
        "KUBE-KUBELET-CANARY",
        "KUBE-IPTABLES-HINT",
        "KUBE-FIREWALL",
        "KUBE-MARK-DROP",
        "KUBE-ROUTER-INPUT",
        "KUBE-NWPLCY-4BDGZEWEU32YM75H",
        "KUBE-POD-FW-4BDGZEWEU32YM75H",
        // The hash has 16 characters of base 32.
        "KUBE-SVC-4BDGZEWEU32YM75",
        "KUBE-SVC-4BDGZEWEU32YM75H1",
        "KUBE-SEP-4bdgzeweu32ym75h",
        "KUBE-FW-4BDGZEWEU32YM751",
    ];
    for name in others {
        let chain = format!("nat KUBE-SERVICES:\n nat {name}:\n filter {name}:\n mangle {name}:");
        let chains = Leftovers::among(&chains(&chain), true).chains;
        assert_eq!(chains.len(), 1, "{chains:?}");
    }
}

/// A kubelet before 1.28 makes both chains, on a node that kube-proxy's nftables mode serves too.
#[test]
fn kubelet_chains_alone_stay() {
    let kubelet = "nat POSTROUTING other: >KUBE-POSTROUTING\n nat KUBE-POSTROUTING: other\n nat KUBE-MARK-MASQ: other";
    let leftovers = Leftovers::among(&chains(kubelet), false);
    assert!(leftovers.is_empty() && leftovers.rules.is_empty(), "{leftovers:?}");
}

/// The node ran the iptables mode before the ipvs mode.
#[test]
fn chains_of_two_modes_go_together() {
    let chains = chains(&format!("{KUBE_PROXY}{IPTABLES_MODE}"));
    let mut all: Vec<Chain> = Vec::new();
    for chain in chains {
        match all.iter_mut().find(|other| other.id == chain.id) {
            Some(other) => other.rules.extend(chain.rules),
            None => all.push(chain),
        }
    }
    let leftovers = Leftovers::among(&all, true);
    assert_eq!((leftovers.chains.len(), leftovers.kept), (23, vec![]));
    assert_eq!(modes(true, &all, &[Family::V6]).len(), 3);
}
