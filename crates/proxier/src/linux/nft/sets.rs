//! The sets and the map that the rules look up.

use netlink_batch::attribute::{nest, put, put_text, put_with};

use super::{Table, kind, transaction::Request, userdata};
use crate::{
    linux::Names,
    model::Family,
    set::{
        ALLOWED, ARP_IGNORE, GATEWAYS, HAIRPIN, HEALTH_CHECKS, KeySet, OUTSIDE, POD_SOURCES, REMOTE_PODS,
        SERVICE_RANGES, SHORT_CIRCUITS, VIPS,
    },
};

/// nft's number of a data type, by which `nft` prints values, and the length in bytes.
#[derive(Clone, Copy)]
struct Type(u32, u32);

const ADDRESS_V4: Type = Type(7, 4);
const ADDRESS_V6: Type = Type(8, 16);
const PROTOCOL: Type = Type(12, 1);
const PORT: Type = Type(13, 2);

const PLAIN: u32 = 0;

/// The bits of each field's type in the type number of a concatenation.
const TYPE_BITS: u32 = 6;

pub(super) fn sets(table: Table, names: &Names) -> Vec<Request> {
    let device = names.device();
    let address = match table {
        Table::Ip(Family::V4) => ADDRESS_V4,
        Table::Ip(Family::V6) => ADDRESS_V6,
        Table::Arp => {
            let comment = format!("addresses on {device}: this node neither answers ARP for them nor announces them");
            return vec![set(ARP_IGNORE, &[ADDRESS_V4], PLAIN, &comment)];
        }
    };
    let key = [address, PROTOCOL, PORT];
    let keys = KeySet::ALL.map(|kind| set(kind.name(), &key, PLAIN, comment(kind)));
    let mut sets = Vec::from(keys);
    sets.extend([
        set(VIPS, &[address], PLAIN, &format!("addresses that kube-ipvs bound to {device}")),
        set(
            ALLOWED,
            &[address, PROTOCOL, PORT, address],
            kind::INTERVAL | kind::CONCATENATION,
            "allowed clients of the virtual servers in the set firewall",
        ),
        set(
            HAIRPIN,
            &[address, address, PROTOCOL, PORT],
            PLAIN,
            "endpoints on this node or on no named node, each with itself",
        ),
        set(HEALTH_CHECKS, &key, PLAIN, "health check ports of Services on VIPs"),
        set(SERVICE_RANGES, &[address], kind::INTERVAL, "ranges of ClusterIPs"),
        set(GATEWAYS, &[address], PLAIN, "gateways of the default routes"),
        set(POD_SOURCES, &[address], kind::INTERVAL, "pods"),
        set(REMOTE_PODS, &[address], kind::INTERVAL, "pods of other nodes, if kube-ipvs can distinguish them"),
        set(
            OUTSIDE,
            &[address],
            kind::INTERVAL,
            "clients outside the cluster: all except pods, if a pod range is known",
        ),
        map(SHORT_CIRCUITS, &key, &[address, PORT], "short circuits: new destinations for clients in the cluster"),
    ]);
    sets
}

fn comment(kind: KeySet) -> &'static str {
    match kind {
        KeySet::Served => "virtual servers that kube-ipvs made, each with its Service port",
        KeySet::MasqueradeAlways => "on addresses of this node, policy Cluster",
        KeySet::MasqueradeInside => "on addresses of this node, policy Local",
        KeySet::ClusterIps => "ClusterIPs: clients outside the cluster are masqueraded",
        KeySet::External => "external and load-balancer IPs, policy Cluster: all clients except pods are masqueraded",
        KeySet::NoEndpoints => "new connections are rejected",
        KeySet::NoLocalEndpoints => "new connections are dropped",
        KeySet::NoLocalEndpointsExternal => {
            "new connections from outside are dropped: a load balancer tries another node"
        }
        KeySet::Firewall => "only clients in source ranges reach them",
        KeySet::ShortCircuitTarget => "only for clients that took a short circuit",
        KeySet::DirectReturn => "forwarded without NAT: endpoints answer clients themselves",
        KeySet::Foreign => "virtual servers of other programs",
    }
}

fn set(name: &str, key: &[Type], flags: u32, comment: &str) -> Request {
    Request::new(kind::NEW_SET, |out| put_set(out, name, key, flags, comment))
}

fn map(name: &str, key: &[Type], data: &[Type], comment: &str) -> Request {
    Request::new(kind::NEW_SET, |out| {
        put_set(out, name, key, kind::MAP, comment);
        put(out, kind::SET_DATA_TYPE, number(data).to_be_bytes());
        put(out, kind::SET_DATA_LENGTH, length(data).to_be_bytes());
    })
}

fn put_set(out: &mut Vec<u8>, name: &str, key: &[Type], flags: u32, comment: &str) {
    put_text(out, kind::SET_NAME, name);
    put(out, kind::SET_FLAGS, flags.to_be_bytes());
    put(out, kind::SET_KEY_TYPE, number(key).to_be_bytes());
    put(out, kind::SET_KEY_LENGTH, length(key).to_be_bytes());
    // The kernel needs an ID only to tell sets of one transaction apart. The requests refer to sets by name.
    put(out, kind::SET_ID, 1u32.to_be_bytes());
    put(out, kind::SET_USER_DATA, userdata::comment(userdata::SET_COMMENT, comment));
    if flags & kind::CONCATENATION != 0 {
        let field = |out: &mut Vec<u8>, Type(_, length): &Type| {
            nest(out, kind::LIST_ELEMENT, |out| put(out, kind::FIELD_LENGTH, length.to_be_bytes()));
        };
        nest(out, kind::SET_DESCRIPTION, |out| {
            put_with(out, kind::DESCRIPTION_FIELDS, |out| key.iter().for_each(|each| field(out, each)));
        });
    }
}

fn number(types: &[Type]) -> u32 {
    types.iter().fold(0, |number, Type(kind, _)| number << TYPE_BITS | kind)
}

/// Each field of a concatenation is padded to four bytes.
fn length(types: &[Type]) -> u32 {
    types.iter().map(|Type(_, length)| length.next_multiple_of(4)).sum()
}
