//! Messages of ipvsadm and of a real kernel, captured as the files in tests/captured describe.

#![allow(clippy::unwrap_used)]

use expect_test::{Expect, expect};
use ipvs_netlink::{
    Daemon, DestinationEntry, Family, Info, Request, ServiceEntry, Timeouts, VirtualServerKey,
    message::{Command, Message},
};
use netlink_packet_core::{Emitable, NLA_F_NESTED};

/// A captured message without the netlink header.
struct Captured {
    direction: char,
    message: Message,
    bytes: Vec<u8>,
}

fn captured(text: &str) -> Vec<Captured> {
    let lines = text.lines().filter_map(|line| {
        let direction = line.chars().next().filter(|first| "<>".contains(*first))?;
        let digits = line.trim_start_matches(['<', '>', ' ']).as_bytes();
        let hex = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        Some((direction, digits.chunks(2).map(hex).collect::<Vec<u8>>()))
    });
    lines
        .filter(|(_, bytes)| bytes[4..6] == 0x20u16.to_le_bytes())
        .map(|(direction, bytes)| {
            let message = Message::parse(Command::from_number(bytes[16]), &bytes[20..]).unwrap();
            Captured { direction, message, bytes: bytes[20..].to_vec() }
        })
        .collect()
}

/// Checks that each message is encoded as it was captured, and compares its decoded values.
fn check(text: &str, expected: Expect) {
    let mut said = String::new();
    for Captured { direction, message, bytes } in captured(text) {
        let mut written = vec![0; message.buffer_len()];
        message.emit(&mut written);
        assert_eq!(written, without_nested_flag(&bytes), "{message:?}");
        said.push_str(&format!("{direction} {}\n", describe(&message)));
    }
    expected.assert_eq(&said);
}

/// libnl sets `NLA_F_NESTED` on the outermost attributes. The kernel ignores it, and this crate does not write it.
fn without_nested_flag(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let kind = u16::from_ne_bytes([bytes[at + 2], bytes[at + 3]]) & !NLA_F_NESTED;
        bytes[at + 2..at + 4].copy_from_slice(&kind.to_ne_bytes());
        at += usize::from(u16::from_ne_bytes([bytes[at], bytes[at + 1]])).next_multiple_of(4);
    }
    bytes
}

fn describe(message: &Message) -> String {
    match message.command {
        Command::NewService | Command::SetService => {
            let ServiceEntry { key, service, stats, .. } = message.try_into().unwrap();
            let read: ServiceEntry = (&Message::from(&Request::AddService { key, service })).try_into().unwrap();
            assert_eq!((read.key, read.service), (key, service), "what we would set is what was read");
            format!("{key} {service:?}{}", if stats == Default::default() { "" } else { " with traffic" })
        }
        Command::NewDestination | Command::SetDestination => {
            // Only a request names the virtual server of a destination.
            let entry = DestinationEntry::from_message(message, Family::V4).unwrap();
            let DestinationEntry { key, destination, connections, .. } = entry;
            let service = VirtualServerKey::FirewallMark { mark: 1, family: Family::V4 };
            let request = Request::AddDestination { service, key, destination };
            let read = DestinationEntry::from_message(&Message::from(&request), Family::V4).unwrap();
            assert_eq!((read.key, read.destination), (key, destination), "what we would set is what was read");
            format!("{key} {destination:?} {connections:?}")
        }
        Command::NewDaemon => format!("{:?}", Daemon::try_from(message).unwrap()),
        Command::SetConfig => format!("{:?}", Timeouts::from(message)),
        Command::SetInfo => format!("{:?}", Info::try_from(message).unwrap()),
        _ => format!("{message:?}"),
    }
}

macro_rules! captured {
    ($($name:ident $file:literal $expected:expr;)*) => {
        $(
            #[test]
            fn $name() {
                check(include_str!(concat!("captured/", $file, ".hex")), $expected);
            }
        )*

        #[test]
        fn every_captured_file_has_a_test() {
            let known = [$(concat!($file, ".hex")),*];
            let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captured");
            for file in std::fs::read_dir(directory).unwrap() {
                let name = file.unwrap().file_name();
                assert!(known.iter().any(|file| name == *file), "{name:?}");
            }
        }
    };
}

captured! {
    add_again "add-again" expect![[r#"
        > TCP 10.0.0.1:80 VirtualServer { scheduler: Scheduler("rr"), flags: ServiceFlags(0x0), persistence: None, persistence_engine: None }
    "#]];
    add_destination_gre "add-destination-gre" expect![[r#"
        > 10.1.1.3:0 Destination { forwarding: Tunnel(Tunnel { kind: Gre, port: 0, flags: TunnelFlags(0x0) }), weight: 1, upper_threshold: 0, lower_threshold: 0 } Connections { active: 0, inactive: 0, persistent: 0 }
    "#]];
    add_destination_gue "add-destination-gue" expect![[r#"
        > 10.1.1.2:0 Destination { forwarding: Tunnel(Tunnel { kind: Gue, port: 6080, flags: TunnelFlags(CHECKSUM) }), weight: 1, upper_threshold: 0, lower_threshold: 0 } Connections { active: 0, inactive: 0, persistent: 0 }
    "#]];
    add_destination_mixed "add-destination-mixed" expect![[r#"
        > [fd00:1::2]:443 Destination { forwarding: Tunnel(Tunnel { kind: Ipip, port: 0, flags: TunnelFlags(0x0) }), weight: 1, upper_threshold: 0, lower_threshold: 0 } Connections { active: 0, inactive: 0, persistent: 0 }
    "#]];
    add_destination_v6 "add-destination-v6" expect![[r#"
        > [fd00:1::1]:53 Destination { forwarding: Direct, weight: 0, upper_threshold: 0, lower_threshold: 0 } Connections { active: 0, inactive: 0, persistent: 0 }
    "#]];
    add_destination "add-destination" expect![[r#"
        > 10.1.1.1:8080 Destination { forwarding: Masq, weight: 5, upper_threshold: 100, lower_threshold: 50 } Connections { active: 0, inactive: 0, persistent: 0 }
    "#]];
    add_service_fwmark_v6 "add-service-fwmark-v6" expect![[r#"
        > FWM 7 IPv6 VirtualServer { scheduler: Scheduler("nq"), flags: ServiceFlags(0x0), persistence: None, persistence_engine: None }
    "#]];
    add_service_fwmark "add-service-fwmark" expect![[r#"
        > FWM 7 VirtualServer { scheduler: Scheduler("wrr"), flags: ServiceFlags(0x0), persistence: None, persistence_engine: None }
    "#]];
    add_service_persistent "add-service-persistent" expect![[r#"
        > TCP 10.0.0.2:443 VirtualServer { scheduler: Scheduler("sh"), flags: ServiceFlags(SCHEDULER_1 | SCHEDULER_2), persistence: Some(Persistence { timeout: 10800, netmask: Netmask(V4(255.255.255.0)) }), persistence_engine: None }
    "#]];
    add_service_sctp "add-service-sctp" expect![[r#"
        > SCTP 10.0.0.4:99 VirtualServer { scheduler: Scheduler("lc"), flags: ServiceFlags(0x0), persistence: None, persistence_engine: None }
    "#]];
    add_service_sip "add-service-sip" expect![[r#"
        > UDP 10.0.0.3:5060 VirtualServer { scheduler: Scheduler("mh"), flags: ServiceFlags(ONE_PACKET), persistence: Some(Persistence { timeout: 60, netmask: Netmask(Host) }), persistence_engine: Some(PersistenceEngine("sip")) }
    "#]];
    add_service_v6 "add-service-v6" expect![[r#"
        > UDP [fd00::1]:53 VirtualServer { scheduler: Scheduler("wlc"), flags: ServiceFlags(ONE_PACKET), persistence: Some(Persistence { timeout: 300, netmask: Netmask(V6(64)) }), persistence_engine: None }
    "#]];
    add_service "add-service" expect![[r#"
        > TCP 10.0.0.1:80 VirtualServer { scheduler: Scheduler("rr"), flags: ServiceFlags(0x0), persistence: None, persistence_engine: None }
    "#]];
    delete_mixed "delete-mixed" expect![[r#"
        > Message { command: DelDestination, attributes: Command([Service([Family(2), Protocol(6), Address([10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Port(443), Other(DefaultNla { kind: 6, value: [0] }), Flags(FlagsAndMask { flags: 0, mask: 4294967295 }), Timeout(0), Netmask([255, 255, 255, 255])]), Destination([Family(10), Address([253, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]), Port(443), Forwarding(3), Weight(1), TunnelType(0), TunnelPort(0), TunnelFlags(0), UpperThreshold(0), LowerThreshold(0)])]) }
    "#]];
    delete_service "delete-service" expect![[r#"
        > Message { command: DelService, attributes: Command([Service([Family(2), FirewallMark(7), Other(DefaultNla { kind: 6, value: [0] }), Flags(FlagsAndMask { flags: 0, mask: 4294967295 }), Timeout(0), Netmask([255, 255, 255, 255])])]) }
    "#]];
    flush "flush" expect![[r#"
        > Message { command: Flush, attributes: Command([]) }
    "#]];
    info "info" expect![[r#"
        > Message { command: GetInfo, attributes: Command([]) }
        < Info { version: Version { major: 1, minor: 2, patch: 1 }, connection_table_size: 4096 }
    "#]];
    list_daemons "list-daemons" expect![[r#"
        > Message { command: GetDaemon, attributes: Command([]) }
        < Daemon { role: Master, interface: InterfaceName("d0"), sync_id: 7, max_length: Some(1400), group: Some(224.0.1.5), port: Some(9000), ttl: Some(3) }
        < Daemon { role: Backup, interface: InterfaceName("d0"), sync_id: 0, max_length: Some(1452), group: Some(ff02::5), port: Some(8848), ttl: Some(1) }
    "#]];
    list_timeouts "list-timeouts" expect![[r#"
        > Message { command: GetConfig, attributes: Command([]) }
        < Timeouts { tcp: 900, tcp_fin: 120, udp: 300 }
    "#]];
    list "list" expect![[r#"
        > Message { command: GetService, attributes: Command([]) }
        < UDP [fd00::1]:53 VirtualServer { scheduler: Scheduler("wlc"), flags: ServiceFlags(ONE_PACKET), persistence: Some(Persistence { timeout: 300, netmask: Netmask(V6(64)) }), persistence_engine: None }
        < TCP 10.0.0.1:80 VirtualServer { scheduler: Scheduler("rr"), flags: ServiceFlags(0x0), persistence: None, persistence_engine: None }
        < TCP 10.0.0.2:443 VirtualServer { scheduler: Scheduler("sh"), flags: ServiceFlags(SCHEDULER_1 | SCHEDULER_2), persistence: Some(Persistence { timeout: 10800, netmask: Netmask(V4(255.255.255.0)) }), persistence_engine: None }
        < UDP 10.0.0.3:5060 VirtualServer { scheduler: Scheduler("mh"), flags: ServiceFlags(ONE_PACKET), persistence: Some(Persistence { timeout: 60, netmask: Netmask(Host) }), persistence_engine: Some(PersistenceEngine("sip")) }
        < SCTP 10.0.0.4:99 VirtualServer { scheduler: Scheduler("lc"), flags: ServiceFlags(0x0), persistence: None, persistence_engine: None }
        < FWM 7 IPv6 VirtualServer { scheduler: Scheduler("nq"), flags: ServiceFlags(0x0), persistence: None, persistence_engine: None }
        < FWM 7 VirtualServer { scheduler: Scheduler("wrr"), flags: ServiceFlags(0x0), persistence: None, persistence_engine: None }
        > Message { command: GetDestination, attributes: Command([Service([Family(2), Protocol(6), Address([10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Port(80)])]) }
        < 10.1.1.1:8080 Destination { forwarding: Masq, weight: 6, upper_threshold: 0, lower_threshold: 0 } Connections { active: 0, inactive: 0, persistent: 0 }
        > Message { command: GetDestination, attributes: Command([Service([Family(2), Protocol(6), Address([10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Port(443)])]) }
        < [fd00:1::2]:443 Destination { forwarding: Tunnel(Tunnel { kind: Ipip, port: 0, flags: TunnelFlags(0x0) }), weight: 1, upper_threshold: 0, lower_threshold: 0 } Connections { active: 0, inactive: 0, persistent: 0 }
        > Message { command: GetDestination, attributes: Command([Service([Family(2), Protocol(17), Address([10, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Port(5060)])]) }
        > Message { command: GetDestination, attributes: Command([Service([Family(2), Protocol(132), Address([10, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Port(99)])]) }
        > Message { command: GetDestination, attributes: Command([Service([Family(10), Protocol(17), Address([253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), Port(53)])]) }
        < [fd00:1::1]:53 Destination { forwarding: Direct, weight: 0, upper_threshold: 0, lower_threshold: 0 } Connections { active: 0, inactive: 0, persistent: 0 }
        > Message { command: GetDestination, attributes: Command([Service([Family(2), FirewallMark(7)])]) }
        < 10.1.1.3:0 Destination { forwarding: Tunnel(Tunnel { kind: Gre, port: 0, flags: TunnelFlags(0x0) }), weight: 1, upper_threshold: 0, lower_threshold: 0 } Connections { active: 0, inactive: 0, persistent: 0 }
        < 10.1.1.2:0 Destination { forwarding: Tunnel(Tunnel { kind: Gue, port: 6080, flags: TunnelFlags(CHECKSUM) }), weight: 1, upper_threshold: 0, lower_threshold: 0 } Connections { active: 0, inactive: 0, persistent: 0 }
        > Message { command: GetDestination, attributes: Command([Service([Family(10), FirewallMark(7)])]) }
    "#]];
    no_scheduler "no-scheduler" expect![[r#"
        > TCP 10.0.0.9:80 VirtualServer { scheduler: Scheduler("nosuch"), flags: ServiceFlags(0x0), persistence: None, persistence_engine: None }
    "#]];
    set_timeout "set-timeout" expect![[r#"
        > Timeouts { tcp: 1000, tcp_fin: 100, udp: 50 }
    "#]];
    start_daemon_v6 "start-daemon-v6" expect![[r#"
        > Daemon { role: Backup, interface: InterfaceName("d0"), sync_id: 0, max_length: None, group: Some(ff02::5), port: None, ttl: None }
    "#]];
    start_daemon "start-daemon" expect![[r#"
        > Daemon { role: Master, interface: InterfaceName("d0"), sync_id: 7, max_length: Some(1400), group: Some(224.0.1.5), port: Some(9000), ttl: Some(3) }
    "#]];
    stop_daemon_backup "stop-daemon-backup" expect![[r#"
        > Message { command: DelDaemon, attributes: Command([Daemon([State(2), Other(DefaultNla { kind: 2, value: [0] }), SyncId(0)])]) }
    "#]];
    stop_daemon "stop-daemon" expect![[r#"
        > Message { command: DelDaemon, attributes: Command([Daemon([State(1), Other(DefaultNla { kind: 2, value: [0] }), SyncId(0)])]) }
    "#]];
    update_destination "update-destination" expect![[r#"
        > 10.1.1.1:8080 Destination { forwarding: Masq, weight: 6, upper_threshold: 0, lower_threshold: 0 } Connections { active: 0, inactive: 0, persistent: 0 }
    "#]];
    zero_one "zero-one" expect![[r#"
        > Message { command: Zero, attributes: Command([Service([Family(2), Protocol(6), Address([10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Port(80), Other(DefaultNla { kind: 6, value: [0] }), Flags(FlagsAndMask { flags: 0, mask: 4294967295 }), Timeout(0), Netmask([255, 255, 255, 255])])]) }
    "#]];
    zero "zero" expect![[r#"
        > Message { command: Zero, attributes: Command([]) }
    "#]];
}
