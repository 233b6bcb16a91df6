use expect_test::{Expect, expect};
use netlink_batch::attribute::put_text;
use netlink_packet_core::{DefaultNla, Emitable, NetlinkSerializable};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage},
    route::RouteMessage,
};

use super::*;

fn heard(
    message: &impl NetlinkSerializable,
    hears: fn(&Names, u16, &[u8]) -> Option<Drift>,
    names: &Names,
) -> Option<Drift> {
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    hears(names, message.message_type(), &bytes)
}

fn check(message: RouteNetlinkMessage, expected: Expect) {
    expected.assert_eq(&format!("{:?}", heard(&message, in_devices, &Names::default())));
}

fn link(name: &str, flags: LinkFlags) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.flags = flags;
    link.attributes.push(LinkAttribute::IfName(name.into()));
    link
}

fn route(length: u8) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.destination_prefix_length = length;
    route
}

#[test]
fn table_notice_is_drift_only_for_own_table() {
    const DELETE_TABLE: u16 = 0xa02;
    let of = |name: &str, names: &Names| {
        let mut payload = netfilter::header(10).to_vec();
        put_text(&mut payload, OF_TABLE, name);
        in_nftables(names, DELETE_TABLE, &payload)
    };
    let names = Names::default();
    let found = ["kube-ipvs", "kube-ipvs-2", "filter"].map(|table| of(table, &names));
    assert_eq!(found, [Some(Drift::Any), None, None]);
    let names = Names::new("kube-ipvs-2", "two").unwrap();
    let found = ["kube-ipvs", "kube-ipvs-2"].map(|table| of(table, &names));
    assert_eq!(found, [None, Some(Drift::Any)]);
}

#[test]
fn device_notice_is_drift_only_if_own_device_is_set_up_or_removed() {
    use RouteNetlinkMessage::{DelLink, NewLink};
    check(NewLink(link("kube-ipvs0", LinkFlags::Up)), expect!["Some(Any)"]);
    check(NewLink(link("kube-ipvs0", LinkFlags::Noarp)), expect!["None"]);
    check(NewLink(link("eth0", LinkFlags::Up)), expect!["None"]);
    check(DelLink(link("kube-ipvs0", LinkFlags::Noarp)), expect!["Some(Any)"]);
    check(DelLink(link("eth0", LinkFlags::Up)), expect!["None"]);
    let names = Names::new("two", "proxy0").unwrap();
    let removed = |name| heard(&DelLink(link(name, LinkFlags::Noarp)), in_devices, &names);
    assert_eq!(["kube-ipvs0", "proxy0"].map(removed), [None, Some(Drift::Any)]);
}

#[test]
fn address_removal_notice_is_unbound_drift() {
    use RouteNetlinkMessage::{DelAddress, NewAddress};
    let address = |text: &str| {
        let mut message = AddressMessage::default();
        message.attributes.push(AddressAttribute::Address(text.parse().unwrap()));
        message
    };
    check(DelAddress(address("10.96.0.10")), expect!["Some(Unbound(10.96.0.10))"]);
    check(DelAddress(address("fd00::10")), expect!["Some(Unbound(fd00::10))"]);
    check(NewAddress(address("10.96.0.10")), expect!["None"]);
    // On a point-to-point link, `Address` is the peer's address.
    let mut to_peer = address("10.0.0.1");
    to_peer.attributes.push(AddressAttribute::Local("10.96.0.10".parse().unwrap()));
    check(DelAddress(to_peer), expect!["Some(Unbound(10.96.0.10))"]);
}

#[test]
fn default_route_notice_is_gateway_drift() {
    check(RouteNetlinkMessage::NewRoute(route(0)), expect!["Some(Gateways)"]);
    check(RouteNetlinkMessage::DelRoute(route(0)), expect!["Some(Gateways)"]);
    check(RouteNetlinkMessage::NewRoute(route(24)), expect!["None"]);
}

#[test]
fn malformed_notices_do_not_panic() {
    let names = Names::default();
    let attribute = DefaultNla::new(3, vec![0xff; 3]);
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    for (kind, length) in (0..40).flat_map(|kind| (0..bytes.len()).map(move |length| (kind, length))) {
        let _ = in_devices(&names, kind, &bytes[..length]);
        assert_eq!(in_nftables(&names, 0x0a00 | kind, &bytes[..length]), None);
    }
}

#[test]
fn mutated_notices_are_read_without_panic() {
    let names = Names::default();
    let mut table = Vec::new();
    attribute::put_text(&mut table, OF_TABLE, names.table());
    let link = [&[0, 0, 1, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..], b"\x0f\0\x03\0kube-ipvs0\0\0"].concat();
    let address = [&[2, 32, 0, 0, 7, 0, 0, 0][..], &[8, 0, 1, 0, 10, 96, 0, 1], &[8, 0, 2, 0, 10, 96, 0, 1]].concat();
    let seeds = [[&[2, 0, 0, 0][..], &table].concat(), link.clone(), address.clone()];
    assert_eq!(in_devices(&names, 16, &link), Some(Drift::Any));
    assert_eq!(in_devices(&names, 21, &address), Some(Drift::Unbound([10, 96, 0, 1].into())));
    fuzz::fuzz("notices", seeds, |bytes| {
        for kind in 16..26 {
            in_devices(&names, kind, bytes);
        }
        let _ = in_nftables(&names, u16::from_be_bytes([netfilter::NFTABLES, 0]), bytes);
    });
}
