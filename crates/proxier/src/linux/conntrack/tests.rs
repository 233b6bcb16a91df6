use std::net::{IpAddr, SocketAddr};

use netlink_batch::KernelError;

use super::*;
use crate::model::Protocol;

pub(super) fn key(protocol: Protocol, to: &str) -> VirtualServerKey {
    let to: SocketAddr = to.parse().unwrap();
    VirtualServerKey { address: to.ip(), protocol, port: to.port().try_into().unwrap() }
}

pub(super) fn endpoint(at: &str) -> EndpointAddress {
    let at: SocketAddr = at.parse().unwrap();
    EndpointAddress { address: at.ip(), port: at.port().try_into().unwrap() }
}

pub(super) fn entry(to: VirtualServerKey, endpoint: Option<EndpointAddress>) -> Entry {
    let source = IpAddr::from([10, 9, 9, 9]);
    Entry { to, source, source_port: 4000, endpoint, is_translated: false, id: None, zone: None, original_zone: None }
}

pub(super) fn wanted(flows: &[(VirtualServerKey, Option<&str>)]) -> Wanted {
    let change = |(to, at): &(_, Option<_>)| Change::DeleteFlows {
        to: *to,
        endpoint: at.map(endpoint),
        by_short_circuit: false,
    };
    let changes: Vec<_> = flows.iter().map(change).collect();
    Wanted::new(&changes.iter().enumerate().collect::<Vec<_>>())
}

#[test]
fn flow_deletion_without_endpoint_matches_all_flows_to_the_server() {
    for (to, other) in [("10.96.0.10:53", "10.96.0.11:53"), ("[fd00::10]:53", "[fd00::10]:54")] {
        let wanted = wanted(&[(key(Protocol::Udp, to), None)]);
        assert!(wanted.includes(&entry(key(Protocol::Udp, to), None)));
        assert!(wanted.includes(&entry(key(Protocol::Udp, to), Some(endpoint(to)))));
        assert!(!wanted.includes(&entry(key(Protocol::Tcp, to), None)));
        assert!(!wanted.includes(&entry(key(Protocol::Udp, other), None)));
    }
}

#[test]
fn flow_deletion_with_endpoint_matches_only_flows_to_it() {
    let cases = [
        ("10.96.0.10:53", ["10.1.0.1:5353", "10.1.0.2:5353", "10.1.0.1:53"]),
        ("[fd00::10]:53", ["[fd01::1]:5353", "[fd01::2]:5353", "[fd01::1]:53"]),
    ];
    for (to, [there, elsewhere, other_port]) in cases {
        let to = key(Protocol::Sctp, to);
        let wanted = wanted(&[(to, Some(there))]);
        assert!(wanted.includes(&entry(to, Some(endpoint(there)))));
        assert!(!wanted.includes(&entry(to, Some(endpoint(elsewhere)))));
        assert!(!wanted.includes(&entry(to, Some(endpoint(other_port)))));
        assert!(!wanted.includes(&entry(to, None)), "where it goes is unknown");
    }
}

/// The flows of clients outside the cluster continue, because IPVS handles them.
#[test]
fn flow_deletion_of_a_short_circuit_matches_only_translated_flows() {
    let to = key(Protocol::Tcp, "203.0.113.1:80");
    let at = Some(endpoint("10.1.0.1:8080"));
    for of in [None, at] {
        let change = Change::DeleteFlows { to, endpoint: of, by_short_circuit: true };
        let wanted = Wanted::new(&[(0, &change)]);
        assert!(!wanted.includes(&entry(to, at)));
        assert!(wanted.includes(&Entry { is_translated: true, ..entry(to, at) }));
    }
}

/// kube-proxy's iptables or nftables mode has DNATed a client before kube-ipvs makes the virtual server.
#[test]
fn flow_that_dnat_leads_to_an_endpoint_stays_if_the_virtual_server_is_new() {
    let (to, [serves, gone]) = (key(Protocol::Udp, DNS), ["10.1.0.1:5353", "10.1.0.2:5353"].map(endpoint));
    let config = ipvs_netlink::VirtualServer::new(ipvs_netlink::Scheduler::RR);
    let destination = ipvs_netlink::Destination::new(ipvs_netlink::Forwarding::Masq, 1);
    let made = [
        Change::AddVirtualServer { key: to, config },
        Change::AddRealServer { key: to, address: serves, destination },
        Change::DeleteFlows { to, endpoint: None, by_short_circuit: false },
    ];
    let wanted = |changes: &[Change]| {
        let plan = Plan::new(changes.to_vec());
        let numbered: Vec<_> = plan.changes().iter().enumerate().collect();
        Wanted { stay: made_by(&plan), ..Wanted::new(&numbered) }
    };
    let dnat = |endpoint| Entry { is_translated: true, ..entry(to, Some(endpoint)) };
    let new = wanted(&made);
    assert!(!new.includes(&dnat(serves)));
    assert!(new.includes(&dnat(gone)));
    // Not DNATed: IPVS handled it, or nothing did.
    assert!(new.includes(&entry(to, Some(serves))) && new.includes(&entry(to, None)));
    // IPVS handles flows by a short circuit, too.
    let short_circuit =
        Change::AddElement { element: Element::ShortCircuit(to, serves), comment: None, replace: false };
    assert!(wanted(&[&made[..], &[short_circuit]].concat()).includes(&dnat(serves)));
    assert!(wanted(&made[2..]).includes(&dnat(serves)));
}

#[test]
fn misled_flows_are_those_that_dnat_leads_to_other_endpoints() {
    let (to, [serves, gone]) = (key(Protocol::Udp, DNS), ["10.1.0.1:5353", "10.1.0.2:5353"].map(endpoint));
    let wanted = Wanted { misled: [(to, [serves].into())].into(), ..Wanted::default() };
    let dnat = |to, endpoint| Entry { is_translated: true, ..entry(to, Some(endpoint)) };
    assert!(wanted.includes(&dnat(to, gone)) && !wanted.includes(&dnat(to, serves)));
    assert!(!wanted.includes(&entry(to, Some(gone))));
    assert!(!wanted.includes(&dnat(key(Protocol::Udp, NTP), gone)));
    assert_eq!((wanted.families(), wanted.destinations(Family::V4)), ([Family::V4].into(), [to].into()));
}

#[test]
fn conntrack_is_listed_only_for_families_of_deleted_flows() {
    let (v4, v6) = (key(Protocol::Udp, "10.96.0.10:53"), key(Protocol::Udp, "[fd00::10]:53"));
    assert_eq!(wanted(&[]).families(), [].into());
    assert_eq!(wanted(&[(v6, None), (v6, Some("[fd01::1]:53"))]).families(), [Family::V6].into());
    assert_eq!(wanted(&[(v6, None), (v4, None)]).families(), Family::ALL.into());
    let other = Change::RemoveVirtualServer(v4);
    assert_eq!(Wanted::new(&[(0, &other)]).families(), [].into());
}

/// A kernel with a conntrack table. It records the lists that it was asked for.
#[derive(Default)]
struct FakeKernel {
    table: Vec<Entry>,
    filters: bool,
    rejects: bool,
    has_no_conntrack: bool,
    lists: Vec<Filter>,
}

impl FakeKernel {
    fn pass(&mut self, filter: &Filter, wanted: &Wanted) -> Pass {
        self.lists.push(*filter);
        if self.has_no_conntrack || self.rejects && *filter != Filter::all(Family::V4) {
            return Pass::Rejected;
        }
        let listed = |entry: &Entry| !self.filters || filter.can_list(entry);
        let is_filtered = self.table.iter().filter(|entry| listed(entry)).all(|entry| filter.can_list(entry));
        let before = self.table.len();
        let filters = self.filters;
        self.table.retain(|entry| !(wanted.includes(entry) && (!filters || filter.can_list(entry))));
        Pass::Done { deleted: Ok(before - self.table.len()), is_filtered }
    }

    fn cleanse(&mut self, kernel_filters: &mut bool, wanted: &Wanted) -> usize {
        self.lists.clear();
        cleanse(kernel_filters, Family::V4, wanted, |filter| Ok(self.pass(filter, wanted))).unwrap()
    }
}

const DNS: &str = "10.96.0.10:53";
const NTP: &str = "10.96.0.11:123";

fn table() -> Vec<Entry> {
    let udp = |to| entry(key(Protocol::Udp, to), None);
    vec![udp(DNS), udp(NTP), udp("10.96.0.12:53"), entry(key(Protocol::Tcp, DNS), None)]
}

fn two_wanted() -> Wanted {
    wanted(&[(key(Protocol::Udp, DNS), None), (key(Protocol::Udp, NTP), None)])
}

#[test]
fn kernel_that_filters_lists_once_for_each_destination() {
    let mut kernel = FakeKernel { table: table(), filters: true, ..FakeKernel::default() };
    let mut kernel_filters = true;
    assert_eq!(kernel.cleanse(&mut kernel_filters, &two_wanted()), 2);
    assert_eq!((kernel.table.as_slice(), kernel.lists.len(), kernel_filters), (&table()[2..], 2, true));
}

#[test]
fn kernel_that_ignores_or_rejects_filters_lists_all_entries_once() {
    for rejects in [false, true] {
        let mut kernel = FakeKernel { table: table(), rejects, ..FakeKernel::default() };
        let mut kernel_filters = true;
        assert_eq!(kernel.cleanse(&mut kernel_filters, &two_wanted()), 2);
        assert_eq!((kernel.table.as_slice(), kernel_filters), (&table()[2..], false));
        assert_eq!(kernel.lists.len(), if rejects { 2 } else { 1 });

        kernel.table = table();
        assert_eq!(kernel.cleanse(&mut kernel_filters, &two_wanted()), 2);
        assert_eq!(kernel.lists, [Filter::all(Family::V4)], "it is known by now");
    }
}

#[test]
fn kernel_without_conntrack_has_no_flows_and_can_filter_later() {
    let mut kernel = FakeKernel { has_no_conntrack: true, ..FakeKernel::default() };
    let mut kernel_filters = true;
    assert_eq!(kernel.cleanse(&mut kernel_filters, &two_wanted()), 0);
    assert!(kernel_filters);
}

#[test]
fn failed_conntrack_list_is_an_error() {
    let mut kernel_filters = true;
    let outcome = cleanse(&mut kernel_filters, Family::V4, &two_wanted(), |_| Err(Error::Interrupted));
    assert!(outcome.is_err() && kernel_filters);
}

#[test]
fn rejected_flow_deletion_stops_no_other() {
    let mut lists = 0;
    let outcome = cleanse(&mut true, Family::V4, &two_wanted(), |_| {
        lists += 1;
        let deleted = if lists == 1 { Err(Error::Overrun) } else { Ok(1) };
        Ok(Pass::Done { deleted, is_filtered: true })
    });
    assert!(matches!(outcome, Err(Error::Overrun)));
    assert_eq!(lists, 2);
}

#[test]
fn lists_are_rejected_for_unknown_filters_and_without_conntrack() {
    let rejection = |errno: Errno| KernelError::from_errno(errno.raw_os_error()).into();
    assert!(is_rejection(&rejection(Errno::INVAL)));
    assert!(!is_rejection(&rejection(Errno::PERM)));
    assert!(!is_rejection(&Error::Interrupted));
}
