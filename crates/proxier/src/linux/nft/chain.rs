//! Chains and rules as values, and the requests that make and remove them.

use netlink_batch::attribute::{nest, put, put_text};

use super::{
    expression::{Expressions, all},
    kind,
    transaction::Request,
    userdata,
};
use crate::linux::Names;

/// One chain with its rules.
pub(super) struct Chain {
    pub(super) name: &'static str,
    base: Option<Base>,
    rules: Vec<Rule>,
    /// What the kernel keeps of its rules for us, in order: a chain that has it is this chain.
    pub(super) userdata: Vec<Vec<u8>>,
}

/// Where a base chain is hooked in. The fingerprints of its rules cover how this prints.
#[derive(Debug)]
struct Base {
    kind: &'static str,
    hook: Hook,
    priority: i32,
}

/// A hook of the kernel (`NF_INET_*`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Hook {
    PreRouting,
    LocalIn,
    Forward,
    LocalOut,
    PostRouting,
    /// One of another family than IPv4 and IPv6.
    Other(u32),
}

impl Hook {
    fn number(self) -> u32 {
        match self {
            Self::PreRouting => 0,
            Self::LocalIn => 1,
            Self::Forward => 2,
            Self::LocalOut => 3,
            Self::PostRouting => 4,
            Self::Other(number) => number,
        }
    }
}

/// One rule: what it does and why.
pub(super) struct Rule {
    expressions: Expressions,
    comment: &'static str,
}

impl Chain {
    /// One that others go to.
    pub(super) fn plain(name: &'static str, rules: Vec<Rule>) -> Self {
        Self::new(name, None, rules)
    }

    /// One that the kernel goes to, at a hook.
    pub(super) fn hooked(name: &'static str, kind: &'static str, hook: Hook, priority: i32, rules: Vec<Rule>) -> Self {
        Self::new(name, Some(Base { kind, hook, priority }), rules)
    }

    fn new(name: &'static str, base: Option<Base>, rules: Vec<Rule>) -> Self {
        let place = format!("{base:?}");
        let userdata = rules.iter().map(|rule| rule.userdata(place.as_bytes())).collect();
        Self { name, base, rules, userdata }
    }

    /// The request that makes it, if it is not there.
    pub(super) fn message(&self) -> Request {
        Request::new(kind::NEW_CHAIN, |out| {
            put_text(out, kind::CHAIN_NAME, self.name);
            if let Some(Base { kind, hook, priority }) = &self.base {
                nest(out, kind::CHAIN_HOOK, |out| {
                    put(out, kind::HOOK_NUMBER, hook.number().to_be_bytes());
                    put(out, kind::HOOK_PRIORITY, priority.to_be_bytes());
                });
                put_text(out, kind::CHAIN_TYPE, kind);
            }
        })
    }

    /// The requests that add its rules, in order.
    pub(super) fn rules(&self) -> impl Iterator<Item = Request> {
        self.rules.iter().zip(&self.userdata).map(|(rule, userdata)| {
            Request::new(kind::NEW_RULE, |out| {
                put_text(out, kind::RULE_CHAIN, self.name);
                nest(out, kind::RULE_EXPRESSIONS, |out| out.extend(rule.expressions.bytes()));
                put(out, kind::RULE_USER_DATA, userdata);
            })
        })
    }
}

impl Rule {
    pub(super) fn new<const N: usize>(comment: &'static str, expressions: [Expressions; N]) -> Self {
        Self { expressions: all(expressions), comment }
    }

    /// Its comment and its fingerprint, which covers where its chain is hooked in too: a rule in the kernel that has
    /// both is this rule in this place.
    fn userdata(&self, place: &[u8]) -> Vec<u8> {
        let bytes = [self.expressions.bytes(), place].concat();
        userdata::rule(self.comment, userdata::fingerprint(&bytes))
    }
}

/// The request that makes the table, if it is not there.
pub(super) fn table(names: &Names) -> Request {
    // The command knows the default names only.
    let comment = match *names == Names::default() {
        true => "made by kube-ipvs; remove with: kube-ipvs cleanup",
        false => "made by a program that embeds proxier",
    };
    let comment = userdata::comment(0, comment);
    Request::new(kind::NEW_TABLE, |out| put(out, kind::TABLE_USER_DATA, comment))
}

/// The request that empties all chains.
pub(super) fn flush() -> Request {
    Request::new(kind::DELETE_RULE, |_| {})
}

/// The request that removes an empty chain.
pub(super) fn delete_chain(name: &str) -> Request {
    Request::new(kind::DELETE_CHAIN, |out| put_text(out, kind::CHAIN_NAME, name))
}

/// The request that removes the table with all that is in it.
pub(super) fn delete_table() -> Request {
    Request::new(kind::DELETE_TABLE, |_| {})
}
