//! Faults of the kernel, and changes by other programs.

use proptest::{
    prelude::*,
    sample::{Index, select},
};
use proxier::{
    fake::FakeKernel,
    kernel::Kernel,
    model::Family,
    plan::{Change, Plan},
    set::Element,
};

#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    reject: Vec<String>,
    unanswered: Vec<String>,
    unconfirmed: Vec<String>,
    unlisted: Vec<String>,
    unreadable: bool,
}

impl Faults {
    pub(crate) fn inject(self, kernel: &mut FakeKernel) {
        let Self { reject, unanswered, unconfirmed, unlisted, unreadable } = self;
        *kernel = FakeKernel { reject, unanswered, unconfirmed, unlisted, unreadable, ..std::mem::take(kernel) };
    }
}

/// Faults with at most `gaps` texts whose objects dumps omit.
pub(crate) fn faults(gaps: usize) -> impl Strategy<Value = Faults> {
    let changes = [
        "- address",
        "+ address 10.0.0.1",
        "+ address",
        "- virtual server",
        "+ virtual server TCP 10.0.0.1:80",
        "+ virtual server",
        "~ virtual server",
        "+ real server",
        "- real server",
        "~ real server",
        "+ element served { 10.0.0.1",
        "~ element",
        "+ element vips",
        "+ element arp-ignore",
        "- element arp-ignore",
        "element pod-sources",
        "element outside",
        "element firewall-allowed",
        "element short-circuits",
        "+ element",
        "- element served",
        "- element vips",
        "- element",
    ];
    let entries = [
        "virtual server",
        "virtual server TCP 10.0.0.1:80",
        "real server",
        "-> 10.1.0.1:",
        "element",
        "element served",
        "element vips",
        "element short-circuits",
        "element firewall-allowed",
        "element pod-sources",
        "element service-ranges",
        "element outside",
        "10.0.0.1",
    ];
    let some = |texts: &[&str], most| {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        prop::collection::vec(select(texts), 0..=most)
    };
    let unreadable = prop::bool::weighted(0.1);
    (some(&changes, 2), some(&changes, 1), some(&changes, 1), some(&entries, gaps), unreadable).prop_map(
        |(reject, unanswered, unconfirmed, unlisted, unreadable)| Faults {
            reject,
            unanswered,
            unconfirmed,
            unlisted,
            unreadable,
        },
    )
}

#[derive(Debug, Clone)]
pub(crate) enum Others {
    /// `ipvsadm --clear`
    ClearIpvs,
    /// `nft flush ruleset`
    FlushRuleset,
    /// `ip link delete kube-ipvs0`
    DeleteDevice,
    DeleteServer(Index),
    DeleteRealServers(Index),
    DisableRealServers(Index),
    DeleteElement(Index),
    RenameElement(Index),
    DeleteAddress(Index),
    /// `nft add element`
    AddElement(Element),
}

/// `None` in most cases.
pub(crate) fn others() -> impl Strategy<Value = Option<Others>> {
    let range = select(vec!["10.1.0.0/28", "10.0.0.0/9", "fd01::/80", "0.0.0.0/1"]);
    let range = range.prop_map(|range| range.parse().unwrap());
    let kind = select(vec![Element::ServiceRange, Element::PodSource, Element::RemotePod]);
    let range = (kind, range).prop_map(|(kind, range)| kind(range));
    let element = prop_oneof![range, Just(Element::Outside(Family::V6))];
    let index = || any::<Index>();
    let one = prop_oneof![
        Just(Others::ClearIpvs),
        Just(Others::FlushRuleset),
        Just(Others::DeleteDevice),
        index().prop_map(Others::DeleteServer),
        index().prop_map(Others::DeleteRealServers),
        index().prop_map(Others::DisableRealServers),
        index().prop_map(Others::DeleteElement),
        index().prop_map(Others::RenameElement),
        index().prop_map(Others::DeleteAddress),
        element.prop_map(Others::AddElement),
    ];
    prop::option::weighted(0.3, one)
}

impl Others {
    pub(crate) fn act(&self, kernel: &mut FakeKernel) {
        let servers = &mut kernel.virtual_servers;
        let elements = kernel.elements.get_or_insert_default();
        match self {
            Self::ClearIpvs => servers.clear(),
            Self::FlushRuleset => kernel.elements = None,
            Self::DeleteDevice => kernel.addresses = None,
            Self::DeleteServer(index) => {
                pick(index, servers.keys().copied()).map(|key| servers.remove(&key));
            }
            Self::DeleteRealServers(index) => {
                pick(index, servers.values_mut()).into_iter().for_each(|server| server.real_servers.clear());
            }
            Self::DisableRealServers(index) => {
                let server = pick(index, servers.values_mut()).into_iter();
                server.flat_map(|it| it.real_servers.iter_mut()).for_each(|(_, to)| to.weight = 0);
            }
            Self::DeleteElement(index) => {
                pick(index, elements.keys().copied()).map(|element| elements.remove(&element));
            }
            Self::RenameElement(index) => {
                pick(index, elements.values_mut()).map(|comment| comment.replace("theirs".into()));
            }
            Self::DeleteAddress(index) => {
                let addresses = kernel.addresses.get_or_insert_default();
                pick(index, addresses.iter().copied()).map(|address| addresses.remove(&address));
            }
            Self::AddElement(element) => {
                let change = Change::AddElement { element: *element, comment: None, replace: false };
                kernel.apply(&Plan::new(vec![change]));
            }
        }
    }
}

fn pick<T>(index: &Index, mut all: impl ExactSizeIterator<Item = T>) -> Option<T> {
    let count = all.len();
    all.nth(index.index(count.max(1)))
}
