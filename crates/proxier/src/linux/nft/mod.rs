//! Filter rules, masquerade and the record of ownership, over netlink to nftables.

mod arp;
#[cfg(test)]
mod bytes;
mod chain;
mod decode;
mod element;
mod expression;
mod foreign;
mod gateways;
mod kind;
mod list;
mod ruleset;
mod sets;
mod transaction;
mod userdata;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use netlink_batch::{Error, KernelError, Protocol, Socket, attribute::put_text};

use crate::{
    kernel::{Cause, Failure, Reason},
    linux::{
        Names,
        netfilter::{self, NFTABLES, family_number, message_type},
    },
    model::Family,
    plan::Change,
    set::{
        ALLOWED, ARP_IGNORE, Element, HAIRPIN, HEALTH_CHECKS, KeySet, OUTSIDE, POD_SOURCES, REMOTE_PODS,
        SERVICE_RANGES, SHORT_CIRCUITS, VIPS,
    },
    state::State,
};
use chain::Chain;
use decode::{Content, Raw};
pub(super) use kind::OF_TABLE;
use transaction::Transaction;

/// One of the kube-ipvs tables. They have the same name, and each has its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Ip(Family),
    /// Exists only with [`Config::scoped_arp`](crate::Config::scoped_arp).
    Arp,
}

impl Table {
    const ALL: [Self; 3] = [Self::Ip(Family::V4), Self::Ip(Family::V6), Self::Arp];

    fn of(element: &Element) -> Self {
        match element {
            Element::ArpIgnore(_) => Self::Arp,
            _ => Self::Ip(element.family()),
        }
    }

    /// `NFPROTO_*`.
    fn family_number(self) -> u8 {
        match self {
            Self::Ip(family) => family_number(family),
            Self::Arp => 3,
        }
    }

    fn chains(self, settings: &super::Settings) -> Vec<Chain> {
        match self {
            Self::Ip(family) => ruleset::chains(family, settings),
            Self::Arp => arp::chains(),
        }
    }
}

pub(super) struct Nft {
    socket: Socket,
    settings: super::Settings,
    scoped_arp: bool,
    without_v6: Option<KernelError>,
}

impl Nft {
    pub(super) fn open(settings: super::Settings, scoped_arp: bool) -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(Protocol::Netfilter)?, settings, scoped_arp, without_v6: None })
    }

    /// The netlink port, by which the kernel marks changes of this socket.
    pub(super) fn port(&self) -> u32 {
        self.socket.port()
    }

    pub(super) fn observe_sends(&mut self, observer: impl FnMut(&[u8]) + Send + 'static) {
        self.socket.observe_sends(observer);
    }

    /// Makes or repairs tables, sets, chains and rules. On a kernel without nftables for IPv6, IPv4 works, and each
    /// IPv6 change fails individually.
    pub(super) fn prepare(&mut self) -> Result<(), Error> {
        self.without_v6 = None;
        for table in Table::ALL {
            match self.prepare_table(table) {
                Err(Error::Rejected(error)) if table == Table::Ip(Family::V6) => {
                    self.without_v6 = Some(error);
                }
                outcome => outcome?,
            }
        }
        Ok(())
    }

    pub(super) fn without_v6(&self) -> Option<&KernelError> {
        self.without_v6.as_ref()
    }

    fn prepare_table(&mut self, table: Table) -> Result<(), Error> {
        let found = self.rules(table)?;
        if table == Table::Arp && !self.scoped_arp {
            return if found.is_empty() { Ok(()) } else { self.remove_table(table) };
        }
        let chains = table.chains(&self.settings);
        let expected: BTreeMap<_, _> = chains.iter().map(|chain| (chain.name, &chain.userdata)).collect();
        if found.iter().map(|(name, rules)| (name.as_str(), rules)).eq(expected) {
            return Ok(());
        }
        rewrite(table, found.keys(), &chains, &self.settings.names).commit(&mut self.socket)
    }

    pub(super) fn read_into(&mut self, state: &mut State) -> Result<(), Error> {
        let keys = KeySet::ALL.map(|set| (set.name(), Content::Keys(set)));
        let others = [
            (VIPS, Content::Vips),
            (ALLOWED, Content::Allowed),
            (HAIRPIN, Content::Hairpins),
            (HEALTH_CHECKS, Content::HealthChecks),
            (SHORT_CIRCUITS, Content::ShortCircuits),
        ];
        for family in Family::ALL {
            for (set, content) in keys.into_iter().chain(others) {
                for raw in self.elements(Table::Ip(family), set)? {
                    if let Some((element, comment)) = raw.decode(family, content) {
                        state.add(element, &comment.map(Into::into));
                    }
                }
            }
            state.service_ranges.extend(self.ranges(family, SERVICE_RANGES)?);
            state.pod_sources.extend(self.ranges(family, POD_SOURCES)?);
            state.remote_pods.extend(self.ranges(family, REMOTE_PODS)?);
            if !self.elements(Table::Ip(family), OUTSIDE)?.is_empty() {
                state.outside.insert(family);
            }
        }
        for raw in self.elements(Table::Arp, ARP_IGNORE)? {
            if let Some((element, _)) = raw.decode(Family::V4, Content::ArpIgnore) {
                state.add(element, &None);
            }
        }
        Ok(())
    }

    /// Adds and removes elements. An nftables transaction is atomic, so one bad element rejects all. kube-ipvs then
    /// retries with one message for each element, and leaves out the elements that the kernel rejects.
    pub(super) fn apply(&mut self, changes: &[(usize, &Change)], failures: &mut Vec<Failure>) {
        let mut rest = changes;
        while !rest.is_empty() {
            let fits = rest.len() <= transaction::LARGEST;
            let at = if fits { rest.len() } else { cut(rest, transaction::LARGEST) };
            let (part, later) = rest.split_at(at);
            self.apply_part(part, failures);
            rest = later;
        }
    }

    fn apply_part(&mut self, changes: &[(usize, &Change)], failures: &mut Vec<Failure>) {
        match self.commit_together(changes) {
            Ok(()) => {}
            // Without the right to force buffer sizes, as in a user namespace, a send takes less.
            Err(Error::TooLarge { .. }) if changes.len() > 1 => {
                let (one, other) = changes.split_at(cut(changes, changes.len() / 2));
                self.apply_part(one, failures);
                self.apply_part(other, failures);
            }
            Err(_) => self.commit_one_by_one(changes.to_vec(), failures),
        }
    }

    pub(super) fn remove(&mut self) -> Result<(), Error> {
        Table::ALL.into_iter().try_for_each(|table| self.remove_table(table))
    }

    fn remove_table(&mut self, table: Table) -> Result<(), Error> {
        let mut transaction = Transaction::new(&self.settings.names);
        transaction.delete(table, chain::delete_table());
        match transaction.commit(&mut self.socket) {
            Err(Error::Rejected(error)) if error.is_not_found() => Ok(()),
            outcome => outcome,
        }
    }

    fn commit_together(&mut self, changes: &[(usize, &Change)]) -> Result<(), Error> {
        Transaction::of(changes, &self.settings.names).commit(&mut self.socket)
    }

    fn commit_one_by_one(&mut self, mut changes: Vec<(usize, &Change)>, failures: &mut Vec<Failure>) {
        while !changes.is_empty() {
            let mut transaction = Transaction::new(&self.settings.names);
            let numbers: Vec<_> = changes.iter().map(|change| transaction.elements(&[*change])).collect();
            let rejected = match transaction.try_commit(&mut self.socket) {
                Ok(rejected) if rejected.is_empty() => return,
                Ok(rejected) => rejected,
                // One message for each element needs more room than many in one. Half of them may fit.
                Err(Error::TooLarge { .. }) if changes.len() > 1 => {
                    let rest = changes.split_off(changes.len() / 2);
                    self.commit_one_by_one(changes, failures);
                    changes = rest;
                    continue;
                }
                Err(error) => return fail_all(&changes, Cause::Unknown, error.into(), failures),
            };
            let mut culprits = BTreeSet::new();
            for failure in &rejected {
                let Some(at) = numbers.iter().rposition(|number| *number <= failure.request) else {
                    continue;
                };
                let (change, what) = changes[at];
                let gone_already = failure.error.is_not_found() && matches!(what, Change::RemoveElement { .. });
                if culprits.insert(at) && !gone_already {
                    let reason = (&failure.error).into();
                    failures.push(Failure { change, cause: Cause::Rejected, reason });
                }
            }
            if culprits.is_empty() {
                return fail_all(&changes, Cause::Rejected, (&rejected[0].error).into(), failures);
            }
            let mut at = 0..;
            changes.retain(|_| at.next().is_none_or(|at| !culprits.contains(&at)));
        }
    }

    /// The existing chains of a table, each with the user data of its rules in order.
    fn rules(&mut self, table: Table) -> Result<BTreeMap<String, Vec<Vec<u8>>>, Error> {
        let name = self.settings.names.table().to_owned();
        let ours = self.chains(table.family_number())?.into_iter().filter(|chain| chain.table == name);
        let mut chains: BTreeMap<String, Vec<Vec<u8>>> = ours.map(|chain| (chain.name, Vec::new())).collect();
        for rule in self.rules_of(table, &name)?.into_iter().filter(|rule| rule.table == name) {
            chains.entry(rule.chain).or_default().push(rule.userdata);
        }
        Ok(chains)
    }

    fn ranges(&mut self, family: Family, set: &str) -> Result<Vec<IpNet>, Error> {
        Ok(decode::ranges(family, &self.elements(Table::Ip(family), set)?))
    }

    fn elements(&mut self, table: Table, set: &str) -> Result<Vec<Raw>, Error> {
        let mut request = about(table, self.settings.names.table());
        put_text(&mut request, kind::OF_SET, set);
        let parts = self.list(kind::GET_ELEMENTS, &request, kind::NEW_ELEMENTS, list::elements)?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// Dumps messages of type `kind`, and decodes the attributes of each with `read`. Empty if the table or set does
    /// not exist.
    ///
    /// The kernel does not report that elements changed during a dump. If a set grows or shrinks meanwhile, the dump
    /// can skip elements. The next reconcile repairs this: it writes a skipped element again, which changes nothing in
    /// the kernel. A skipped record of ownership is also in the record's file and in the engine's memory.
    fn list<T>(
        &mut self,
        request: u8,
        payload: &[u8],
        kind: u8,
        mut read: impl FnMut(&[u8]) -> T,
    ) -> Result<Vec<T>, Error> {
        let kind = message_type(NFTABLES, kind);
        let read = |of, payload: &[u8]| (of == kind).then(|| read(netfilter::attributes(payload)));
        match self.socket.dump_with(message_type(NFTABLES, request), payload, read) {
            Err(Error::Rejected(error)) if error.is_not_found() => Ok(Vec::new()),
            outcome => outcome,
        }
    }
}

/// `struct nfgenmsg` and the table's name, which start the payload of each request about a table.
fn about(table: Table, name: &str) -> Vec<u8> {
    let mut bytes = netfilter::header(table.family_number()).to_vec();
    put_text(&mut bytes, OF_TABLE, name);
    bytes
}

/// Rewrites a whole table in one transaction, because another version may have had other chains or hooks. Sets stay,
/// with their elements.
fn rewrite<'a, 'n>(
    table: Table,
    old: impl Iterator<Item = &'a String>,
    chains: &[Chain],
    names: &'n Names,
) -> Transaction<'n> {
    let mut transaction = Transaction::new(names);
    transaction.create(table, chain::table(names));
    sets::sets(table, names).into_iter().for_each(|set| transaction.create(table, set));
    // Rules first, because they refer to chains.
    transaction.delete(table, chain::flush());
    old.for_each(|chain| transaction.delete(table, chain::delete_chain(chain)));
    chains.iter().for_each(|chain| transaction.create(table, chain.message()));
    for chain in chains {
        chain.rules().for_each(|rule| transaction.append(table, rule));
    }
    transaction
}

/// The largest index up to `most` at which changes can be split. Changes of one virtual server stay together unless
/// they exceed `most`: source ranges and the element that enforces them belong in one transaction.
fn cut(changes: &[(usize, &Change)], most: usize) -> usize {
    let key = |at: usize| changes[at].1.key();
    let is_between = |at: &usize| key(*at).is_none() || key(*at) != key(at - 1);
    (1..=most).rev().find(is_between).unwrap_or(most)
}

fn fail_all(changes: &[(usize, &Change)], cause: Cause, reason: Reason, failures: &mut Vec<Failure>) {
    let failure = |(change, _): &_| Failure { change: *change, cause, reason: reason.clone() };
    failures.extend(changes.iter().map(failure));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::key;

    #[test]
    fn cut_keeps_changes_of_one_virtual_server_together() {
        let element = |text| Element::Key(KeySet::Firewall, key(text));
        let [one, other] = ["TCP 10.96.0.1:80", "TCP 10.96.0.2:80"]
            .map(|text| Change::RemoveElement { element: element(text), with_server: true });
        let vip = Change::Bind("10.96.0.1".parse().unwrap());
        let cut_of = |changes: &[&Change], most| {
            let numbered: Vec<_> = changes.iter().copied().enumerate().collect();
            cut(&numbered, most)
        };
        assert_eq!(cut_of(&[&one, &one, &other, &other], 2), 2);
        assert_eq!(cut_of(&[&one, &one, &other, &other], 3), 2);
        assert_eq!(cut_of(&[&one, &one, &one, &other], 2), 2, "it is more than that");
        assert_eq!(cut_of(&[&vip, &vip, &vip], 2), 2);
    }
}
