//! Chains and rules in nftables: reads those of kube-ipvs and of iptables-nft, and removes those of iptables-nft. Rules
//! of other programs can contain any expression. kube-ipvs skips those that it does not know.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use netlink_batch::{
    Error,
    attribute::{array, attributes, find, put, put_text, text},
};

use super::{
    Nft, Table, about,
    chain::{delete_chain, delete_table},
    kind,
    transaction::{Request, Transaction},
};
use crate::{
    linux::netfilter::{self, family_number},
    model::Family,
    takeover::{Base, Chain, ChainId, Hook, Leftovers, NFTABLES_MODE, Rule, SERVICES, TABLES, Verdict},
};

/// The most rules and chains in one transaction, so that it fits one send.
const LARGEST: usize = 1_000;

/// `NFPROTO_INET`.
const INET: u8 = 1;
/// `NF_INET_LOCAL_IN` and `NF_INET_FORWARD`.
const LOCAL_IN: u32 = 1;
const FORWARD: u32 = 2;
/// The name of an iptables match or target (`NFTA_MATCH_NAME`, `NFTA_TARGET_NAME`).
const EXTENSION: u16 = 1;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ChainHead {
    pub(super) table: String,
    pub(super) name: String,
    base: Option<Base>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct RuleHead {
    pub(super) table: String,
    pub(super) chain: String,
    pub(super) userdata: Vec<u8>,
    rule: Rule,
}

impl Nft {
    pub(super) fn chains(&mut self, family: u8) -> Result<Vec<ChainHead>, Error> {
        self.list(kind::GET_CHAIN, &netfilter::header(family), kind::NEW_CHAIN, read_chain)
    }

    pub(super) fn rules_of(&mut self, table: Table, name: &str) -> Result<Vec<RuleHead>, Error> {
        self.list(kind::GET_RULE, &about(table, name), kind::NEW_RULE, read_rule)
    }

    /// The chains, with their rules, of the tables in which kube-proxy has chains.
    pub(in crate::linux) fn foreign_chains(&mut self) -> Result<Vec<Chain>, Error> {
        let mut chains = Vec::new();
        for family in Family::ALL {
            let mut found: BTreeMap<(String, String), Chain> = BTreeMap::new();
            for head in self.chains(family_number(family))? {
                if TABLES.contains(&head.table.as_str()) {
                    let id = ChainId { family, table: head.table.as_str().into(), name: head.name.as_str().into() };
                    found.insert((head.table, head.name), Chain { id, base: head.base, rules: Vec::new() });
                }
            }
            for table in TABLES {
                for RuleHead { table, chain, rule, .. } in self.rules_of(Table::Ip(family), table)? {
                    if let Some(chain) = found.get_mut(&(table, chain)) {
                        chain.rules.push(rule);
                    }
                }
            }
            chains.extend(found.into_values());
        }
        Ok(chains)
    }

    /// The families in which kube-proxy's nftables mode has its table.
    pub(in crate::linux) fn tables_of_kube_proxy(&mut self) -> Result<Vec<Family>, Error> {
        let mut families = Vec::new();
        for family in Family::ALL {
            let header = netfilter::header(family_number(family));
            let name = |bytes: &[u8]| find(bytes, kind::OF_TABLE).map(|name| text(name).into_owned());
            let names = self.list(kind::GET_TABLE, &header, kind::NEW_TABLE, name)?;
            families.extend(names.iter().flatten().any(|name| name == NFTABLES_MODE).then_some(family));
        }
        Ok(families)
    }

    /// The families in which packets reach kube-proxy's chain for Services, in its iptables or ipvs mode.
    pub(in crate::linux) fn reaching_kube_proxy(&mut self) -> Result<Vec<Family>, Error> {
        let (table, services) = SERVICES;
        let mut families = Vec::new();
        for family in Family::ALL {
            let mut request = about(Table::Ip(family), table);
            put_text(&mut request, kind::RULE_CHAIN, "PREROUTING");
            let rules = self.list(kind::GET_RULE, &request, kind::NEW_RULE, read_rule)?;
            let jumps = |head: &RuleHead| {
                let to_services = matches!(&head.rule.verdict, Verdict::Jump(to) if **to == *services);
                head.table == table && head.chain == "PREROUTING" && to_services
            };
            families.extend(rules.iter().any(jumps).then_some(family));
        }
        Ok(families)
    }

    /// Base chains of other programs at the forward hook with the policy drop, such as `ip filter FORWARD`. Chains of
    /// iptables-legacy are not in nftables.
    pub(in crate::linux) fn dropping_at_forward(&mut self) -> Result<Vec<String>, Error> {
        let families = [(family_number(Family::V4), "ip"), (family_number(Family::V6), "ip6"), (INET, "inet")];
        let own = self.settings.names.clone();
        let mut dropping = Vec::new();
        for (family, name) in families {
            let drops = |head: &ChainHead| {
                let drops = |base: Base| base.drops && base.hook == Hook::Forward;
                head.table != own.table() && head.base.is_some_and(drops)
            };
            let chains = self.chains(family)?.into_iter().filter(drops);
            dropping.extend(chains.map(|head| format!("{name} {} {}", head.table, head.name)));
        }
        Ok(dropping)
    }

    /// Removes tables, rules and chains. A transaction is atomic. If they exceed one send, the tables and the rules
    /// that jump to the chains go first.
    pub(in crate::linux) fn remove_foreign(&mut self, leftovers: &Leftovers) -> Result<(), Error> {
        let of = |chain: &ChainId, request| (chain.family, chain.table.clone(), request);
        let tables = leftovers.tables.iter().map(|family| (*family, NFTABLES_MODE.into(), delete_table()));
        let rules = leftovers.rules.iter().map(|(chain, handle)| of(chain, delete_rule(chain, *handle)));
        let emptied = leftovers.chains.iter().map(|chain| of(chain, flush(chain)));
        let removed = leftovers.chains.iter().map(|chain| of(chain, delete_chain(&chain.name)));
        let requests: Vec<_> = tables.chain(rules).chain(emptied).chain(removed).collect();
        for part in requests.chunks(LARGEST) {
            let mut transaction = Transaction::new(&self.settings.names);
            for (family, table, request) in part {
                transaction.delete_foreign(*family, table, request);
            }
            transaction.commit(&mut self.socket)?;
        }
        Ok(())
    }
}

fn delete_rule(chain: &ChainId, handle: u64) -> Request {
    Request::new(kind::DELETE_RULE, |out| {
        put_text(out, kind::RULE_CHAIN, &chain.name);
        put(out, kind::RULE_HANDLE, handle.to_be_bytes());
    })
}

fn flush(chain: &ChainId) -> Request {
    Request::new(kind::DELETE_RULE, |out| put_text(out, kind::RULE_CHAIN, &chain.name))
}

fn read_chain(bytes: &[u8]) -> ChainHead {
    let number = |value| array(value).map(u32::from_be_bytes);
    let mut head = ChainHead::default();
    let (mut hook, mut policy) = (None, None);
    for (kind, value) in attributes(bytes) {
        match kind {
            kind::OF_TABLE => head.table = text(value).into(),
            kind::CHAIN_NAME => head.name = text(value).into(),
            kind::CHAIN_HOOK => hook = find(value, kind::HOOK_NUMBER).and_then(number),
            kind::CHAIN_POLICY => policy = number(value),
            _ => {}
        }
    }
    head.base = hook.map(|number| Base {
        hook: match number {
            LOCAL_IN => Hook::Input,
            FORWARD => Hook::Forward,
            _ => Hook::Other,
        },
        drops: policy == Some(kind::DROP),
    });
    head
}

fn read_rule(bytes: &[u8]) -> RuleHead {
    let rule = Rule { handle: 0, verdict: Verdict::Other, is_conditional: false, uses_set: false };
    let mut head = RuleHead { table: String::new(), chain: String::new(), userdata: Vec::new(), rule };
    for (kind, value) in attributes(bytes) {
        match kind {
            kind::OF_TABLE => head.table = text(value).into(),
            kind::RULE_CHAIN => head.chain = text(value).into(),
            kind::RULE_USER_DATA => head.userdata = value.to_vec(),
            kind::RULE_HANDLE => head.rule.handle = array(value).map_or(0, u64::from_be_bytes),
            kind::RULE_EXPRESSIONS => {
                attributes(value).for_each(|(_, expression)| read_expression(expression, &mut head.rule));
            }
            _ => {}
        }
    }
    head
}

fn read_expression(expression: &[u8], rule: &mut Rule) {
    let name = find(expression, kind::EXPRESSION_NAME).map(text).unwrap_or_default();
    let data = find(expression, kind::EXPRESSION_DATA).unwrap_or_default();
    let extension = find(data, EXTENSION).map(text).unwrap_or_default();
    match &*name {
        "counter" | "log" => {}
        "immediate" => rule.verdict = verdict(data).unwrap_or(Verdict::Other),
        "reject" => rule.verdict = Verdict::Reject,
        "target" => {
            if matches!(&*extension, "REJECT" | "DROP") {
                rule.verdict = Verdict::Reject;
            }
        }
        "match" => match &*extension {
            "comment" => {}
            "set" => (rule.uses_set, rule.is_conditional) = (true, true),
            _ => rule.is_conditional = true,
        },
        _ => rule.is_conditional = true,
    }
}

/// The verdict of an `immediate`; `None` if it loads a register.
fn verdict(data: &[u8]) -> Option<Verdict> {
    let verdict = find(find(data, kind::IMMEDIATE_DATA)?, kind::DATA_VERDICT)?;
    if let Some(chain) = find(verdict, kind::VERDICT_CHAIN) {
        return Some(Verdict::Jump(text(chain).into()));
    }
    let code = find(verdict, kind::VERDICT_CODE).and_then(array).map(u32::from_be_bytes)?;
    (code == kind::DROP).then_some(Verdict::Reject)
}
