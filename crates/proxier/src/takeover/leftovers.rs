use std::collections::{BTreeMap, BTreeSet};

use super::{
    Kept,
    names::{self, FORWARD, KUBELETS_MARK, MARK_MASQ, NODE_PORT, NODE_PORTS, POSTROUTING},
};
use crate::model::Family;

/// A chain of iptables-nft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) id: ChainId,
    /// `None` for a chain without a hook.
    pub(crate) base: Option<Base>,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChainId {
    pub(crate) family: Family,
    pub(crate) table: Box<str>,
    pub(crate) name: Box<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) hook: Hook,
    pub(crate) drops: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Input,
    Forward,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The kernel never reuses a handle within a table.
    pub(crate) handle: u64,
    pub(crate) verdict: Verdict,
    pub(crate) is_conditional: bool,
    pub(crate) uses_set: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Jump(Box<str>),
    /// Drop or reject.
    Reject,
    Other,
}

/// The objects to remove in one transaction, and those that stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Leftovers {
    /// Rules of kube-proxy in chains that stay, by handle.
    pub(crate) rules: Vec<(ChainId, u64)>,
    /// Chains to flush and then delete. They refer to each other.
    pub(crate) chains: Vec<ChainId>,
    /// The families in which kube-proxy's nftables mode has its table.
    pub(crate) tables: Vec<Family>,
    pub(crate) kept: Vec<Kept>,
    /// The families in which remaining rules look up an ipset.
    pub(crate) lookups: BTreeSet<Family>,
}

impl Leftovers {
    /// The leftovers of kube-proxy among these chains. `has_sets` is whether any ipset of kube-proxy exists. Without
    /// ipsets and without a chain that only kube-proxy makes, the only chains that go are those that a takeover had to
    /// keep.
    pub(crate) fn among(chains: &[Chain], has_sets: bool) -> Self {
        let mut leftovers = Self::default();
        let has_served = has_sets || chains.iter().any(|chain| names::is_evidence(&chain.id.table, &chain.id.name));
        let mut tables: BTreeMap<_, Table> = BTreeMap::new();
        for chain in chains {
            tables.entry((chain.id.family, &*chain.id.table)).or_default().insert(&chain.id.name, chain);
        }
        for ((family, name), table) in &tables {
            let (family, kept) = (*family, BTreeMap::new());
            Search { family, name, table, has_served, kept }.run(&mut leftovers);
        }
        leftovers
    }

    /// Whether kube-proxy has left nothing in nftables.
    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.tables.is_empty() && self.kept.is_empty()
    }

    /// Whether rules of kube-proxy DNATed clients to endpoints, as those of its iptables and nftables modes do.
    pub(crate) fn has_dnat(&self) -> bool {
        let is_of_iptables = |chain: &ChainId| names::is_of_iptables_mode(&chain.table, &chain.name);
        !self.tables.is_empty() || self.chains.iter().any(is_of_iptables)
    }

    /// Why busy sets stay: remaining rules in nftables look them up. If no such rule is visible, it belongs to legacy
    /// iptables.
    pub(crate) fn sets_in_use(&self, busy: Vec<String>) -> Vec<Kept> {
        let (here, legacy): (Vec<String>, Vec<String>) =
            busy.into_iter().partition(|set| self.lookups.contains(&names::family_of(set)));
        let here = (!here.is_empty()).then_some(Kept::SetsInUse { sets: here });
        let legacy = (!legacy.is_empty()).then_some(Kept::LegacySets { sets: legacy });
        here.into_iter().chain(legacy).collect()
    }

    /// The families in which a remaining chain looks up the set of health-check ports.
    pub(crate) fn health_checks(&self) -> Vec<Family> {
        let family = |kept: &Kept| match kept {
            Kept::AcceptingChain { family, chain, .. } if &**chain == NODE_PORT => Some(*family),
            _ => None,
        };
        self.kept.iter().filter_map(family).collect()
    }
}

type Table<'a> = BTreeMap<&'a str, &'a Chain>;

struct Search<'a> {
    family: Family,
    name: &'a str,
    table: &'a Table<'a>,
    /// Whether kube-proxy served this node in its ipvs or iptables mode.
    has_served: bool,
    kept: BTreeMap<&'a str, Kept>,
}

impl<'a> Search<'a> {
    fn run(mut self, leftovers: &mut Leftovers) {
        self.keep_what_lets_through();
        self.keep_what_the_kubelet_has();
        self.keep_what_others_use();
        self.keep_what_these_need();
        for (name, chain) in self.table {
            if self.goes(name) {
                leftovers.chains.push(chain.id.clone());
            } else {
                let (its, stay): (Vec<&Rule>, Vec<&Rule>) =
                    chain.rules.iter().partition(|rule| self.rule_goes(name, rule));
                leftovers.rules.extend(its.iter().map(|rule| (chain.id.clone(), rule.handle)));
                // The accepting chains look up the set of health-check ports, which stays with them.
                if !names::is_accept_chain(self.name, name) && stay.iter().any(|rule| rule.uses_set) {
                    leftovers.lookups.insert(self.family);
                }
            }
        }
        leftovers.kept.extend(self.kept.into_values());
    }

    fn is_its(&self, chain: &str) -> bool {
        let is_its = names::is_chain(self.name, chain) && self.table.contains_key(chain);
        is_its && (self.has_served || names::is_accept_chain(self.name, chain))
    }

    fn goes(&self, chain: &str) -> bool {
        self.is_its(chain) && !self.kept.contains_key(chain)
    }

    fn rule_goes(&self, chain: &str, rule: &Rule) -> bool {
        match &rule.verdict {
            Verdict::Jump(to) => self.goes(to),
            // The kubelet's version of this chain has no such rule.
            _ => chain == POSTROUTING && self.is_its(chain) && rule.uses_set,
        }
    }

    fn keep(&mut self, chain: &'a str, reason: impl FnOnce(Family, Box<str>) -> Kept) {
        if self.is_its(chain) {
            self.kept.entry(chain).or_insert_with(|| reason(self.family, chain.into()));
        }
    }

    fn keep_what_lets_through(&mut self) {
        if self.name != "filter" {
            return;
        }
        for (hook, chain) in [(Hook::Forward, FORWARD), (Hook::Input, NODE_PORT), (Hook::Input, NODE_PORTS)] {
            let hooked = self.table.values().filter(|chain| chain.base.is_some_and(|base| base.hook == hook));
            if let Some(dropping) = hooked.copied().find(|chain| self.drops(chain)) {
                let dropping = dropping.id.name.clone();
                self.keep(chain, |family, chain| Kept::AcceptingChain { family, chain, dropping });
            }
        }
    }

    /// Whether a base chain drops packets that no rule accepts: by its policy, by an unconditional rule or by its last
    /// rule. kube-ipvs ignores the condition of the last rule, because it cannot interpret it.
    fn drops(&self, base: &Chain) -> bool {
        if self.ends_in_rejection(base, &mut BTreeSet::new()) {
            return true;
        }
        let (mut seen, mut ahead) = (BTreeSet::new(), vec![base]);
        while let Some(chain) = ahead.pop() {
            if chain.base.is_some_and(|base| base.drops) {
                return true;
            }
            for rule in chain.rules.iter().filter(|rule| !rule.is_conditional) {
                match &rule.verdict {
                    Verdict::Reject => return true,
                    Verdict::Jump(to) if !self.is_its(to) && seen.insert(&**to) => {
                        ahead.extend(self.table.get(&**to));
                    }
                    _ => {}
                }
            }
        }
        false
    }

    /// Whether the last rule drops or rejects packets, directly or at the end of a chain that it jumps to. Jumps to
    /// chains of kube-proxy do not count.
    fn ends_in_rejection(&self, chain: &Chain, seen: &mut BTreeSet<Box<str>>) -> bool {
        let is_its = |rule: &&Rule| matches!(&rule.verdict, Verdict::Jump(to) if self.is_its(to));
        match chain.rules.iter().rfind(|rule| !is_its(rule)).map(|rule| &rule.verdict) {
            Some(Verdict::Reject) => true,
            // The kubelet's chain drops packets from outside to 127.0.0.0/8.
            Some(Verdict::Jump(to)) if **to != *names::KUBELETS_FIREWALL && seen.insert(to.clone()) => {
                self.table.get(&**to).is_some_and(|chain| self.ends_in_rejection(chain, seen))
            }
            _ => false,
        }
    }

    /// Kubelets before 1.28 made two chains that kube-proxy also uses. They do not notice if these chains are removed.
    fn keep_what_the_kubelet_has(&mut self) {
        if self.name == "nat" && self.table.contains_key(KUBELETS_MARK) {
            for chain in [POSTROUTING, MARK_MASQ] {
                self.keep(chain, |family, chain| Kept::KubeletChain { family, chain });
            }
        }
    }

    fn keep_what_others_use(&mut self) {
        let others = self.table.iter().filter(|(name, _)| !self.is_its(name));
        let jumps = others.flat_map(|(name, chain)| {
            let targets = chain.rules.iter().filter_map(|rule| match &rule.verdict {
                Verdict::Jump(to) => Some(&**to),
                _ => None,
            });
            targets.map(|to| (*name, to))
        });
        let strange: Vec<_> = jumps.filter(|(from, to)| !names::is_jump(self.name, from, to)).collect();
        for (by, chain) in strange {
            let table = self.name.into();
            self.keep(chain, |family, chain| Kept::ChainInUse { family, table, chain, by: by.into() });
        }
    }

    /// A chain that stays keeps the chains that it jumps to.
    fn keep_what_these_need(&mut self) {
        let mut ahead: Vec<&str> = self.kept.keys().copied().collect();
        while let Some(by) = ahead.pop() {
            let Some(chain) = self.table.get(by) else { continue };
            for rule in &chain.rules {
                let Verdict::Jump(to) = &rule.verdict else { continue };
                if self.goes(to) {
                    let table = self.name.into();
                    self.keep(to, |family, chain| Kept::ChainInUse { family, table, chain, by: by.into() });
                    ahead.push(to);
                }
            }
        }
    }
}
