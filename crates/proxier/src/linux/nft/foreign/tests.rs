//! Messages of Linux 6.18 about the following commands of iptables 1.8.9, table `filter`:
//!
//! ```text
//! iptables-nft -N KUBE-X; iptables-nft -P FORWARD DROP
//! iptables-nft -A KUBE-X -m comment --comment hello -m conntrack --ctstate NEW -j REJECT
//! iptables-nft -A KUBE-X -m mark --mark 0x4000/0x4000 -j ACCEPT
//! iptables-nft -A KUBE-X -m comment --comment final -j DROP
//! iptables-nft -A FORWARD -m comment --comment k -j KUBE-X
//! iptables-nft -A FORWARD -j REJECT
//! iptables-nft -A INPUT -m set --match-set a src -j RETURN
//! ```

use expect_test::expect;

use super::*;
use crate::linux::{
    Names,
    netfilter::{NFTABLES, message_type},
};

const CAPTURED: &str = include_str!("captured.hex");

fn captured() -> Vec<(u16, Vec<u8>)> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let lines = CAPTURED.lines().map(|line| line.split_once(' ').unwrap());
    lines
        .map(|(kind, bytes)| {
            let bytes = bytes.as_bytes().chunks(2).map(byte).collect();
            (u16::from_str_radix(kind, 16).unwrap(), bytes)
        })
        .collect()
}

fn read<T>(kind: u8, read: fn(&[u8]) -> T) -> Vec<T> {
    let all = captured().into_iter().filter(|(of, _)| *of == message_type(NFTABLES, kind));
    all.map(|(_, bytes)| read(netfilter::attributes(&bytes))).collect()
}

#[test]
fn iptables_chains_are_read_with_hook_and_policy() {
    let head = |name: &str, base: Option<(Hook, bool)>| ChainHead {
        table: "filter".into(),
        name: name.into(),
        base: base.map(|(hook, drops)| Base { hook, drops }),
    };
    let forward = head("FORWARD", Some((Hook::Forward, true)));
    let input = head("INPUT", Some((Hook::Input, false)));
    assert_eq!(read(kind::NEW_CHAIN, read_chain), [head("KUBE-X", None), forward, input]);
}

#[test]
fn iptables_rules_are_read_with_verdict_and_conditions() {
    let rule = |chain: &str, handle, verdict, is_conditional, uses_set| RuleHead {
        table: "filter".into(),
        chain: chain.into(),
        userdata: Vec::new(),
        rule: Rule { handle, verdict, is_conditional, uses_set },
    };
    assert_eq!(
        read(kind::NEW_RULE, read_rule),
        [
            rule("KUBE-X", 2, Verdict::Reject, true, false),
            rule("KUBE-X", 3, Verdict::Other, true, false),
            rule("KUBE-X", 4, Verdict::Reject, false, false),
            rule("FORWARD", 6, Verdict::Jump("KUBE-X".into()), false, false),
            rule("FORWARD", 7, Verdict::Reject, false, false),
            rule("INPUT", 2, Verdict::Other, true, true),
        ]
    );
}

#[test]
fn truncated_chain_and_rule_messages_do_not_panic() {
    for (_, bytes) in captured() {
        for end in 0..bytes.len() {
            let bytes = netfilter::attributes(&bytes[..end]);
            let _ = (read_chain(bytes), read_rule(bytes));
        }
    }
}

#[test]
fn removal_requests_of_foreign_chains_match_snapshot() {
    let chain = ChainId { family: Family::V6, table: "filter".into(), name: "KUBE-X".into() };
    let names = Names::default();
    let mut transaction = Transaction::new(&names);
    for request in [delete_rule(&chain, 258), flush(&chain), delete_chain(&chain.name)] {
        transaction.delete_foreign(chain.family, &chain.table, &request);
    }
    expect![[r#"
        010 001
            0000000a
        a08 001
            0a0000000b00010066696c74657200000b0002004b5542452d5800000c0003000000000000000102
        a08 001
            0a0000000b00010066696c74657200000b0002004b5542452d580000
        a05 001
            0a0000000b00010066696c74657200000b0003004b5542452d580000
    "#]]
    .assert_eq(&super::super::bytes::hex(&transaction));
}

#[test]
fn mutated_chains_and_rules_are_read_without_panic() {
    let seeds = captured().into_iter().map(|(_, bytes)| bytes);
    fuzz::fuzz("nft-foreign", seeds, |bytes| {
        let bytes = netfilter::attributes(bytes);
        let _ = (read_chain(bytes), read_rule(bytes));
    });
}
