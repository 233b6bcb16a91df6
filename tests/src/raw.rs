//! Packets that no TCP stack would send.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use socket2::{Protocol, SockAddr, Socket, Type};

use crate::namespace::Namespace;

/// Sends TCP segments with a byte of data from inside a namespace. Their sequence numbers are spread over the
/// whole sequence space, and none is near those of the connection. conntrack marks numbers beyond the window as
/// INVALID. It takes numbers below the window for retransmissions.
pub fn send_out_of_window(namespace: &Namespace, from: SocketAddr, to: SocketAddr) -> Result<()> {
    namespace.enter(|| {
        let (socket, target) = raw(to.ip(), Protocol::TCP)?;
        for eighth in 0..8u32 {
            let segment = segment(from, to, eighth << 29, ACK_AND_PUSH);
            socket.send_to(&segment, &target).context("sending a raw segment")?;
        }
        Ok(())
    })
}

/// Sends the first segment of a TCP connection from inside a namespace, with another protocol number.
pub fn send_syn_as(namespace: &Namespace, protocol: u8, from: SocketAddr, to: SocketAddr) -> Result<()> {
    namespace.enter(|| {
        let (socket, target) = raw(to.ip(), Protocol::from(i32::from(protocol)))?;
        socket.send_to(&segment(from, to, 1, SYN), &target).context("sending a raw segment")?;
        Ok(())
    })
}

fn raw(to: IpAddr, protocol: Protocol) -> Result<(Socket, SockAddr)> {
    let target = SockAddr::from(SocketAddr::new(to, 0));
    let socket = Socket::new(target.domain(), Type::RAW, Some(protocol)).context("a raw socket")?;
    Ok((socket, target))
}

const SYN: u8 = 0x02;
const ACK_AND_PUSH: u8 = 0x18;

fn segment(from: SocketAddr, to: SocketAddr, sequence: u32, flags: u8) -> Vec<u8> {
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
    let sum = checksum(from.ip(), to.ip(), &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// The checksum of RFC 9293, over the pseudo header and the segment. In IPv6 the pseudo header has more zeros, which do
/// not count.
fn checksum(from: IpAddr, to: IpAddr, segment: &[u8]) -> u16 {
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let length = u16::try_from(segment.len()).unwrap_or(u16::MAX).to_be_bytes();
    let pseudo = [&octets(from)[..], &octets(to), &[0, 6], &length].concat();
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
        let (from, to) = ("10.0.0.1:80".parse::<SocketAddr>().unwrap(), "10.0.0.2:81".parse::<SocketAddr>().unwrap());
        assert_eq!(checksum(from.ip(), to.ip(), &segment(from, to, 1 << 31, ACK_AND_PUSH)), 0);
    }
}
