//! Chains and rules, and the requests that make and remove them.

use netlink_batch::attribute::{nest, put, put_text};

use super::{
    expression::{Expressions, all},
    kind,
    transaction::Request,
    userdata,
};
use crate::linux::Names;

pub(super) struct Chain {
    pub(super) name: &'static str,
    base: Option<Base>,
    rules: Vec<Rule>,
    /// The expected user data of its rules, in order. A chain in the kernel with this user data is up to date.
    pub(super) userdata: Vec<Vec<u8>>,
}

/// The hook of a base chain. The fingerprints of its rules cover its `Debug` output.
#[derive(Debug)]
struct Base {
    kind: &'static str,
    hook: Hook,
    priority: i32,
}

/// `NF_INET_*`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hook {
    PreRouting,
    LocalIn,
    Forward,
    LocalOut,
    PostRouting,
    /// A hook of another family than IPv4 and IPv6.
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

pub(super) struct Rule {
    expressions: Expressions,
    comment: &'static str,
}

impl Chain {
    pub(super) fn plain(name: &'static str, rules: Vec<Rule>) -> Self {
        Self::new(name, None, rules)
    }

    pub(super) fn hooked(name: &'static str, kind: &'static str, hook: Hook, priority: i32, rules: Vec<Rule>) -> Self {
        Self::new(name, Some(Base { kind, hook, priority }), rules)
    }

    fn new(name: &'static str, base: Option<Base>, rules: Vec<Rule>) -> Self {
        let place = format!("{base:?}");
        let userdata = rules.iter().map(|rule| rule.userdata(place.as_bytes())).collect();
        Self { name, base, rules, userdata }
    }

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

    /// The comment and the fingerprint, which also covers the hook of the chain. A rule in the kernel with both is this
    /// rule at this hook.
    fn userdata(&self, place: &[u8]) -> Vec<u8> {
        let bytes = [self.expressions.bytes(), place].concat();
        userdata::rule(self.comment, userdata::fingerprint(&bytes))
    }
}

pub(super) fn table(names: &Names) -> Request {
    // The command `kube-ipvs cleanup` knows only the default names.
    let comment = match *names == Names::default() {
        true => "made by kube-ipvs; remove with: kube-ipvs cleanup",
        false => "made by a program that embeds proxier",
    };
    let comment = userdata::comment(0, comment);
    Request::new(kind::NEW_TABLE, |out| put(out, kind::TABLE_USER_DATA, comment))
}

/// The request that removes all rules of the table.
pub(super) fn flush() -> Request {
    Request::new(kind::DELETE_RULE, |_| {})
}

pub(super) fn delete_chain(name: &str) -> Request {
    Request::new(kind::DELETE_CHAIN, |out| put_text(out, kind::CHAIN_NAME, name))
}

pub(super) fn delete_table() -> Request {
    Request::new(kind::DELETE_TABLE, |_| {})
}
