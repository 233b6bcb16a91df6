mod read;

use std::{io, os::fd::AsFd, time::Duration};

use netlink_packet_core::{NetlinkHeader, NetlinkSerializable};
use netlink_sys::SocketAddr;
use rustix::net::sockopt;

use crate::{
    Batch, Error, Failure, in_namespace,
    reply::{self, Reply, read_datagram, retry_interrupted},
};

/// Requested sizes. The kernel doubles them and counts its overhead against them.
const SEND_BUFFER: usize = 4 << 20;
pub(crate) const RECEIVE_BUFFER: usize = 8 << 20;
/// Bytes that the kernel charges to the receive buffer for one rejection: the reply (about 150 bytes), its text, and
/// the overhead of an skb. Seen: 768; the rest is margin.
const REPLY_COST: usize = 2048;
/// Larger sends are not faster, even if the buffer allows them.
const SEND_CHUNK: usize = 512 << 10;
/// The largest datagram that the kernel builds for a dump is 32 KiB, for a single reply 64 KiB.
pub(crate) const DATAGRAM: usize = 128 << 10;
const DONT_WAIT: i32 = rustix::net::RecvFlags::DONTWAIT.bits() as i32;
/// The kernel answers a dump at once. The timeout only ends a hang.
const DUMP_TIMEOUT: Duration = Duration::from_secs(10);

/// The kernel subsystem that a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// rtnetlink: links, addresses, routes.
    Route,
    /// nfnetlink: nftables, conntrack, ipset.
    Netfilter,
    /// Generic netlink: IPVS and every other family with a name.
    Generic,
}

impl Protocol {
    pub(crate) fn number(self) -> isize {
        match self {
            Self::Route => netlink_sys::protocols::NETLINK_ROUTE,
            Self::Netfilter => netlink_sys::protocols::NETLINK_NETFILTER,
            Self::Generic => netlink_sys::protocols::NETLINK_GENERIC,
        }
    }
}

/// A netlink socket with forced buffers and extended acknowledgements.
///
/// Invariant: between two calls the queue has no unread replies.
pub struct Socket {
    // Never cloned: netlink_sys closes the descriptor once per clone.
    inner: netlink_sys::Socket,
    port: u32,
    sequence: u32,
    limits: Limits,
    incoming: Vec<u8>,
    observer: Option<Observer>,
}

type Observer = Box<dyn FnMut(&[u8]) + Send>;

/// Limits of one send, so that neither buffer can overrun even if every request fails.
#[derive(Debug, Clone, Copy)]
struct Limits {
    send: usize,
    /// Maximum number of rejections that fit the receive buffer.
    requests: usize,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`Error::Open`], for example if the kernel lacks the protocol.
    pub fn open(protocol: Protocol) -> Result<Self, Error> {
        let mut inner = netlink_sys::Socket::new(protocol.number()).map_err(Error::Open)?;
        let (port, limits) = set_up(&mut inner).map_err(Error::Open)?;
        let incoming = Vec::with_capacity(DATAGRAM);
        Ok(Self { inner, port, sequence: 1, limits, incoming, observer: None })
    }

    /// The kernel's number of this socket. Notifications of its changes have this number in their header.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Opens a socket in another network namespace, given an open file of that namespace. See [`in_namespace`].
    ///
    /// # Errors
    ///
    /// [`Error::Namespace`] and those of [`Socket::open`].
    pub fn open_in(protocol: Protocol, namespace: impl AsFd) -> Result<Self, Error> {
        in_namespace(namespace, || Self::open(protocol))?
    }

    /// Calls `observer` with every datagram before it is sent: for traces, and for benchmarks that replay datagrams.
    pub fn observe_sends(&mut self, observer: impl FnMut(&[u8]) + Send + 'static) {
        self.observer = Some(Box::new(observer));
    }

    /// Executes a batch in as few sends as the buffers allow.
    ///
    /// The kernel continues after a request that it rejects. The result lists the rejected requests; the kernel
    /// executed all others.
    ///
    /// # Errors
    ///
    /// If it is unknown which requests the kernel executed ([`Error::Overrun`], [`Error::NoReply`], [`Error::Send`]):
    /// read the state again.
    pub fn execute(&mut self, mut batch: Batch) -> Result<Vec<Failure>, Error> {
        let mut failures = Vec::new();
        for chunk in batch.chunks(SEND_CHUNK.min(self.limits.send), self.limits.requests) {
            let last = chunk.end - 1;
            self.send_chunk(&mut batch, chunk, last, &mut failures)?;
        }
        Ok(failures)
    }

    /// Executes a batch in exactly one send, for subsystems that commit one send as a whole.
    ///
    /// `acknowledged` is the request whose acknowledgement shows that the kernel read the whole batch. It is the last
    /// request that the kernel acknowledges. For nfnetlink that is the one before `NFNL_MSG_BATCH_END`, which kernels
    /// before 6.10 do not acknowledge.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] before anything is sent; otherwise those of [`Socket::execute`].
    pub fn transaction(&mut self, mut batch: Batch, acknowledged: usize) -> Result<Vec<Failure>, Error> {
        let size = batch.as_bytes().len();
        if size > self.limits.send {
            return Err(Error::TooLarge { size, limit: self.limits.send });
        }
        let mut failures = Vec::new();
        let all = 0..batch.len();
        if !all.is_empty() {
            self.send_chunk(&mut batch, all, acknowledged, &mut failures)?;
        }
        Ok(failures)
    }

    /// Executes one request. `flags` are `NLM_F_*` beyond `NLM_F_REQUEST` and `NLM_F_ACK`.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] if the kernel rejects the request; otherwise those of [`Socket::execute`].
    pub fn request<M: NetlinkSerializable>(&mut self, message: M, flags: u16) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.push(message, flags);
        match self.execute(batch)?.pop() {
            Some(failure) => Err(failure.error.into()),
            None => Ok(()),
        }
    }

    fn send_chunk(
        &mut self,
        batch: &mut Batch,
        chunk: std::ops::Range<usize>,
        acknowledged: usize,
        failures: &mut Vec<Failure>,
    ) -> Result<(), Error> {
        let count = chunk.len() as u32;
        let first = chunk.start;
        batch.ask_acknowledgement(acknowledged);
        let sequence = self.send(batch, chunk)?;
        let mut answered = false;
        self.drain(|header, reply| {
            let offset = header.sequence_number.wrapping_sub(sequence);
            let Reply::Error(error) = reply else { return Ok(()) };
            if offset < count {
                // If nfnetlink cannot start or commit a transaction, it reports that on the first message and answers
                // nothing else.
                answered |= first + offset as usize == acknowledged || offset == 0 && error.errno() != 0;
                if error.errno() != 0 {
                    failures.push(Failure { request: first + offset as usize, error });
                }
            }
            Ok(())
        })?;
        if answered { Ok(()) } else { Err(Error::NoReply) }
    }

    /// Returns the sequence number of the first request.
    fn send(&mut self, batch: &mut Batch, requests: std::ops::Range<usize>) -> Result<u32, Error> {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(requests.len() as u32);
        let bytes = batch.numbered(requests, sequence);
        if let Some(observer) = &mut self.observer {
            observer(bytes);
        }
        let sent = retry_interrupted(|| self.inner.send(bytes, 0)).map_err(Error::Send)?;
        debug_assert_eq!(sent, bytes.len(), "netlink takes a datagram whole or not at all");
        Ok(sequence)
    }

    /// Reads the replies that the kernel queued while it handled the send.
    fn drain(&mut self, mut handle: impl FnMut(&NetlinkHeader, Reply<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let mut outcome = Ok(());
        while let Some(()) = self.receive(DONT_WAIT)? {
            outcome = outcome.and(read_datagram(&self.incoming, &mut handle));
        }
        outcome
    }

    /// `None` if the queue is empty.
    fn receive(&mut self, flags: i32) -> Result<Option<()>, Error> {
        reply::receive(&self.inner, &mut self.incoming, flags)
    }
}

fn set_up(socket: &mut netlink_sys::Socket) -> io::Result<(u32, Limits)> {
    let port = socket.bind_auto()?.port_number();
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_cap_ack(true)?;
    socket.set_ext_ack(true)?;
    sockopt::set_socket_timeout(&*socket, sockopt::Timeout::Recv, Some(DUMP_TIMEOUT))?;
    // Without CAP_NET_ADMIN in the initial user namespace the kernel rejects the forced sizes. Then
    // net.core.{w,r}mem_max limit the buffers, and chunks become smaller.
    if sockopt::set_socket_send_buffer_size_force(&*socket, SEND_BUFFER).is_err() {
        sockopt::set_socket_send_buffer_size(&*socket, SEND_BUFFER)?;
    }
    if sockopt::set_socket_recv_buffer_size_force(&*socket, RECEIVE_BUFFER).is_err() {
        sockopt::set_socket_recv_buffer_size(&*socket, RECEIVE_BUFFER)?;
    }
    let limits = Limits {
        // The kernel rejects a send of sk_sndbuf - 32 bytes or more.
        send: sockopt::socket_send_buffer_size(&*socket)?.saturating_sub(64),
        requests: (sockopt::socket_recv_buffer_size(&*socket)? / REPLY_COST).max(1),
    };
    Ok((port, limits))
}
