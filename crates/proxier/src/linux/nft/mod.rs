//! Filter, masquerade and the record of ownership, in nftables over netlink.

mod decode;
mod element;
mod expression;
mod ruleset;
mod sets;
mod transaction;
mod userdata;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use netlink_batch::{Error, Protocol, Socket};
use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};
use netlink_packet_netfilter::{
    NetfilterMessage, NetfilterMessageInner,
    nftables::{
        ChainAttribute, ChainMessage, ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage,
        SetElementAttribute, SetElementList, SetElementMessage,
    },
};

use super::LocalDetector;
use crate::{
    kernel::{Cause, Failure},
    model::Family,
    plan::Change,
    set::{ALLOWED, HAIRPIN, HEALTH_CHECKS, KeySet, SERVICE_RANGES, SHORT_CUTS, VIPS},
    state::State,
};
use decode::{Content, Raw};
use ruleset::{CLUSTER_SOURCES, Chain, Inside, Settings};
use transaction::{Transaction, message};

/// The name of our tables, one of each family.
pub(super) const TABLE: &str = "kube-ipvs";
/// How often a list that changed under our eyes is read again.
const ATTEMPTS: usize = 10;

/// Our tables.
pub(super) struct Nft {
    socket: Socket,
    settings: super::Settings,
}

impl Nft {
    pub(super) fn open(settings: super::Settings) -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(Protocol::Netfilter)?, settings })
    }

    pub(super) fn observe_sends(&mut self, observer: impl FnMut(&[u8]) + Send + 'static) {
        self.socket.observe_sends(observer);
    }

    /// Makes tables, sets, chains and rules, where they are not there as they should be.
    pub(super) fn prepare(&mut self) -> Result<(), Error> {
        for family in Family::ALL {
            let sources = self.sources(family);
            let chains = ruleset::chains(family, &self.rule_settings(&sources));
            let expected: BTreeMap<_, _> =
                chains.iter().map(|chain| (chain.name.to_owned(), chain.userdata())).collect();
            let found = self.rules(family)?;
            if found != expected || self.ranges(family, CLUSTER_SOURCES)? != sources {
                self.write(family, found.keys(), &chains, &sources)?;
            }
        }
        Ok(())
    }

    /// Reads the elements of our sets.
    pub(super) fn observe(&mut self, state: &mut State) -> Result<(), Error> {
        let keys = KeySet::ALL.map(|set| (set.name(), Content::Keys(set)));
        let others = [
            (VIPS, Content::Vips),
            (ALLOWED, Content::Allowed),
            (HAIRPIN, Content::Hairpins),
            (HEALTH_CHECKS, Content::HealthChecks),
            (SHORT_CUTS, Content::ShortCuts),
        ];
        for family in Family::ALL {
            for (set, content) in keys.into_iter().chain(others) {
                for raw in self.elements(family, set)? {
                    if let Some((element, comment)) = raw.decode(family, content) {
                        state.add(element, &comment.map(Into::into));
                    }
                }
            }
            state.service_ranges.extend(self.ranges(family, SERVICE_RANGES)?);
        }
        Ok(())
    }

    /// Writes and takes out elements. An nftables transaction is atomic, so that one bad element rejects all
    /// of it: then they are tried again one a message, and those that the kernel names are left out.
    pub(super) fn apply(&mut self, changes: &[(usize, &Change)], failures: &mut Vec<Failure>) {
        changes.chunks(transaction::LARGEST).for_each(|part| self.apply_part(part, failures));
    }

    fn apply_part(&mut self, changes: &[(usize, &Change)], failures: &mut Vec<Failure>) {
        match self.commit_together(changes) {
            Ok(()) => {}
            // Where buffers cannot be forced, as in a user namespace, less fits into a send.
            Err(Error::TooLarge { .. }) if changes.len() > 1 => {
                let (one, other) = changes.split_at(changes.len() / 2);
                self.apply_part(one, failures);
                self.apply_part(other, failures);
            }
            Err(_) => self.commit_one_by_one(changes.to_vec(), failures),
        }
    }

    /// Removes our tables.
    pub(super) fn remove(&mut self) -> Result<(), Error> {
        for family in Family::ALL {
            let mut transaction = Transaction::new();
            transaction.delete(family, ruleset::delete_table());
            match transaction.commit(&mut self.socket) {
                Err(Error::Rejected(error)) if error.is_absent() => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }

    fn commit_together(&mut self, changes: &[(usize, &Change)]) -> Result<(), Error> {
        let mut transaction = Transaction::new();
        for run in changes.chunk_by(|(_, one), (_, other)| destination(one) == destination(other)) {
            for run in run.chunks(transaction::ELEMENTS) {
                transaction.elements(run);
            }
        }
        transaction.commit(&mut self.socket)
    }

    fn commit_one_by_one(&mut self, mut changes: Vec<(usize, &Change)>, failures: &mut Vec<Failure>) {
        while !changes.is_empty() {
            let mut transaction = Transaction::new();
            let numbers: Vec<_> = changes.iter().map(|change| transaction.elements(&[*change])).collect();
            let refused = match transaction.try_commit(&mut self.socket) {
                Ok(refused) if refused.is_empty() => return,
                Ok(refused) => refused,
                // One message an element takes more room than many in one: half of them may fit.
                Err(Error::TooLarge { .. }) if changes.len() > 1 => {
                    let rest = changes.split_off(changes.len() / 2);
                    self.commit_one_by_one(changes, failures);
                    changes = rest;
                    continue;
                }
                Err(error) => return fail_all(&changes, Cause::Unknown, &error.to_string(), failures),
            };
            let culprits: BTreeSet<usize> = refused
                .iter()
                .filter_map(|failure| numbers.iter().rposition(|n| *n <= failure.request))
                .collect();
            if culprits.is_empty() {
                return fail_all(&changes, Cause::Refused, &refused[0].error.to_string(), failures);
            }
            for failure in &refused {
                let Some(at) = numbers.iter().rposition(|number| *number <= failure.request) else {
                    continue;
                };
                let (change, what) = changes[at];
                let gone_already = failure.error.is_absent() && matches!(what, Change::RemoveElement(_));
                if !gone_already && failures.iter().all(|known| known.change != change) {
                    let reason = failure.error.to_string();
                    failures.push(Failure { change, cause: Cause::Refused, reason });
                }
            }
            let mut at = 0..;
            changes.retain(|_| at.next().is_none_or(|at| !culprits.contains(&at)));
        }
    }

    /// The pods' ranges of one family. The kernel takes a range within another one and stores nothing, so none is.
    fn sources(&self, family: Family) -> Vec<IpNet> {
        let LocalDetector::Sources(ranges) = &self.settings.local_detector else { return Vec::new() };
        let ranges: Vec<IpNet> =
            ranges.iter().filter(|range| Family::of(range.addr()) == family).map(IpNet::trunc).collect();
        let mut ranges = IpNet::aggregate(&ranges);
        ranges.sort();
        ranges
    }

    fn rule_settings(&self, sources: &[IpNet]) -> Settings {
        let device = |name: &str, is_prefix| Inside::Device { name: name.to_owned(), is_prefix };
        Settings {
            masquerade_mark: 1 << (self.settings.masquerade_bit & 31),
            masquerade_all: self.settings.masquerade_all,
            inside: match &self.settings.local_detector {
                LocalDetector::Sources(_) if !sources.is_empty() => Inside::Sources,
                LocalDetector::Sources(_) | LocalDetector::None => Inside::Unknown,
                LocalDetector::Bridge(name) => device(name, false),
                LocalDetector::InterfacePrefix(prefix) => device(prefix, true),
            },
            drop_invalid: !self.settings.tcp_be_liberal,
        }
    }

    /// Writes the whole table of a family anew, in one transaction: an older version may have had other chains, or
    /// the same ones elsewhere. Sets stay, with the elements of Services.
    fn write<'a>(
        &mut self,
        family: Family,
        old: impl Iterator<Item = &'a String>,
        chains: &[Chain],
        sources: &[IpNet],
    ) -> Result<(), Error> {
        let mut transaction = Transaction::new();
        transaction.create(family, ruleset::table());
        sets::sets(family).into_iter().for_each(|set| transaction.create(family, set));
        transaction.delete(family, NfTablesMessage::DeleteSetElement(in_set(CLUSTER_SOURCES, Vec::new())));
        let ranges: Vec<_> = sources.iter().flat_map(element::encode_range).collect();
        if !ranges.is_empty() {
            transaction.create(family, NfTablesMessage::NewSetElement(in_set(CLUSTER_SOURCES, ranges)));
        }
        // Rules first: they refer to chains.
        transaction.delete(family, ruleset::flush());
        old.for_each(|chain| transaction.delete(family, ruleset::delete_chain(chain)));
        chains.iter().for_each(|chain| transaction.create(family, chain.message()));
        for chain in chains {
            chain.rules.iter().for_each(|rule| transaction.append(family, rule.message(chain)));
        }
        transaction.commit(&mut self.socket)
    }

    /// The chains that are there, each with the user data of its rules in order.
    fn rules(&mut self, family: Family) -> Result<BTreeMap<String, Vec<Vec<u8>>>, Error> {
        let request = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
        let mut chains = BTreeMap::new();
        for answer in self.list(family, request)? {
            let NfTablesMessage::NewChain(ChainMessage { attributes }) = answer else { continue };
            let (mut table, mut chain) = (String::new(), String::new());
            for attribute in attributes {
                match attribute {
                    ChainAttribute::Table(name) => table = name,
                    ChainAttribute::Name(name) => chain = name,
                    _ => {}
                }
            }
            if table == TABLE {
                chains.insert(chain, Vec::new());
            }
        }
        let request =
            NfTablesMessage::GetRule(RuleMessage { attributes: vec![RuleAttribute::Table(TABLE.into())] });
        for answer in self.list(family, request)? {
            let NfTablesMessage::NewRule(RuleMessage { attributes }) = answer else { continue };
            let (mut table, mut chain, mut userdata) = (String::new(), String::new(), Vec::new());
            for attribute in attributes {
                match attribute {
                    RuleAttribute::Table(name) => table = name,
                    RuleAttribute::Chain(name) => chain = name,
                    RuleAttribute::UserData(bytes) => userdata = bytes,
                    _ => {}
                }
            }
            if table == TABLE {
                chains.entry(chain).or_default().push(userdata);
            }
        }
        Ok(chains)
    }

    fn ranges(&mut self, family: Family, set: &str) -> Result<Vec<IpNet>, Error> {
        Ok(decode::ranges(family, &self.elements(family, set)?))
    }

    /// The elements of a set; none if there is no such set.
    fn elements(&mut self, family: Family, set: &str) -> Result<Vec<Raw>, Error> {
        let request = NfTablesMessage::GetSetElement(in_set(set, Vec::new()));
        let mut elements = Vec::new();
        for answer in self.list(family, request)? {
            if let NfTablesMessage::NewSetElement(list) = answer {
                elements.extend(decode::raw(&list.attributes));
            }
        }
        Ok(elements)
    }

    fn list(&mut self, family: Family, request: NfTablesMessage) -> Result<Vec<NfTablesMessage>, Error> {
        for _ in 0..ATTEMPTS {
            match self.socket.dump(message(family, request.clone())) {
                Ok(answers) => return Ok(answers.into_iter().filter_map(inner).collect()),
                Err(Error::Rejected(error)) if error.is_absent() => return Ok(Vec::new()),
                Err(Error::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Interrupted)
    }
}

fn inner(message: NetfilterMessage) -> Option<NfTablesMessage> {
    match message.inner {
        NetfilterMessageInner::NfTables(message) => Some(message),
        _ => None,
    }
}

fn in_set(set: &str, elements: Vec<ListAttribute<SetElementAttribute>>) -> SetElementMessage {
    let mut attributes = vec![SetElementList::Table(TABLE.into()), SetElementList::Set(set.into())];
    if !elements.is_empty() {
        // As bytes: each outer level asks for its length several times, and would look at every element again.
        let mut bytes = vec![0; elements.as_slice().buffer_len()];
        elements.as_slice().emit(&mut bytes);
        attributes.push(SetElementList::Other(DefaultNla::new(ELEMENTS | NLA_F_NESTED, bytes)));
    }
    SetElementMessage { attributes }
}

/// `NFTA_SET_ELEM_LIST_ELEMENTS`.
const ELEMENTS: u16 = 3;

/// Changes of one destination can go in one message: those of the same set and family, of the same kind.
fn destination(change: &Change) -> Option<(&'static str, Family, std::mem::Discriminant<Change>, bool)> {
    let (element, replaces) = match change {
        Change::AddElement { element, replace, .. } => (element, *replace),
        Change::RemoveElement(element) => (element, false),
        _ => return None,
    };
    Some((element.set_name(), element.family(), std::mem::discriminant(change), replaces))
}

fn fail_all(changes: &[(usize, &Change)], cause: Cause, reason: &str, failures: &mut Vec<Failure>) {
    let failure = |(change, _): &_| Failure { change: *change, cause, reason: reason.into() };
    failures.extend(changes.iter().map(failure));
}
