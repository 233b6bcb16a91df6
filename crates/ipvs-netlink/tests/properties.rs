//! Encoded values decode to the same values, and no bytes make the decoders panic.

#![allow(clippy::unwrap_used)]

#[path = "../fuzz/check.rs"]
mod check;

use ipvs_netlink::{
    Daemon, DaemonRole, Destination, DestinationEntry, DestinationKey, Family, Forwarding, InterfaceName, Netmask,
    Persistence, PersistenceEngine, Protocol, Request, Scheduler, ServiceEntry, ServiceFlags, Timeouts, Tunnel,
    TunnelFlags, TunnelType, VirtualServer, VirtualServerKey,
    message::{
        Attributes, Command, CommandAttribute, DaemonAttribute, DestinationAttribute, FlagsAndMask, InfoAttribute,
        Message, ServiceAttribute, Stats64Attribute, StatsAttribute,
    },
};
use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED, NlasIterator, Parseable};
use proptest::{collection::vec, option, prelude::*};
use std::net::IpAddr;

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn key() -> impl Strategy<Value = VirtualServerKey> {
    prop_oneof![
        (any::<IpAddr>(), any::<u16>(), any::<u8>()).prop_map(|(address, port, protocol)| {
            VirtualServerKey::Address { address, port, protocol: Protocol::from_number(protocol) }
        }),
        (1u32.., family()).prop_map(|(mark, family)| VirtualServerKey::FirewallMark { mark, family }),
    ]
}

fn name() -> impl Strategy<Value = String> {
    "[!-.0-~]{1,15}"
}

fn service(family: Family) -> impl Strategy<Value = VirtualServer> {
    let netmask = any::<[u8; 4]>().prop_map(move |wire| Netmask::from_wire(family, wire));
    let persistence = (any::<u32>(), netmask).prop_map(|(timeout, netmask)| Persistence { timeout, netmask });
    (name(), any::<u32>(), option::of(persistence), option::of(name())).prop_map(
        |(scheduler, flags, persistence, engine)| VirtualServer {
            scheduler: scheduler.parse().unwrap(),
            flags: ServiceFlags::from_bits_retain(flags & !3),
            persistence,
            persistence_engine: engine.map(|engine| engine.parse().unwrap()),
        },
    )
}

fn destination() -> impl Strategy<Value = (DestinationKey, Destination)> {
    let key = (any::<IpAddr>(), any::<u16>()).prop_map(|(address, port)| DestinationKey { address, port });
    let tunnel = (any::<u8>(), any::<u16>(), any::<u16>()).prop_map(|(kind, port, flags)| Tunnel {
        kind: TunnelType::from_number(kind),
        port,
        flags: TunnelFlags::from_bits_retain(flags),
    });
    let forwarding = (0..8u32, tunnel).prop_map(|(number, tunnel)| Forwarding::from_number(number, tunnel));
    let how = (forwarding, any::<u32>(), any::<u32>(), any::<u32>()).prop_map(
        |(forwarding, weight, upper_threshold, lower_threshold)| Destination {
            forwarding,
            weight,
            upper_threshold,
            lower_threshold,
        },
    );
    (key, how)
}

fn daemon() -> impl Strategy<Value = Daemon> {
    let role = prop_oneof![Just(DaemonRole::Master), Just(DaemonRole::Backup)];
    let optional = (any::<Option<u16>>(), any::<Option<IpAddr>>(), any::<Option<u16>>(), any::<Option<u8>>());
    (role, name(), any::<u32>(), optional).prop_map(|(role, interface, sync_id, (max_length, group, port, ttl))| {
        Daemon { max_length, group, port, ttl, ..Daemon::new(role, interface.parse().unwrap(), sync_id) }
    })
}

fn unknown() -> impl Strategy<Value = DefaultNla> {
    (20..0x4000u16, any::<bool>(), vec(any::<u8>(), 0..40))
        .prop_map(|(kind, nested, value)| DefaultNla::new(if nested { kind | NLA_F_NESTED } else { kind }, value))
}

/// Any list of the given attributes, in any order and number.
macro_rules! list {
    ($type:ident: $($variant:ident($value:expr)),* $(,)?) => {
        vec(prop_oneof![$($value.prop_map($type::$variant),)* unknown().prop_map($type::Other)], 0..12)
    };
}

fn stats() -> impl Strategy<Value = Vec<StatsAttribute>> {
    list!(StatsAttribute: Connections(any::<u32>()), PacketsIn(any::<u32>()), PacketsOut(any::<u32>()),
        BytesIn(any::<u64>()), BytesOut(any::<u64>()), ConnectionRate(any::<u32>()), PacketRateIn(any::<u32>()),
        PacketRateOut(any::<u32>()), ByteRateIn(any::<u32>()), ByteRateOut(any::<u32>()))
}

fn stats64() -> impl Strategy<Value = Vec<Stats64Attribute>> {
    list!(Stats64Attribute: Connections(any::<u64>()), PacketsIn(any::<u64>()), PacketsOut(any::<u64>()),
        BytesIn(any::<u64>()), BytesOut(any::<u64>()), ConnectionRate(any::<u64>()), PacketRateIn(any::<u64>()),
        PacketRateOut(any::<u64>()), ByteRateIn(any::<u64>()), ByteRateOut(any::<u64>()))
}

fn service_attributes() -> impl Strategy<Value = Vec<ServiceAttribute>> {
    let scheduler = name().prop_map(|name| Scheduler::new(&name).unwrap());
    let engine = name().prop_map(|name| PersistenceEngine::new(&name).unwrap());
    let flags = any::<(u32, u32)>().prop_map(|(flags, mask)| FlagsAndMask { flags, mask });
    list!(ServiceAttribute: Family(any::<u16>()), Protocol(any::<u16>()), Address(any::<[u8; 16]>()),
        Port(any::<u16>()), FirewallMark(any::<u32>()), Scheduler(scheduler), Flags(flags),
        Timeout(any::<u32>()), Netmask(any::<[u8; 4]>()), Stats(stats()), PersistenceEngine(engine),
        Stats64(stats64()))
}

fn destination_attributes() -> impl Strategy<Value = Vec<DestinationAttribute>> {
    list!(DestinationAttribute: Address(any::<[u8; 16]>()), Port(any::<u16>()), Forwarding(any::<u32>()),
        Weight(any::<u32>()), UpperThreshold(any::<u32>()), LowerThreshold(any::<u32>()),
        ActiveConnections(any::<u32>()), InactiveConnections(any::<u32>()), PersistentConnections(any::<u32>()),
        Stats(stats()), Family(any::<u16>()), Stats64(stats64()), TunnelType(any::<u8>()),
        TunnelPort(any::<u16>()), TunnelFlags(any::<u16>()))
}

fn daemon_attributes() -> impl Strategy<Value = Vec<DaemonAttribute>> {
    let interface = name().prop_map(|name| InterfaceName::new(&name).unwrap());
    list!(DaemonAttribute: State(any::<u32>()), Interface(interface), SyncId(any::<u32>()),
        MaxLength(any::<u16>()), Group(any::<std::net::Ipv4Addr>()), Group6(any::<std::net::Ipv6Addr>()),
        Port(any::<u16>()), Ttl(any::<u8>()))
}

fn message() -> impl Strategy<Value = Message> {
    let info = list!(InfoAttribute: Version(any::<u32>()), ConnectionTableSize(any::<u32>()));
    let attributes = list!(CommandAttribute: Service(service_attributes()), Destination(destination_attributes()),
        Daemon(daemon_attributes()), TimeoutTcp(any::<u32>()), TimeoutTcpFin(any::<u32>()),
        TimeoutUdp(any::<u32>()));
    let command = any::<u8>().prop_map(Command::from_number).prop_filter("has its own", |c| *c != Command::SetInfo);
    prop_oneof![
        1 => info.prop_map(|list| Message { command: Command::SetInfo, attributes: Attributes::Info(list) }),
        5 => (command, attributes).prop_map(|(command, list)| {
            Message { command, attributes: Attributes::Command(list) }
        }),
    ]
}

fn encode(message: &Message) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

/// The attributes as netlink_packet_core encodes them.
fn by_the_library(bytes: &[u8]) -> Vec<u8> {
    let attribute = NlasIterator::new(bytes).map(|attribute| DefaultNla::parse(&attribute.unwrap()).unwrap());
    let attributes: Vec<_> = attribute.collect();
    let mut bytes = vec![0xff; attributes.as_slice().buffer_len()];
    attributes.as_slice().emit(&mut bytes);
    bytes
}

/// A request as the kernel would decode it.
fn sent(request: Request) -> Message {
    let message = Message::from(&request);
    Message::parse(message.command, &encode(&message)).unwrap()
}

proptest! {
    #[test]
    fn encoded_message_decodes_to_itself(message in message()) {
        prop_assert_eq!(Message::parse(message.command, &encode(&message)).unwrap(), message);
    }

    #[test]
    fn appended_message_equals_emitted_message(message in message()) {
        let mut appended = Vec::new();
        message.append_to(&mut appended);
        prop_assert_eq!(&appended[..4], &[message.command.number(), 1, 0, 0]);
        prop_assert_eq!(&appended[4..], encode(&message));
        prop_assert_eq!(&appended[4..], by_the_library(&appended[4..]));
    }

    #[test]
    fn appended_request_equals_its_message(service in key(), (key, destination) in destination()) {
        for request in [
            Request::AddDestination { service, key, destination },
            Request::UpdateDestination { service, key, destination },
            Request::DeleteDestination { service, key },
            Request::DeleteService { key: service },
        ] {
            let (mut straight, mut by_message) = (Vec::new(), Vec::new());
            request.append_to(&mut straight);
            Message::from(&request).append_to(&mut by_message);
            prop_assert_eq!(straight, by_message);
        }
    }

    #[test]
    fn services_are_read_back((key, service) in key().prop_flat_map(|key| (Just(key), service(key.family())))) {
        for request in [Request::AddService { key, service }, Request::UpdateService { key, service }] {
            let entry = ServiceEntry::try_from(&sent(request)).unwrap();
            prop_assert_eq!((entry.key, entry.service), (key, service));
        }
    }

    #[test]
    fn destinations_are_read_back(service in key(), (key, destination) in destination()) {
        let requests = [
            Request::AddDestination { service, key, destination },
            Request::UpdateDestination { service, key, destination },
        ];
        for request in requests {
            let entry = DestinationEntry::from_message(&sent(request), service.family()).unwrap();
            prop_assert_eq!((entry.key, entry.destination), (key, destination));
        }
    }

    #[test]
    fn daemons_are_read_back(daemon in daemon()) {
        prop_assert_eq!(Daemon::try_from(&sent(Request::StartDaemon(daemon))).unwrap(), daemon);
    }

    #[test]
    fn timeouts_are_read_back(tcp: u32, tcp_fin: u32, udp: u32) {
        let timeouts = Timeouts { tcp, tcp_fin, udp };
        prop_assert_eq!(Timeouts::from(&sent(Request::SetTimeouts(timeouts))), timeouts);
    }

    #[test]
    fn decoders_never_panic_on_arbitrary_bytes(bytes in vec(any::<u8>(), 0..200)) {
        check::check(&bytes);
    }

    #[test]
    fn no_broken_message_panics(message in message(), at: prop::sample::Index, value: u8, length: prop::sample::Index) {
        let mut bytes = [vec![message.command.number()], encode(&message)].concat();
        let at = at.index(bytes.len());
        bytes[at] = value;
        bytes.truncate(length.index(bytes.len()) + 1);
        check::check(&bytes);
    }
}

/// The longest possible attribute as a nest: its content must not grow when it is encoded again.
#[test]
fn longest_nests_decode_and_encode_without_growth() {
    for inner in [65_524u16, 65_525, 65_526, 65_527, 65_528, 65_529, 65_530, 65_531] {
        for outer in [inner + 4, (inner + 4).max(65_532), u16::MAX] {
            let mut bytes = vec![Command::NewService.number()];
            bytes.extend(outer.to_ne_bytes());
            bytes.extend(1u16.to_ne_bytes());
            bytes.extend(inner.to_ne_bytes());
            bytes.extend(99u16.to_ne_bytes());
            bytes.resize(1 + usize::from(u16::MAX) + 8, 0xab);
            for end in [usize::from(outer), usize::from(outer).next_multiple_of(4)] {
                check::check(&bytes[..=end]);
            }
        }
    }
}

/// The captured messages, as command number and attributes.
#[test]
fn mutated_ipvs_messages_are_read_without_panic_or_loss() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captured");
    let texts = std::fs::read_dir(folder).unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    let texts: Vec<String> = texts.collect();
    let messages = texts.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix(['>', '<']));
    let messages = messages.map(fuzz::hex).filter(|bytes| bytes.len() >= 20);
    let mut seeds: Vec<Vec<u8>> = messages.map(|bytes| [&bytes[16..17], &bytes[20..]].concat()).collect();
    seeds.sort();
    seeds.dedup();
    assert!(seeds.len() > 20, "{}", seeds.len());
    fuzz::fuzz("ipvs", seeds, check::check);
}
