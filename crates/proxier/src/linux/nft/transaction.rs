use netlink_batch::{Batch, Error, Failure, Socket};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily, NetfilterSubsystem, nftables::NfTablesMessage,
    none::ControlMessage,
};

use super::{Table, element, in_set};
use crate::{model::Family, plan::Change};

/// The most elements in one message: their list is one attribute, and that ends at 64 KiB.
const ELEMENTS: usize = 256;
/// The most changes in one transaction, so that it fits one send.
pub(super) const LARGEST: usize = 10_000;

/// Changes of nftables that are made all together or not at all.
pub(super) struct Transaction {
    batch: Batch,
}

impl Transaction {
    pub(super) fn new() -> Self {
        let mut batch = Batch::new();
        batch.push(control(ControlMessage::BatchBegin), 0);
        Self { batch }
    }

    /// Changes of elements, as many in a message as can be.
    pub(super) fn of(changes: &[(usize, &Change)]) -> Self {
        let mut transaction = Self::new();
        for run in changes.chunk_by(|(_, one), (_, other)| destination(one) == destination(other)) {
            for run in run.chunks(ELEMENTS) {
                transaction.elements(run);
            }
        }
        transaction
    }

    /// Makes something that may be there already.
    pub(super) fn create(&mut self, table: Table, request: NfTablesMessage) {
        self.batch.push(message(table, request), NLM_F_CREATE);
    }

    /// Adds a rule behind the others of its chain.
    pub(super) fn append(&mut self, table: Table, request: NfTablesMessage) {
        self.batch.push(message(table, request), NLM_F_CREATE | NLM_F_APPEND);
    }

    /// Removes something.
    pub(super) fn delete(&mut self, table: Table, request: NfTablesMessage) {
        self.batch.push(message(table, request), 0);
    }

    /// Removes something from another program's table.
    pub(super) fn delete_foreign(&mut self, family: Family, request: NfTablesMessage) {
        self.batch.push(message(Table::Ip(family), request), 0);
    }

    /// Adds the requests for changes of elements, all of one set and one direction, or a single replacement.
    /// Returns the number of the first.
    pub(super) fn elements(&mut self, changes: &[(usize, &Change)]) -> usize {
        let first = self.batch.len();
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        let mut target = None;
        for (_, change) in changes {
            match change {
                Change::AddElement { element, comment, replace } => {
                    target = Some(element);
                    element::append(&mut added, element, comment.as_deref());
                    if *replace {
                        element::append(&mut removed, element, None);
                    }
                }
                Change::RemoveElement { element, .. } => {
                    target = Some(element);
                    element::append(&mut removed, element, None);
                }
                _ => {}
            }
        }
        let Some(target) = target else { return first };
        let (table, set) = (Table::of(target), target.set_name());
        if !removed.is_empty() {
            self.delete(table, NfTablesMessage::DeleteSetElement(in_set(set, removed)));
        }
        if !added.is_empty() {
            self.create(table, NfTablesMessage::NewSetElement(in_set(set, added)));
        }
        first
    }

    /// Makes the changes.
    pub(super) fn commit(self, socket: &mut Socket) -> Result<(), Error> {
        match self.try_commit(socket)?.into_iter().next() {
            Some(failure) => Err(failure.error.into()),
            None => Ok(()),
        }
    }

    /// Makes the changes, or none of them and says which requests the kernel refused.
    pub(super) fn try_commit(mut self, socket: &mut Socket) -> Result<Vec<Failure>, Error> {
        let end = self.batch.push(control(ControlMessage::BatchEnd), 0);
        socket.transaction(self.batch, end - 1)
    }
}

/// Changes of one destination can go in one message: those of the same set and family, of the same kind.
fn destination(change: &Change) -> Option<(&'static str, Family, std::mem::Discriminant<Change>, bool)> {
    let (element, replaces) = match change {
        Change::AddElement { element, replace, .. } => (element, *replace),
        Change::RemoveElement { element, .. } => (element, false),
        _ => return None,
    };
    Some((element.set_name(), element.family(), std::mem::discriminant(change), replaces))
}

/// A request about a table.
pub(in crate::linux) fn message(table: Table, request: NfTablesMessage) -> NetfilterMessage {
    let family = match table {
        Table::Ip(Family::V4) => NetfilterProtoFamily::IPv4,
        Table::Ip(Family::V6) => NetfilterProtoFamily::IPv6,
        Table::Arp => NetfilterProtoFamily::ARP,
    };
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), request)
}

fn control(message: ControlMessage) -> NetfilterMessage {
    let subsystem = u8::from(NetfilterSubsystem::NfTables);
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, subsystem.into());
    NetfilterMessage::new(header, message)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

    use netlink_packet_core::NetlinkBuffer;

    use super::*;
    use crate::{
        model::*,
        set::{Element, KeySet},
        testing::*,
    };

    /// How many messages of each type there are in what these changes take.
    fn message_types(changes: &[(usize, &Change)]) -> BTreeMap<u16, usize> {
        let batch = Transaction::of(changes).batch;
        let mut types = BTreeMap::new();
        for number in 0..batch.len() {
            *types.entry(NetlinkBuffer::new(batch.request(number)).message_type()).or_default() += 1;
        }
        types
    }

    /// However many Services there are: what they take of nftables is elements of sets. No rule is made for them, and
    /// no chain.
    #[test]
    fn fifty_thousand_services_are_elements() {
        const BEGIN: u16 = 16;
        const NEW_SET_ELEMENT: u16 = 10 << 8 | 12;
        const SERVICES: u32 = 50_000;
        let (mut engine, mut kernel) = start();
        for number in 0..SERVICES {
            let at = |base: [u8; 4]| Ipv4Addr::from_bits(u32::from_be_bytes(base) + number).to_string();
            let (name, vip) = (format!("app-{number}"), at([10, 96, 0, 1]));
            let service = service(&name, &[&vip], &[(80, None)]);
            let internal_policy = if number % 2 == 0 { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
            engine.apply(Event::ServiceApplied(Service { internal_policy, ..service }));
            engine.apply(Event::SliceApplied(slice(&name, &name, 8080, &[&at([10, 128, 0, 1])])));
        }
        let report = engine.sync(&mut kernel, Duration::ZERO);
        let elements: Vec<(usize, &Change)> = report
            .plan
            .changes()
            .iter()
            .enumerate()
            .filter(|(_, change)| destination(change).is_some())
            .collect();
        // served, cluster-ips, vips, hairpin, and for every second one no-local.
        assert_eq!(elements.len(), 225_000);
        let no_local = |(_, change): &&(usize, &Change)| {
            matches!(change, Change::AddElement { element: Element::Key(KeySet::NoLocalEndpoints, _), .. })
        };
        assert_eq!(elements.iter().filter(no_local).count(), 25_000);
        for part in elements.chunks(LARGEST) {
            let types = message_types(part);
            assert_eq!(types.keys().copied().collect::<Vec<_>>(), [BEGIN, NEW_SET_ELEMENT], "{types:?}");
        }
    }
}
