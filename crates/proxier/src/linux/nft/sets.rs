//! The sets and the map that the rules look things up in.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    NfTablesMessage, SetAttribute, SetDescription, SetFlags, SetMessage,
};

use super::{Table, userdata};
use crate::{
    linux::Names,
    model::Family,
    set::{
        ALLOWED, ARP_IGNORE, GATEWAYS, HAIRPIN, HEALTH_CHECKS, KeySet, OUTSIDE, POD_SOURCES, REMOTE_PODS,
        SERVICE_RANGES, SHORT_CIRCUITS, VIPS,
    },
};

/// The type of a field: nft's number for it, by which its tool knows how to print it, and its length in bytes.
#[derive(Clone, Copy)]
struct Type(u32, u32);

const ADDRESS_V4: Type = Type(7, 4);
const ADDRESS_V6: Type = Type(8, 16);
const PROTOCOL: Type = Type(12, 1);
const PORT: Type = Type(13, 2);

/// How many bits nft's number of a type takes in the number of a concatenation.
const TYPE_BITS: u32 = 6;

/// The requests that make them, if they are not there.
pub(super) fn sets(table: Table, names: &Names) -> Vec<NfTablesMessage> {
    let set = |name: &str, key: &[Type], flags, comment: &str| {
        NfTablesMessage::NewSet(SetMessage { attributes: attributes(names, name, key, flags, comment) })
    };
    let device = names.device();
    let address = match table {
        Table::Ip(Family::V4) => ADDRESS_V4,
        Table::Ip(Family::V6) => ADDRESS_V6,
        Table::Arp => {
            let comment = format!("addresses on {device}: this node neither answers for them nor names them");
            return vec![set(ARP_IGNORE, &[ADDRESS_V4], SetFlags::empty(), &comment)];
        }
    };
    let key = [address, PROTOCOL, PORT];
    let (plain, interval) = (SetFlags::empty(), SetFlags::Interval);
    let keys = KeySet::ALL.map(|kind| set(kind.name(), &key, plain, comment(kind)));
    let mut sets = Vec::from(keys);
    sets.extend([
        set(VIPS, &[address], plain, &format!("addresses that kube-ipvs bound to {device}")),
        set(
            ALLOWED,
            &[address, PROTOCOL, PORT, address],
            interval | SetFlags::Concat,
            "who may reach what the set firewall has",
        ),
        set(
            HAIRPIN,
            &[address, address, PROTOCOL, PORT],
            plain,
            "endpoints that may be on this node, as they reach themselves",
        ),
        set(HEALTH_CHECKS, &key, plain, "where load balancers ask this node for a Service's health"),
        set(SERVICE_RANGES, &[address], interval, "where ClusterIPs are taken from"),
        set(GATEWAYS, &[address], plain, "where this node sends what it knows no other way to"),
        set(POD_SOURCES, &[address], interval, "pods"),
        set(
            REMOTE_PODS,
            &[address],
            interval,
            "pods of other nodes, if they can be told from those of this one",
        ),
        set(
            OUTSIDE,
            &[address],
            interval,
            "clients outside the cluster: all but pods, if pod ranges are known",
        ),
        map(names, SHORT_CIRCUITS, &key, &[address, PORT], "where clients in the cluster are sent instead"),
    ]);
    sets
}

fn comment(kind: KeySet) -> &'static str {
    match kind {
        KeySet::Served => "virtual servers that kube-ipvs made, and for which Service port",
        KeySet::MasqueradeAlways => "on addresses of this node, policy Cluster",
        KeySet::MasqueradeInside => "on addresses of this node, policy Local",
        KeySet::ClusterIps => "masqueraded from outside the cluster",
        KeySet::External => {
            "external and load-balancer IPs of the policy Cluster: pods alone are not masqueraded"
        }
        KeySet::NoEndpoints => "new connections are refused",
        KeySet::NoLocalEndpoints => "new connections are dropped",
        KeySet::NoLocalEndpointsExternal => {
            "new connections from outside are dropped: a load balancer tries another node"
        }
        KeySet::Firewall => "only for some sources",
        KeySet::ShortCircuitTarget => "only for what a short circuit sends here",
        KeySet::DirectReturn => "forwarded without NAT: endpoints answer clients themselves",
        KeySet::Foreign => "virtual servers of other programs",
    }
}

fn map(names: &Names, name: &str, key: &[Type], data: &[Type], comment: &str) -> NfTablesMessage {
    let mut attributes = attributes(names, name, key, SetFlags::Map, comment);
    attributes.extend([SetAttribute::DataType(number(data)), SetAttribute::DataLen(length(data))]);
    NfTablesMessage::NewSet(SetMessage { attributes })
}

fn attributes(names: &Names, name: &str, key: &[Type], flags: SetFlags, comment: &str) -> Vec<SetAttribute> {
    let mut attributes = vec![
        SetAttribute::Table(names.table().into()),
        SetAttribute::Name(name.into()),
        SetAttribute::Flags(flags),
        SetAttribute::KeyType(number(key)),
        SetAttribute::KeyLen(length(key)),
        // Any number tells sets of one transaction apart; they are referred to by name.
        SetAttribute::Id(1),
        SetAttribute::UserData(userdata::comment(userdata::SET_COMMENT, comment)),
    ];
    if flags.contains(SetFlags::Concat) {
        // NFTA_LIST_ELEM of NFTA_SET_FIELD_LEN: how long each field is.
        let field = |field: &Type| {
            let length = [&[8, 0, 1, 0][..], &field.1.to_be_bytes()].concat();
            DefaultNla::new(1 | netlink_packet_core::NLA_F_NESTED, length)
        };
        let fields = key.iter().map(field).collect();
        attributes.push(SetAttribute::Description(vec![SetDescription::Concat(fields)]));
    }
    attributes
}

fn number(types: &[Type]) -> u32 {
    types.iter().fold(0, |number, Type(kind, _)| number << TYPE_BITS | kind)
}

/// Fields of a concatenation are filled up to four bytes each.
fn length(types: &[Type]) -> u32 {
    types.iter().map(|Type(_, length)| length.next_multiple_of(4)).sum()
}
