use netlink_batch::{Batch, Error, Failure, Socket};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily, NetfilterSubsystem, nftables::NfTablesMessage,
    none::ControlMessage,
};

use super::{Table, element, in_set};
use crate::{model::Family, plan::Change};

/// The most elements in one message: their list is one attribute, and that ends at 64 KiB.
pub(super) const ELEMENTS: usize = 256;
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

    /// Removes something from a table of somebody else's.
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
                Change::RemoveElement(element) => {
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

/// A request about a table.
pub(super) fn message(table: Table, request: NfTablesMessage) -> NetfilterMessage {
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
