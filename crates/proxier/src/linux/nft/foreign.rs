//! Chains that iptables made in nftables, read and removed, and the reading of our own. kube-ipvs parses rules itself,
//! because another program's rule can contain any expression. If the library did not understand one of them, the whole
//! list would be lost.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, convert::Infallible};

use netlink_batch::Error;
use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily, NetfilterSubsystem,
    nftables::{ChainAttribute, ChainMessage, NfTablesMessage, RuleAttribute, RuleMessage},
};

use super::{Nft, Table, attributes, message, transaction::Transaction};
use crate::{
    model::Family,
    takeover::{Base, Chain, ChainId, Hook, Leftovers, Rule, TABLES, Verdict},
};

/// Length of `struct nfgenmsg`.
const HEADER: usize = 4;
/// `NFT_MSG_NEWCHAIN` and `NFT_MSG_NEWRULE`.
const NEW_CHAIN: u8 = 3;
const NEW_RULE: u8 = 6;
/// The most rules and chains in one transaction, so that it fits one send.
const LARGEST: usize = 1_000;

/// The attributes of chains (`NFTA_CHAIN_*`, `NFTA_HOOK_*`).
mod chain {
    pub(super) const TABLE: u16 = 1;
    pub(super) const NAME: u16 = 3;
    pub(super) const HOOK: u16 = 4;
    pub(super) const POLICY: u16 = 5;
    pub(super) const HOOK_NUMBER: u16 = 1;
    /// `NF_INET_LOCAL_IN` and `NF_INET_FORWARD`.
    pub(super) const LOCAL_IN: u32 = 1;
    pub(super) const FORWARD: u32 = 2;
}

/// The attributes of rules (`NFTA_RULE_*`, `NFTA_EXPR_*`, and those of the expressions that matter).
mod rule {
    pub(super) const TABLE: u16 = 1;
    pub(super) const CHAIN: u16 = 2;
    pub(super) const HANDLE: u16 = 3;
    pub(super) const EXPRESSIONS: u16 = 4;
    pub(super) const USER_DATA: u16 = 7;
    pub(super) const NAME: u16 = 1;
    pub(super) const DATA: u16 = 2;
    /// Of `match` and `target`, which are iptables' own.
    pub(super) const EXTENSION: u16 = 1;
    /// Of `immediate`: the data, in it the verdict, in it the code and the chain.
    pub(super) const IMMEDIATE: u16 = 2;
    pub(super) const VERDICT: u16 = 2;
    pub(super) const CODE: u16 = 1;
    pub(super) const TO: u16 = 2;
    /// `NF_DROP`.
    pub(super) const DROP: i32 = 0;
}

/// A request for a list of chains or rules, or one of them.
pub(super) enum Listed {
    Request(Box<NetfilterMessage>),
    Chain(ChainHead),
    Rule(RuleHead),
    Other,
}

/// A chain without its rules.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ChainHead {
    pub(super) table: String,
    pub(super) name: String,
    base: Option<Base>,
}

/// A rule and where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RuleHead {
    pub(super) table: String,
    pub(super) chain: String,
    pub(super) userdata: Vec<u8>,
    rule: Rule,
}

impl Nft {
    /// The chains of the tables that kube-proxy has chains in, with their rules.
    pub(in crate::linux) fn foreign_chains(&mut self) -> Result<Vec<Chain>, Error> {
        let mut chains = Vec::new();
        for family in Family::ALL {
            let request = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
            let listed = self.list(|| Listed::request(Table::Ip(family), request.clone()))?;
            let mut found: BTreeMap<(String, String), Chain> = BTreeMap::new();
            for head in listed.into_iter().filter_map(Listed::chain) {
                if TABLES.contains(&head.table.as_str()) {
                    let id = ChainId {
                        family,
                        table: head.table.as_str().into(),
                        name: head.name.as_str().into(),
                    };
                    found.insert((head.table, head.name), Chain { id, base: head.base, rules: Vec::new() });
                }
            }
            for table in TABLES {
                let attributes = vec![RuleAttribute::Table(table.into())];
                let request = NfTablesMessage::GetRule(RuleMessage { attributes });
                let listed = self.list(|| Listed::request(Table::Ip(family), request.clone()))?;
                for RuleHead { table, chain, rule, .. } in listed.into_iter().filter_map(Listed::rule) {
                    if let Some(chain) = found.get_mut(&(table, chain)) {
                        chain.rules.push(rule);
                    }
                }
            }
            chains.extend(found.into_values());
        }
        Ok(chains)
    }

    /// The chains of others that drop what they forward, unless a rule accepts it: `ip filter FORWARD`. Those of
    /// iptables-legacy are not in nftables.
    pub(in crate::linux) fn dropping_at_forward(&mut self) -> Result<Vec<String>, Error> {
        use NetfilterProtoFamily::{IPv4, IPv6, Inet};
        let own = self.settings.names.clone();
        let mut dropping = Vec::new();
        for (family, name) in [(IPv4, "ip"), (IPv6, "ip6"), (Inet, "inet")] {
            let request = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
            let header = || NetfilterHeader::new(family, 0, 0);
            let listed =
                self.list(|| Listed::Request(NetfilterMessage::new(header(), request.clone()).into()))?;
            let drops = |head: &ChainHead| {
                head.table != own.table()
                    && head.base.is_some_and(|base| base.drops && base.hook == Hook::Forward)
            };
            let chains = listed.into_iter().filter_map(Listed::chain).filter(drops);
            dropping.extend(chains.map(|head| format!("{name} {} {}", head.table, head.name)));
        }
        Ok(dropping)
    }

    /// Removes rules and chains: all, or none and the kernel says why. Where there are so many that they do not fit
    /// one send, the rules that lead to the chains go first.
    pub(in crate::linux) fn remove_foreign(&mut self, leftovers: &Leftovers) -> Result<(), Error> {
        let rules = leftovers.rules.iter().map(|(chain, handle)| (chain.family, delete_rule(chain, *handle)));
        let emptied = leftovers.chains.iter().map(|chain| (chain.family, flush(chain)));
        let removed = leftovers.chains.iter().map(|chain| (chain.family, delete_chain(chain)));
        let requests: Vec<_> = rules.chain(emptied).chain(removed).collect();
        for part in requests.chunks(LARGEST) {
            let mut transaction = Transaction::new();
            part.iter().for_each(|(family, request)| transaction.delete_foreign(*family, request.clone()));
            transaction.commit(&mut self.socket)?;
        }
        Ok(())
    }
}

fn delete_rule(chain: &ChainId, handle: u64) -> NfTablesMessage {
    NfTablesMessage::DeleteRule(RuleMessage {
        attributes: vec![
            RuleAttribute::Table(chain.table.to_string()),
            RuleAttribute::Chain(chain.name.to_string()),
            RuleAttribute::Handle(handle),
        ],
    })
}

fn flush(chain: &ChainId) -> NfTablesMessage {
    let (table, chain) = (chain.table.to_string(), chain.name.to_string());
    NfTablesMessage::DeleteRule(RuleMessage {
        attributes: vec![RuleAttribute::Table(table), RuleAttribute::Chain(chain)],
    })
}

fn delete_chain(chain: &ChainId) -> NfTablesMessage {
    let (table, name) = (chain.table.to_string(), chain.name.to_string());
    NfTablesMessage::DeleteChain(ChainMessage {
        attributes: vec![ChainAttribute::Table(table), ChainAttribute::Name(name)],
    })
}

impl Listed {
    pub(super) fn request(table: Table, request: NfTablesMessage) -> Self {
        Self::Request(message(table, request).into())
    }

    pub(super) fn chain(self) -> Option<ChainHead> {
        match self {
            Self::Chain(chain) => Some(chain),
            _ => None,
        }
    }

    pub(super) fn rule(self) -> Option<RuleHead> {
        match self {
            Self::Rule(rule) => Some(rule),
            _ => None,
        }
    }
}

impl NetlinkSerializable for Listed {
    fn message_type(&self) -> u16 {
        match self {
            Self::Request(request) => request.message_type(),
            Self::Chain(_) | Self::Rule(_) | Self::Other => 0,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::Request(request) => request.buffer_len(),
            Self::Chain(_) | Self::Rule(_) | Self::Other => 0,
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Self::Request(request) = self {
            request.serialize(buffer);
        }
    }
}

impl NetlinkDeserializable for Listed {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        let [subsystem, kind] = header.message_type.to_be_bytes();
        let bytes = payload.get(HEADER..).unwrap_or_default();
        Ok(match kind {
            _ if subsystem != u8::from(NetfilterSubsystem::NfTables) => Self::Other,
            NEW_CHAIN => Self::Chain(read_chain(bytes)),
            NEW_RULE => Self::Rule(read_rule(bytes)),
            _ => Self::Other,
        })
    }
}

fn read_chain(bytes: &[u8]) -> ChainHead {
    let mut head = ChainHead::default();
    let (mut hook, mut policy) = (None, None);
    for (kind, value) in attributes(bytes) {
        match kind {
            chain::TABLE => head.table = text(value),
            chain::NAME => head.name = text(value),
            chain::HOOK => {
                hook = find(value, chain::HOOK_NUMBER).and_then(number);
            }
            chain::POLICY => policy = number(value),
            _ => {}
        }
    }
    head.base = hook.map(|number| Base {
        hook: match number {
            chain::LOCAL_IN => Hook::Input,
            chain::FORWARD => Hook::Forward,
            _ => Hook::Other,
        },
        drops: policy == Some(rule::DROP as u32),
    });
    head
}

fn read_rule(bytes: &[u8]) -> RuleHead {
    let rule = Rule { handle: 0, verdict: Verdict::Other, is_conditional: false, uses_set: false };
    let mut head = RuleHead { table: String::new(), chain: String::new(), userdata: Vec::new(), rule };
    for (kind, value) in attributes(bytes) {
        match kind {
            rule::TABLE => head.table = text(value),
            rule::CHAIN => head.chain = text(value),
            rule::USER_DATA => head.userdata = value.to_vec(),
            rule::HANDLE => head.rule.handle = value.first_chunk().copied().map_or(0, u64::from_be_bytes),
            rule::EXPRESSIONS => {
                attributes(value).for_each(|(_, expression)| read_expression(expression, &mut head.rule));
            }
            _ => {}
        }
    }
    head
}

fn read_expression(expression: &[u8], rule: &mut Rule) {
    let name = find(expression, rule::NAME).map(text).unwrap_or_default();
    let data = find(expression, rule::DATA).unwrap_or_default();
    let extension = || find(data, rule::EXTENSION).map(text).unwrap_or_default();
    match name.as_str() {
        "counter" | "log" => {}
        "immediate" => rule.verdict = verdict(data).unwrap_or(Verdict::Other),
        "reject" => rule.verdict = Verdict::Refuse,
        "target" => {
            if matches!(extension().as_str(), "REJECT" | "DROP") {
                rule.verdict = Verdict::Refuse;
            }
        }
        "match" => match extension().as_str() {
            "comment" => {}
            "set" => (rule.uses_set, rule.is_conditional) = (true, true),
            _ => rule.is_conditional = true,
        },
        _ => rule.is_conditional = true,
    }
}

/// The verdict of an `immediate`, if it has one: it can also load a register.
fn verdict(data: &[u8]) -> Option<Verdict> {
    let verdict = find(find(data, rule::IMMEDIATE)?, rule::VERDICT)?;
    if let Some(chain) = find(verdict, rule::TO) {
        return Some(Verdict::Jump(text(chain).into()));
    }
    let code = find(verdict, rule::CODE).and_then(number)?.cast_signed();
    (code == rule::DROP).then_some(Verdict::Refuse)
}

fn find(nest: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(nest).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_be_bytes)
}
