//! Packets that no TCP stack would send.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::namespace::Namespace;

/// Sends IPv4 TCP segments with a byte of data from inside a namespace. Their sequence numbers are spread over the
/// whole sequence space, and none is near those of the connection. conntrack marks numbers beyond the window as
/// INVALID. It takes numbers below the window for retransmissions.
pub fn send_out_of_window(namespace: &Namespace, from: SocketAddr, to: SocketAddr) -> Result<()> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else {
        bail!("{from} to {to}: IPv4 only");
    };
    namespace.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).context("a raw socket")?;
        let target = SockAddr::from(SocketAddrV4::new(*to.ip(), 0));
        for eighth in 0..8u32 {
            let segment = segment(from, to, eighth << 29, ACK_AND_PUSH);
            socket.send_to(&segment, &target).context("sending a raw segment")?;
        }
        Ok(())
    })
}

/// Sends the first segment of a TCP connection from inside a namespace, with another IPv4 protocol number.
pub fn send_syn_as(namespace: &Namespace, protocol: u8, from: SocketAddrV4, to: SocketAddrV4) -> Result<()> {
    namespace.enter(|| {
        let number = Some(Protocol::from(i32::from(protocol)));
        let socket = Socket::new(Domain::IPV4, Type::RAW, number).context("a raw socket")?;
        let target = SockAddr::from(SocketAddrV4::new(*to.ip(), 0));
        socket.send_to(&segment(from, to, 1, SYN), &target).context("sending a raw segment")?;
        Ok(())
    })
}

const SYN: u8 = 0x02;
const ACK_AND_PUSH: u8 = 0x18;

fn segment(from: SocketAddrV4, to: SocketAddrV4, sequence: u32, flags: u8) -> Vec<u8> {
    const ACKNOWLEDGEMENT: [u8; 4] = *b"\x7e\xed\xfa\xce";
    const WORDS: u8 = 5 << 4;
    let mut segment = Vec::new();
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend(ACKNOWLEDGEMENT);
    segment.extend([WORDS, flags]);
    // Window, placeholder for the checksum, no urgent pointer, one byte of data.
    segment.extend([0x20, 0, 0, 0, 0, 0, b'!']);
    let sum = checksum(*from.ip(), *to.ip(), &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// The checksum of RFC 9293, over the pseudo header and the segment.
fn checksum(from: Ipv4Addr, to: Ipv4Addr, segment: &[u8]) -> u16 {
    let length = u16::try_from(segment.len()).unwrap_or(u16::MAX).to_be_bytes();
    let pseudo = [&from.octets()[..], &to.octets(), &[0, 6], &length].concat();
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum()
    };
    let mut sum = words(&pseudo) + words(segment);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_checksum_of_a_checksummed_segment_is_zero() {
        let (from, to) = (SocketAddrV4::new([10, 0, 0, 1].into(), 80), SocketAddrV4::new([10, 0, 0, 2].into(), 81));
        assert_eq!(checksum(*from.ip(), *to.ip(), &segment(from, to, 1 << 31, ACK_AND_PUSH)), 0);
    }
}
