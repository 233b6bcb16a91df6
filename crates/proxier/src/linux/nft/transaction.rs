use netlink_batch::{
    Batch, Error, Failure, Socket,
    attribute::{nest, put_text},
};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use super::{Table, about, element, kind};
use crate::{
    linux::{
        Names,
        netfilter::{NFTABLES, message_type},
    },
    model::Family,
    plan::Change,
};

/// A request: its number of `NFT_MSG_*`, and the attributes after the table's name.
pub(super) struct Request {
    kind: u8,
    pub(super) attributes: Vec<u8>,
}

impl Request {
    pub(super) fn new(kind: u8, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut attributes = Vec::new();
        write(&mut attributes);
        Self { kind, attributes }
    }

    pub(super) fn of_elements(kind: u8, set: &str, elements: &[u8]) -> Self {
        Self::new(kind, |out| {
            put_text(out, kind::OF_SET, set);
            nest(out, kind::ELEMENTS, |out| out.extend(elements));
        })
    }
}

/// The most elements in one message: their list is one attribute, which is limited to 64 KiB.
pub(super) const MOST_ELEMENTS: usize = 256;
/// The most changes in one transaction, so that it fits one send.
pub(super) const LARGEST: usize = 10_000;

pub(super) struct Transaction<'a> {
    pub(super) batch: Batch,
    name: &'a str,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(names: &'a Names) -> Self {
        let mut batch = Batch::new();
        control(&mut batch, BEGIN);
        Self { batch, name: names.table() }
    }

    /// A transaction with as many elements as possible in each message.
    pub(super) fn of(changes: &[(usize, &Change)], names: &'a Names) -> Self {
        let mut transaction = Self::new(names);
        for run in changes.chunk_by(|(_, one), (_, other)| destination(one) == destination(other)) {
            for run in run.chunks(MOST_ELEMENTS) {
                transaction.elements(run);
            }
        }
        transaction
    }

    pub(super) fn create(&mut self, table: Table, request: Request) {
        self.push(NLM_F_CREATE, table, self.name, &request);
    }

    pub(super) fn append(&mut self, table: Table, request: Request) {
        self.push(NLM_F_CREATE | NLM_F_APPEND, table, self.name, &request);
    }

    pub(super) fn delete(&mut self, table: Table, request: Request) {
        self.push(0, table, self.name, &request);
    }

    pub(super) fn delete_foreign(&mut self, family: Family, table: &str, request: &Request) {
        self.push(0, Table::Ip(family), table, request);
    }

    fn push(&mut self, flags: u16, table: Table, name: &str, request: &Request) {
        self.batch.push_with(message_type(NFTABLES, request.kind), flags, |out| {
            out.extend(about(table, name));
            out.extend(&request.attributes);
        });
    }

    /// Adds the requests for several changes of one [`destination`], or for one replacement. Returns the index of the
    /// first request.
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
            self.delete(table, Request::of_elements(kind::DELETE_ELEMENTS, set, &removed));
        }
        if !added.is_empty() {
            self.create(table, Request::of_elements(kind::NEW_ELEMENTS, set, &added));
        }
        first
    }

    pub(super) fn commit(self, socket: &mut Socket) -> Result<(), Error> {
        match self.try_commit(socket)?.into_iter().next() {
            Some(failure) => Err(failure.error.into()),
            None => Ok(()),
        }
    }

    /// Commits all requests or none, and returns those that the kernel rejected.
    pub(super) fn try_commit(mut self, socket: &mut Socket) -> Result<Vec<Failure>, Error> {
        let end = control(&mut self.batch, END);
        socket.transaction(self.batch, end - 1)
    }
}

/// Changes with the same destination fit in one message: the same set, family and operation.
fn destination(change: &Change) -> Option<(&'static str, Family, std::mem::Discriminant<Change>, bool)> {
    let (element, replaces) = match change {
        Change::AddElement { element, replace, .. } => (element, *replace),
        Change::RemoveElement { element, .. } => (element, false),
        _ => return None,
    };
    Some((element.set_name(), element.family(), std::mem::discriminant(change), replaces))
}

/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BEGIN: u16 = 16;
const END: u16 = 17;

fn control(batch: &mut Batch, message_type: u16) -> usize {
    batch.push_with(message_type, 0, |out| out.extend([0, 0, 0, NFTABLES]))
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

    fn message_types(changes: &[(usize, &Change)]) -> BTreeMap<u16, usize> {
        let batch = Transaction::of(changes, &Names::default()).batch;
        let mut types = BTreeMap::new();
        for number in 0..batch.len() {
            *types.entry(NetlinkBuffer::new(batch.request(number)).message_type()).or_default() += 1;
        }
        types
    }

    #[test]
    fn fifty_thousand_services_add_only_set_elements() {
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
        let elements: Vec<(usize, &Change)> =
            report.plan.changes().iter().enumerate().filter(|(_, change)| destination(change).is_some()).collect();
        // served, cluster-ips, vips and hairpin for each Service, no-local for every second one.
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
