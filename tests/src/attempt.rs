//! A connection attempt that a test does not wait for. A counter proves the drop, so the test needs no time-out.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use anyhow::Result;
use socket2::{Domain, SockAddr, Socket};

use crate::client::Failure;
use crate::namespace::Namespace;
use crate::servers::Transport;

/// A first packet in flight.
#[derive(Debug)]
pub struct Attempt {
    socket: Socket,
    transport: Transport,
}

impl Attempt {
    /// Sends a first packet from inside a namespace and returns at once.
    pub fn start(namespace: &Namespace, transport: Transport, to: SocketAddr) -> Result<Self> {
        namespace.enter(|| {
            let mut socket = transport.socket(Domain::for_address(to))?;
            socket.set_nonblocking(true)?;
            match socket.connect(&SockAddr::from(to)) {
                Err(error) if !is_under_way(&error) => return Err(error.into()),
                _ => {}
            }
            if transport == Transport::Udp {
                match socket.write_all(b"anybody?") {
                    // The kernel reports a local drop at once, as EPERM. The counter proves whether it dropped the
                    // datagram.
                    Err(error) if error.kind() != ErrorKind::PermissionDenied => return Err(error.into()),
                    _ => {}
                }
            }
            Ok(Self { socket, transport })
        })
    }

    /// The outcome so far: none yet, a connection, or a refusal.
    pub fn outcome(&mut self) -> Result<Option<Result<(), Failure>>> {
        if let Some(error) = self.socket.take_error()? {
            return Ok(Some(Err(error.into())));
        }
        if self.transport != Transport::Udp {
            return Ok(self.socket.peer_addr().is_ok().then_some(Ok(())));
        }
        match self.socket.read(&mut [0; 64]) {
            Ok(_) => Ok(Some(Ok(()))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Ok(Some(Err(error.into()))),
        }
    }
}

fn is_under_way(error: &io::Error) -> bool {
    const EINPROGRESS: i32 = 115;
    error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(EINPROGRESS)
}
