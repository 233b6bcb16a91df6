use super::*;

/// Entries as Linux 6.1 dumps them. Except for the ID, they are cut after the attributes that kube-ipvs reads.
const UDP: &str = "02000000 \
    34000180 14000180 080001000a090909 080002000a60000a \
    1c000280 0500010011000000 0600020003e90000 0600030000350000 \
    34000280 14000180 080001000a010001 080002000a090909 \
    1c000280 0500010011000000 0600020014e90000 0600030003e90000";
const TCP_V6: &str = "0a000000 \
    4c000180 2c000180 14000300fd090000000000000000000000000009 14000400fd960000000000000000000000000010 \
    1c000280 0500010006000000 0600020003eb0000 0600030000350000 \
    4c000280 2c000180 14000300fd010000000000000000000000000001 14000400fd090000000000000000000000000009 \
    1c000280 0500010006000000 0600020014e90000 0600030003eb0000 \
    080003000000000e 0800080000000000 08000c002d0c7958";
const ZONE_AND_ID: &str = "0600120000070000 0800030000000000 08000c00bf5f75a1";
const ICMP: &str = "02000000 \
    3c000180 14000180 080001000a090909 080002000a60000a \
    24000280 0500010001000000 060004 00004d0000 0500050008000000 0500060000000000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn udp() -> Entry {
    Entry {
        to: VirtualServerKey { address: [10, 96, 0, 10].into(), protocol: Protocol::Udp, port: 53.try_into().unwrap() },
        source: [10, 9, 9, 9].into(),
        source_port: 1001,
        endpoint: Some(EndpointAddress { address: [10, 1, 0, 1].into(), port: 5353.try_into().unwrap() }),
        is_translated: false,
        id: None,
        zone: None,
        original_zone: None,
    }
}

fn tcp_v6() -> Entry {
    let at = |address: &str| address.parse::<IpAddr>().unwrap();
    Entry {
        to: VirtualServerKey { address: at("fd96::10"), protocol: Protocol::Tcp, ..udp().to },
        source: at("fd09::9"),
        source_port: 1003,
        endpoint: udp().endpoint.map(|old| EndpointAddress { address: at("fd01::1"), ..old }),
        id: Some([0x2d, 0x0c, 0x79, 0x58]),
        ..udp()
    }
}

#[test]
fn conntrack_entries_of_both_families_are_read() {
    assert_eq!(Entry::read(0x100, &bytes(UDP)), Some(udp()));
    assert_eq!(Entry::read(0x100, &bytes(TCP_V6)), Some(tcp_v6()));
    let zoned = Entry { id: Some([0xbf, 0x5f, 0x75, 0xa1]), zone: Some([0, 7]), ..udp() };
    assert_eq!(Entry::read(0x100, &bytes(&format!("{UDP}{ZONE_AND_ID}"))), Some(zoned));
    let translated = bytes(&TCP_V6.replace("080003000000000e", "080003000000002e"));
    assert_eq!(Entry::read(0x100, &translated), Some(Entry { is_translated: true, ..tcp_v6() }));
}

#[test]
fn conntrack_entries_of_other_types_protocols_and_port_0_are_skipped() {
    assert_eq!(Entry::read(0x102, &bytes(UDP)), None);
    assert_eq!(Entry::read(0x100, &bytes(ICMP)), None);
    assert_eq!(Entry::read(0x100, &bytes(&UDP.replace("0500010011", "0500010088"))), None);
    assert_eq!(Entry::read(0x100, &bytes(&UDP.replace("060003000035", "060003000000"))), None);
}

#[test]
fn malformed_reply_tuple_leaves_only_the_endpoint_unknown() {
    let nonsense = bytes(&UDP.replace("080001000a010001", "09000100ff010001"));
    assert_eq!(Entry::read(0x100, &nonsense), Some(Entry { endpoint: None, ..udp() }));
    let no_port = bytes(&UDP.replace("0600020014e9", "060002000000"));
    assert_eq!(Entry::read(0x100, &no_port), Some(Entry { endpoint: None, ..udp() }));
}

#[test]
fn malformed_conntrack_entries_do_not_panic() {
    for whole in [bytes(UDP), bytes(TCP_V6), bytes(ICMP), vec![0; 64], vec![0xff; 64]] {
        for end in 0..whole.len() {
            Entry::read(0x100, &whole[..end]);
            for value in [0, 1, 3, 5, 0x7f, 0xff] {
                let mut broken = whole.clone();
                broken[end] = value;
                if let Some(entry) = Entry::read(0x100, &broken) {
                    entry.delete(&mut Batch::new());
                }
            }
        }
    }
    assert_eq!(Entry::read(0x100, &bytes(UDP)[..4 + 0x33]), None);
}

#[test]
fn conntrack_list_request_names_the_family() {
    let mut batch = Batch::new();
    for family in Family::ALL {
        batch.push_with(GET, 0, |out| out.extend(header(family)));
    }
    let expected = "14000000 0101 0100 00000000 00000000 02000000 14000000 0101 0100 00000000 00000000 0a000000";
    assert_eq!(batch.as_bytes(), bytes(expected));
}

#[test]
fn conntrack_deletion_names_tuple_id_and_zone() {
    let mut batch = Batch::new();
    Entry { id: Some([1, 2, 3, 4]), zone: Some([0, 7]), ..udp() }.delete(&mut batch);
    let tuple = "14000180 080001000a090909 080002000a60000a \
        1c000280 0500010011000000 0600020003e90000 0600030000350000";
    let header = "0201 0100 00000000 00000000 02000000";
    let expected = format!("58000000 {header} 34000180 {tuple} 08000c0001020304 0600120000070000");
    assert_eq!(batch.as_bytes(), bytes(&expected));

    batch = Batch::new();
    Entry { original_zone: Some([0, 8]), ..udp() }.delete(&mut batch);
    let expected = format!("50000000 {header} 3c000180 {tuple} 0600030000080000");
    assert_eq!(batch.as_bytes(), bytes(&expected));
}

#[test]
fn conntrack_deletion_repeats_the_listed_entry() {
    for listed in [TCP_V6.to_owned(), format!("{UDP}{ZONE_AND_ID}")] {
        let listed = Entry::read(0x100, &bytes(&listed)).unwrap();
        let mut batch = Batch::new();
        listed.delete(&mut batch);
        let read = Entry::read(0x100, &batch.request(0)[16..]);
        assert_eq!(read, Some(Entry { endpoint: None, ..listed }));
    }
}

/// A delete request always has the tuple: without one, the kernel deletes all entries.
#[test]
fn mutated_conntrack_entry_is_deleted_by_its_tuple_or_skipped() {
    let seeds = [UDP.to_owned(), TCP_V6.to_owned(), format!("{UDP}{ZONE_AND_ID}"), ICMP.to_owned()];
    fuzz::fuzz("conntrack", seeds.map(|seed| bytes(&seed)), |bytes| {
        let Some(entry) = Entry::read(NEW, bytes) else { return };
        let mut batch = Batch::new();
        entry.delete(&mut batch);
        // Its length and its header are in front of the payload.
        let deleted = Entry::read(NEW, &batch.as_bytes()[16..]).map(|deleted| deleted.to);
        // The reply direction is not in it, and an IPv4 source can have an IPv6 destination in a malformed entry.
        assert!(deleted.is_none_or(|to| to == entry.to));
        let tuple = find(netfilter::attributes(&batch.as_bytes()[16..]), TUPLE_ORIGINAL);
        assert!(tuple.and_then(|tuple| find(tuple, TUPLE_IP)).is_some());
    });
}
