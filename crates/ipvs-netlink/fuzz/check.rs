//! Invariants of the decoders for arbitrary bytes, shared by the fuzzers and the property tests.

use ipvs_netlink::{
    Daemon, DestinationEntry, Family, Info, Request, ServiceEntry, Timeouts, VirtualServerKey,
    message::{Command, Message},
};
use netlink_batch::attribute::{address, array, attributes, text};
use netlink_packet_core::{Emitable, NetlinkMessage};
use netlink_packet_generic::GenlMessage;

/// Decodes the bytes as a netlink message, and as attributes of the command that the first byte names.
pub(crate) fn check(bytes: &[u8]) {
    // Malformed bytes can cause an error. They must not panic.
    let _ = NetlinkMessage::<GenlMessage<Message>>::deserialize(bytes);
    check_attributes(bytes, 4);
    let Some((command, attributes)) = bytes.split_first() else { return };
    let Ok(message) = Message::parse(Command::from_number(*command), attributes) else { return };

    let encoded = encode(&message);
    let decoded = Message::parse(message.command, &encoded);
    assert_eq!(decoded.as_ref().ok(), Some(&message), "what was written is read back");
    assert_eq!(decoded.ok().map(|message| encode(&message)), Some(encoded), "and written the same again");

    check_typed(&message);
}

/// Reads bytes as attributes and each value as a nest. Every value lies within the bytes.
fn check_attributes(bytes: &[u8], depth: usize) {
    let mut read = 0;
    for (_, value) in attributes(bytes).filter(|_| depth > 0) {
        read += 4 + value.len();
        let _ = (text(value), address(value), array::<8>(value));
        check_attributes(value, depth - 1);
    }
    assert!(read <= bytes.len());
}

/// A value that was decoded from a message survives a round trip through a request.
fn check_typed(message: &Message) {
    let (_, _) = (Info::try_from(message), Timeouts::from(message));
    if let Ok(entry) = ServiceEntry::try_from(message) {
        let request = Request::AddService { key: entry.key, service: entry.service };
        let read = ServiceEntry::try_from(&Message::from(&request));
        if !matches!(entry.key, VirtualServerKey::FirewallMark { mark: 0, .. }) {
            assert_eq!(read.ok().map(|read| (read.key, read.service)), Some((entry.key, entry.service)));
        }
    }
    for family in [Family::V4, Family::V6] {
        let Ok(entry) = DestinationEntry::from_message(message, family) else { continue };
        let service = VirtualServerKey::FirewallMark { mark: 1, family };
        let request = Request::AddDestination { service, key: entry.key, destination: entry.destination };
        let read = DestinationEntry::from_message(&Message::from(&request), family);
        assert_eq!(read.ok().map(|read| (read.key, read.destination)), Some((entry.key, entry.destination)));
    }
    if let Ok(daemon) = Daemon::try_from(message) {
        assert_eq!(Daemon::try_from(&Message::from(&Request::StartDaemon(daemon))).ok(), Some(daemon));
    }
}

fn encode(message: &Message) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}
