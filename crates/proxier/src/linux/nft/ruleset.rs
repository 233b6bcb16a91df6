//! The rules. They are the same whatever the number of Services: all that varies are set elements.

use netlink_packet_core::Emitable;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Expressions, Hook, HookNumber, InetHookNumber, ListAttribute,
    NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute, SetFlags, SetMessage, TableAttribute,
    TableMessage,
};

use super::{TABLE, expression::*, userdata};
use crate::{
    model::{Family, Protocol},
    set::{KeySet, VIPS},
};

/// Sources that are in the cluster: pods.
pub(super) const CLUSTER_SOURCES: &str = "cluster-sources";

/// The port at which nobody listens, `tcpmux`.
const CLOSED_PORT: u16 = 1;

/// What the rules depend on beside their sets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// The bit of the packet mark that asks for masquerade.
    pub(super) masquerade_mark: u32,
    /// Whether `cluster-sources` says who is in the cluster. Where nothing does, nobody is known to be
    /// outside, and traffic to ClusterIPs keeps its source.
    pub(super) knows_cluster_sources: bool,
}

/// One chain with its rules.
pub(super) struct Chain {
    pub(super) name: &'static str,
    base: Option<Base>,
    pub(super) rules: Vec<Rule>,
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

/// All chains of one family, those first that others refer to.
pub(super) fn chains(family: Family, settings: Settings) -> Vec<Chain> {
    let served =
        |verdict| Rule::new("a virtual server of ours", [key_in(family, KeySet::Served), vec![verdict]]);
    let mark = set_mark(settings.masquerade_mark);
    let refuse = vec![
        Rule::new("SCTP goes on to nat-out", [protocol_is(Protocol::Sctp), vec![accept()]]),
        // TCP ignores an ICMP error while the client's own connect() is still on the stack, as between two
        // namespaces of one host, and then tries again after a second; hosts also limit their rate.
        Rule::new("TCP by a reset", [protocol_is(Protocol::Tcp), vec![counter(), reset()]]),
        Rule::new("UDP by ICMP", [vec![counter(), reject(family)]]),
    ];
    // Linux's SCTP does not listen to ICMP errors about ports, but to an abort, which the node's own stack gives at
    // a port that is closed.
    let refuse_sctp = || {
        let no_endpoints = key_in(family, KeySet::NoEndpoints);
        let to_closed = [vec![counter()], dnat_to_port(family, CLOSED_PORT)].concat();
        let abort = [protocol_is(Protocol::Sctp), no_endpoints, to_closed];
        vec![Rule::new("SCTP without endpoints: aborted by the node itself", abort)]
    };
    let mut to_service = vec![
        no_endpoints(family),
        Rule::new("node ports: always masquerade", [key_in(family, KeySet::NodePorts), mark.clone()]),
    ];
    if settings.knows_cluster_sources {
        to_service.push(Rule::new(
            "ClusterIPs: masquerade what comes from outside the cluster",
            [
                vec![source_address(family), is_not_in(CLUSTER_SOURCES)],
                key_in(family, KeySet::ClusterIps),
                mark.clone(),
            ],
        ));
    }
    let from_node = vec![
        no_endpoints(family),
        Rule::new(
            "a node process takes the VIP itself as its source: masquerade",
            [vec![source_address(family), is_in(VIPS)], mark],
        ),
    ];
    let marked = mark_has(settings.masquerade_mark);
    let masquerade =
        vec![Rule::new("asked for by the mark", [marked.clone(), vec![counter(), masquerade()]])];
    // In a chain of its own: the nat chain sees the first packet of a connection only, and later ones would
    // leave the node marked.
    let clear = vec![Rule::new("ours alone to see", [marked, clear_mark(settings.masquerade_mark)])];
    use InetHookNumber::{LocalIn, LocalOut, PostRouting, PreRouting};
    vec![
        Chain { name: "refuse", base: None, rules: refuse },
        Chain { name: "to-service", base: None, rules: to_service },
        Chain { name: "from-node", base: None, rules: from_node },
        Chain::hooked("nat-in", "nat", PreRouting, -100, refuse_sctp()),
        Chain::hooked("nat-out", "nat", LocalOut, -100, refuse_sctp()),
        // IPVS sits at 98 and 99 in input and at -99 and -98 in output: ours come before.
        Chain::hooked("input", "filter", LocalIn, 90, vec![served(goto("to-service"))]),
        Chain::hooked("output", "filter", LocalOut, -150, vec![served(jump("from-node"))]),
        Chain::hooked("masquerade", "nat", PostRouting, 100, masquerade),
        Chain::hooked("clear-mark", "filter", PostRouting, 110, clear),
    ]
}

fn key_in(family: Family, set: KeySet) -> Vec<Expressions> {
    let mut expressions = destination_key(family);
    expressions.push(is_in(set.name()));
    expressions
}

fn no_endpoints(family: Family) -> Rule {
    let refuse = vec![goto("refuse")];
    Rule::new("no endpoints: refuse at once", [key_in(family, KeySet::NoEndpoints), state_new(), refuse])
}

impl Chain {
    fn hooked(
        name: &'static str,
        kind: &'static str,
        hook: InetHookNumber,
        priority: i32,
        rules: Vec<Rule>,
    ) -> Self {
        Self { name, base: Some(Base { kind, hook, priority }), rules }
    }

    /// The request that makes it, if it is not there.
    pub(super) fn message(&self) -> NfTablesMessage {
        let mut attributes =
            vec![ChainAttribute::Table(TABLE.into()), ChainAttribute::Name(self.name.into())];
        if let Some(Base { kind, hook, priority }) = &self.base {
            let hook = vec![Hook::Number(HookNumber::Inet(*hook)), Hook::Priority(*priority as u32)];
            attributes.push(ChainAttribute::Hook(hook));
            attributes.push(ChainAttribute::Type((*kind).into()));
        }
        NfTablesMessage::NewChain(ChainMessage { attributes })
    }

    /// What the kernel keeps of its rules for us, in order: a chain that has it is this chain.
    pub(super) fn userdata(&self) -> Vec<Vec<u8>> {
        self.rules.iter().map(|rule| rule.userdata(self)).collect()
    }
}

impl Rule {
    fn new<const N: usize>(comment: &'static str, expressions: [Vec<Expressions>; N]) -> Self {
        Self { expressions: expressions.concat(), comment }
    }

    /// The request that adds it to its chain.
    pub(super) fn message(&self, chain: &Chain) -> NfTablesMessage {
        NfTablesMessage::NewRule(RuleMessage {
            attributes: vec![
                RuleAttribute::Table(TABLE.into()),
                RuleAttribute::Chain(chain.name.into()),
                RuleAttribute::Expressions(self.list()),
                RuleAttribute::UserData(self.userdata(chain)),
            ],
        })
    }

    /// Its comment and its fingerprint, which covers where its chain is hooked in too: a rule in the kernel that has both
    /// is this rule in this place.
    fn userdata(&self, chain: &Chain) -> Vec<u8> {
        let list = self.list();
        let mut bytes = vec![0; list.as_slice().buffer_len()];
        list.as_slice().emit(&mut bytes);
        bytes.extend(format!("{:?}", chain.base).bytes());
        userdata::rule(self.comment, userdata::fingerprint(&bytes))
    }

    fn list(&self) -> Vec<ListAttribute<netlink_packet_netfilter::nftables::ExpressionAttribute>> {
        self.expressions.iter().cloned().map(ListAttribute::from).collect()
    }
}

/// The request that makes the table, if it is not there.
pub(super) fn table() -> NfTablesMessage {
    NfTablesMessage::NewTable(TableMessage {
        attributes: vec![
            TableAttribute::Name(TABLE.into()),
            TableAttribute::UserData(userdata::comment(
                0,
                "made by kube-ipvs; remove with: kube-ipvs cleanup",
            )),
        ],
    })
}

/// The request that empties all chains.
pub(super) fn flush() -> NfTablesMessage {
    NfTablesMessage::DeleteRule(RuleMessage { attributes: vec![RuleAttribute::Table(TABLE.into())] })
}

/// The request that removes an empty chain.
pub(super) fn delete_chain(name: &str) -> NfTablesMessage {
    let attributes = vec![ChainAttribute::Table(TABLE.into()), ChainAttribute::Name(name.into())];
    NfTablesMessage::DeleteChain(ChainMessage { attributes })
}

/// The request that removes the table with all that is in it.
pub(super) fn delete_table() -> NfTablesMessage {
    NfTablesMessage::DeleteTable(TableMessage { attributes: vec![TableAttribute::Name(TABLE.into())] })
}

/// The requests that make the sets, if they are not there.
pub(super) fn sets(family: Family) -> Vec<NfTablesMessage> {
    // Numbers of nft's own data types, by which its tool knows how to print an element.
    const IPV4_ADDRESS: u32 = 7;
    const IPV6_ADDRESS: u32 = 8;
    const PROTOCOL: u32 = 12;
    const SERVICE: u32 = 13;
    let (address, length) = match family {
        Family::V4 => (IPV4_ADDRESS, 4),
        Family::V6 => (IPV6_ADDRESS, 16),
    };
    let key = (address << 12 | PROTOCOL << 6 | SERVICE, length + 8);
    let comment = |set| match set {
        KeySet::Served => "virtual servers that kube-ipvs made, and for which Service port",
        KeySet::NodePorts => "always masqueraded",
        KeySet::ClusterIps => "masqueraded from outside the cluster",
        KeySet::NoEndpoints => "new connections are refused",
    };
    let of_keys = |kind: KeySet| set(kind.name(), key, SetFlags::empty(), comment(kind));
    let mut sets: Vec<_> = KeySet::ALL.into_iter().map(of_keys).collect();
    sets.push(set(
        VIPS,
        (address, length),
        SetFlags::empty(),
        "addresses that kube-ipvs bound to kube-ipvs0",
    ));
    sets.push(set(CLUSTER_SOURCES, (address, length), SetFlags::Interval, "pods"));
    sets
}

fn set(name: &str, (key_type, key_length): (u32, u32), flags: SetFlags, comment: &str) -> NfTablesMessage {
    NfTablesMessage::NewSet(SetMessage {
        attributes: vec![
            SetAttribute::Table(TABLE.into()),
            SetAttribute::Name(name.into()),
            SetAttribute::Flags(flags),
            SetAttribute::KeyType(key_type),
            SetAttribute::KeyLen(key_length),
            // Any number tells sets of one transaction apart; they are referred to by name.
            SetAttribute::Id(1),
            SetAttribute::UserData(userdata::comment(userdata::SET_COMMENT, comment)),
        ],
    })
}
