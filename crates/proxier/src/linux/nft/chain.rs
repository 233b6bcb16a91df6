//! Chains and rules as values, and the requests that make and remove them.

use netlink_packet_core::Emitable;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, ExpressionAttribute, Expressions, Hook, HookNumber, InetHookNumber,
    ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage, TableAttribute, TableMessage,
};

use super::userdata;
use crate::linux::Names;

/// One chain with its rules.
pub(super) struct Chain {
    pub(super) name: &'static str,
    base: Option<Base>,
    rules: Vec<Rule>,
    /// What the kernel keeps of its rules for us, in order: a chain that has it is this chain.
    pub(super) userdata: Vec<Vec<u8>>,
}

/// Where a base chain is hooked in.
#[derive(Debug)]
struct Base {
    kind: &'static str,
    hook: InetHookNumber,
    priority: i32,
}

/// One rule: what it does and why.
pub(super) struct Rule {
    expressions: Vec<Expressions>,
    comment: &'static str,
}

impl Chain {
    /// One that others go to.
    pub(super) fn plain(name: &'static str, rules: Vec<Rule>) -> Self {
        Self::new(name, None, rules)
    }

    /// One that the kernel goes to, at a hook.
    pub(super) fn hooked(
        name: &'static str,
        kind: &'static str,
        hook: InetHookNumber,
        priority: i32,
        rules: Vec<Rule>,
    ) -> Self {
        Self::new(name, Some(Base { kind, hook, priority }), rules)
    }

    fn new(name: &'static str, base: Option<Base>, rules: Vec<Rule>) -> Self {
        let place = format!("{base:?}");
        let userdata = rules.iter().map(|rule| rule.userdata(place.as_bytes())).collect();
        Self { name, base, rules, userdata }
    }

    /// The request that makes it, if it is not there.
    pub(super) fn message(&self, table: &str) -> NfTablesMessage {
        let mut attributes =
            vec![ChainAttribute::Table(table.into()), ChainAttribute::Name(self.name.into())];
        if let Some(Base { kind, hook, priority }) = &self.base {
            let hook = vec![Hook::Number(HookNumber::Inet(*hook)), Hook::Priority(*priority as u32)];
            attributes.push(ChainAttribute::Hook(hook));
            attributes.push(ChainAttribute::Type((*kind).into()));
        }
        NfTablesMessage::NewChain(ChainMessage { attributes })
    }

    /// The requests that add its rules, in order.
    pub(super) fn rules(&self, table: &str) -> impl Iterator<Item = NfTablesMessage> {
        self.rules.iter().zip(&self.userdata).map(move |(rule, userdata)| {
            NfTablesMessage::NewRule(RuleMessage {
                attributes: vec![
                    RuleAttribute::Table(table.into()),
                    RuleAttribute::Chain(self.name.into()),
                    RuleAttribute::Expressions(rule.list()),
                    RuleAttribute::UserData(userdata.clone()),
                ],
            })
        })
    }
}

impl Rule {
    pub(super) fn new<const N: usize>(comment: &'static str, expressions: [Vec<Expressions>; N]) -> Self {
        Self { expressions: expressions.concat(), comment }
    }

    /// Its comment and its fingerprint, which covers where its chain is hooked in too: a rule in the kernel that has
    /// both is this rule in this place.
    fn userdata(&self, place: &[u8]) -> Vec<u8> {
        let list = self.list();
        let mut bytes = vec![0; list.as_slice().buffer_len()];
        list.as_slice().emit(&mut bytes);
        bytes.extend(place);
        userdata::rule(self.comment, userdata::fingerprint(&bytes))
    }

    fn list(&self) -> Vec<ListAttribute<ExpressionAttribute>> {
        self.expressions.iter().cloned().map(ListAttribute::from).collect()
    }
}

/// The request that makes the table, if it is not there.
pub(super) fn table(names: &Names) -> NfTablesMessage {
    // The command knows the default names only.
    let comment = match *names == Names::default() {
        true => "made by kube-ipvs; remove with: kube-ipvs cleanup",
        false => "made by a program that embeds proxier",
    };
    NfTablesMessage::NewTable(TableMessage {
        attributes: vec![
            TableAttribute::Name(names.table().into()),
            TableAttribute::UserData(userdata::comment(0, comment)),
        ],
    })
}

/// The request that empties all chains.
pub(super) fn flush(table: &str) -> NfTablesMessage {
    NfTablesMessage::DeleteRule(RuleMessage { attributes: vec![RuleAttribute::Table(table.into())] })
}

/// The request that removes an empty chain.
pub(super) fn delete_chain(table: &str, name: &str) -> NfTablesMessage {
    let attributes = vec![ChainAttribute::Table(table.into()), ChainAttribute::Name(name.into())];
    NfTablesMessage::DeleteChain(ChainMessage { attributes })
}

/// The request that removes the table with all that is in it.
pub(super) fn delete_table(name: &str) -> NfTablesMessage {
    NfTablesMessage::DeleteTable(TableMessage { attributes: vec![TableAttribute::Name(name.into())] })
}
