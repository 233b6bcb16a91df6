//! Bytes captured between `ipset` 7.17 and Linux 6.1.

use super::*;
use crate::testing::key;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn read(hex: &str) -> Part {
    reply::part(request::LIST, &bytes(hex)).unwrap()
}

/// The requests equal those of the ipset tool, except for the family and the older protocol version.
#[test]
fn ipset_requests_match_bytes_of_the_ipset_tool() {
    for (command, kind, sent) in [
        (Command::ListHeaders, 0x607, "00000000 0500010006000000 0800064000000004"),
        (
            Command::List("KUBE-CLUSTER-IP".into()),
            0x607,
            "00000000 0500010006000000 14000200 4b5542452d434c55535445522d495000",
        ),
        (Command::Destroy("KUBE-NOT".into()), 0x603, "00000000 0500010006000000 0d000200 4b5542452d4e4f5400 000000"),
        (Command::Flush("KUBE-NOT".into()), 0x604, "00000000 0500010006000000 0d000200 4b5542452d4e4f5400 000000"),
    ] {
        assert_eq!((command.message_type(), command.bytes()), (kind, bytes(sent)));
    }
}

const NAME: &str = "02000000 0500010007000000 14000200 4b5542452d434c55535445522d495000";
const TYPE: &str = "11000300 686173683a69702c706f727400 000000 0500050002000000 0500040006000000 06000b4000000000";
const HEADER: &str = "3c000780 0800124000000400 0800134000010000 050015000c000000 08001140eb947cd0 0800194000000001 \
                      08001a4000000128 0800184000000002";

#[test]
fn ipset_header_message_gives_name_and_size() {
    let part = read(&format!("{NAME}{TYPE}{HEADER}"));
    assert_eq!(part, Part { set: "KUBE-CLUSTER-IP".into(), size: Some(2), entries: vec![] });
}

#[test]
fn ipset_entries_of_all_types_are_read() {
    let entry = |text: &str| {
        let key = key(text);
        Entry { address: Some(key.address), protocol: Some(key.protocol), port: Some(key.port) }
    };
    for (list, expected) in [
        // hash:ip,port
        (
            "44000880 20000780 0c000180080001000a60000a 0600044000350000 0500070011000000 \
             20000780 0c000180080001000a600001 0600044001bb0000 0500070006000000",
            vec![entry("UDP 10.96.0.10:53"), entry("TCP 10.96.0.1:443")],
        ),
        (
            "30000880 2c000780 1800018014000200fd000096000000000000000000000001 0600044001bb0000 0500070084000000",
            vec![entry("SCTP [fd00:96::1]:443")],
        ),
        // bitmap:port
        (
            "10000880 0c000780 0600044075800000",
            vec![Entry { address: None, protocol: None, port: Some(crate::testing::port(30080)) }],
        ),
        // hash:ip
        (
            "14000880 10000780 0c000180080001000a600001",
            vec![Entry { address: Some([10, 96, 0, 1].into()), protocol: None, port: None }],
        ),
        // hash:ip,port,net
        (
            "38000880 34000780 0c00018008000100c0a880c8 0c001480080001000a000000 0600044000500000 \
             0500150008000000 0500070006000000",
            vec![entry("TCP 192.168.128.200:80")],
        ),
        // hash:ip,port,ip
        (
            "30000880 2c000780 0c000180080001000af40102 0c001480080001000af40102 060004401f900000 0500070006000000",
            vec![entry("TCP 10.244.1.2:8080")],
        ),
    ] {
        let part = read(&format!("{NAME}{TYPE}{HEADER}{list}"));
        assert_eq!((part.size, part.entries), (Some(2), expected));
    }
}

#[test]
fn malformed_ipset_message_gives_no_set() {
    let part = |bytes: &[u8]| reply::part(request::LIST, bytes);
    let whole = bytes(&format!("{NAME}{TYPE}{HEADER}"));
    for end in 0..whole.len() {
        let _ = part(&whole[..end]);
    }
    assert_eq!(part(&[]), None);
    assert_eq!(part(&[0xff; 40]), None);
}

#[test]
fn ipsets_may_exist_only_if_their_module_is_loaded() {
    let modules = std::env::temp_dir().join(format!("kube-ipvs-modules-{}", std::process::id()));
    assert!(may_exist(&modules), "without /sys it is unknown");
    std::fs::create_dir_all(modules.join("ip_tables")).unwrap();
    assert!(!may_exist(&modules));
    std::fs::create_dir(modules.join("ip_set")).unwrap();
    assert!(may_exist(&modules));
    std::fs::remove_dir_all(&modules).unwrap();
}

#[test]
fn mutated_ipset_messages_are_read_without_panic() {
    let entries = "38000880 34000780 0c00018008000100c0a880c8 0c001480080001000a000000 0600044000500000 \
                   0500150008000000 0500070006000000";
    let seeds = [bytes(&format!("{NAME}{TYPE}{HEADER}")), bytes(&format!("{NAME}{TYPE}{HEADER}{entries}"))];
    fuzz::fuzz("ipset", seeds, |bytes| {
        if let Some(part) = reply::part(request::LIST, bytes) {
            assert!(!part.set.is_empty());
        }
    });
}
