//! Real servers: HTTP and echo, over TCP, UDP and SCTP.
//!
//! An echo server answers `NAME PEER CONTENT`, so that a test sees which pod answered and the source address of the
//! packets.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::net::RecvFlags;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::namespace::Namespace;
use crate::wait::eventually;

/// How often a thread checks for the stop flag. No answer waits for it.
const PULSE: Duration = Duration::from_millis(100);
/// The same for threads that a shutdown wakes. Under emulation each check costs CPU time.
const SLOW_PULSE: Duration = Duration::from_secs(1);

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP, one-to-one style
    Sctp,
}

impl Transport {
    pub(crate) fn socket(self, domain: Domain) -> io::Result<Socket> {
        match self {
            Self::Tcp => Socket::new(domain, Type::STREAM, Some(Protocol::TCP)),
            Self::Udp => Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)),
            Self::Sctp => Socket::new(domain, Type::STREAM, Some(Protocol::SCTP)),
        }
    }
}

/// A running server. Dropping it closes its listening socket and all its connections.
#[derive(Debug)]
pub struct Server {
    state: Arc<State>,
    /// One thread per listening socket. The socket is kept to shut it down.
    threads: Vec<(Socket, JoinHandle<()>)>,
}

#[derive(Debug)]
struct State {
    listening: AtomicBool,
    serving: AtomicBool,
    terminating: AtomicBool,
    /// The connections that were accepted and have not ended.
    connections: AtomicUsize,
}

impl State {
    fn is_listening(&self) -> bool {
        self.listening.load(Ordering::SeqCst)
    }

    fn is_serving(&self) -> bool {
        self.serving.load(Ordering::SeqCst)
    }
}

impl Server {
    /// Starts an HTTP/1.1 server. Every path answers with the server's name; the header `Peer` holds the client's
    /// address.
    pub fn http(namespace: &Namespace, name: &str, port: u16) -> Result<Self> {
        Self::stream(namespace, name, Transport::Tcp, &[anywhere(port)], http_connection)
    }

    /// Starts an echo server on all addresses. For SCTP it opens a socket for each address. A single socket would
    /// announce all addresses to each client, and none is the VIP that the client uses (docs/dataplane.md).
    pub fn echo(namespace: &Namespace, name: &str, transport: Transport, port: u16) -> Result<Self> {
        let at: Vec<SocketAddr> = match transport {
            Transport::Tcp | Transport::Udp => vec![anywhere(port)],
            Transport::Sctp => {
                namespace.addresses()?.into_iter().map(|address| SocketAddr::new(address, port)).collect()
            }
        };
        Self::echo_on(namespace, name, transport, &at)
    }

    /// Starts an echo server at one address only. Over UDP it also answers from that address, even if the client used
    /// another one.
    pub fn echo_at(namespace: &Namespace, name: &str, transport: Transport, at: SocketAddr) -> Result<Self> {
        Self::echo_on(namespace, name, transport, &[at])
    }

    fn echo_on(namespace: &Namespace, name: &str, transport: Transport, at: &[SocketAddr]) -> Result<Self> {
        match transport {
            Transport::Udp => Self::datagrams(namespace, name, at),
            Transport::Tcp | Transport::Sctp => Self::stream(namespace, name, transport, at, echo_connection),
        }
    }

    /// Terminates as a server that loses no request: it still accepts connections, and an HTTP connection ends after
    /// its next answer.
    pub fn terminate(&self) {
        self.state.terminating.store(true, Ordering::SeqCst);
    }

    /// Waits until all accepted connections have ended.
    pub fn await_idle(&self) -> Result<()> {
        eventually(|| {
            let open = self.state.connections.load(Ordering::SeqCst);
            ensure!(open == 0, "{open} connections are open");
            Ok(())
        })
    }

    /// Refuses new connections and keeps the established ones, as a terminating pod does.
    pub fn close_listener(&mut self) {
        self.state.listening.store(false, Ordering::SeqCst);
        for (socket, _) in &self.threads {
            // The shutdown wakes the waiting thread, except for SCTP. On a UDP socket, which has no peer, it fails and
            // still wakes the thread.
            let _ = socket.shutdown(Shutdown::Both);
        }
        for (_, thread) in self.threads.drain(..) {
            let _ = thread.join();
        }
    }

    fn stream(
        namespace: &Namespace,
        name: &str,
        transport: Transport,
        at: &[SocketAddr],
        serve: fn(&str, SocketAddr, Socket, &State),
    ) -> Result<Self> {
        let sockets = at.iter().map(|at| {
            let socket = bound(namespace, transport, *at)?;
            socket.listen(512)?;
            Ok(socket)
        });
        let pulse = if transport == Transport::Sctp { PULSE } else { SLOW_PULSE };
        Self::start(name, sockets, pulse, move |name, socket, state| {
            while state.is_listening() {
                let Ok((connection, peer)) = socket.accept() else { continue };
                let Some(peer) = peer.as_socket().map(plain) else { continue };
                state.connections.fetch_add(1, Ordering::SeqCst);
                let (name, state) = (name.to_owned(), Arc::clone(state));
                let _ = connection.set_read_timeout(Some(PULSE));
                let connection = thread::Builder::new().spawn(move || {
                    serve(&name, peer, connection, &state);
                    state.connections.fetch_sub(1, Ordering::SeqCst);
                });
                if let Err(error) = connection {
                    eprintln!("a server has no thread for a connection: {error}");
                }
            }
        })
    }

    fn datagrams(namespace: &Namespace, name: &str, at: &[SocketAddr]) -> Result<Self> {
        let sockets = at.iter().map(|at| bound(namespace, Transport::Udp, *at));
        Self::start(name, sockets, SLOW_PULSE, |name, socket, state| {
            let socket = std::net::UdpSocket::from(socket);
            let mut buffer = [0; 2048];
            while state.is_listening() {
                // After the shutdown there is no peer, which the standard library does not expect.
                let received = rustix::net::recvfrom(&socket, &mut buffer[..], RecvFlags::empty());
                let Ok((length, _, Some(peer))) = received else { continue };
                let Ok(peer) = SocketAddr::try_from(peer) else { continue };
                let _ = socket.send_to(&answer(name, plain(peer), &buffer[..length]), peer);
            }
        })
    }

    fn start(
        name: &str,
        sockets: impl Iterator<Item = Result<Socket>>,
        pulse: Duration,
        work: impl FnOnce(&str, Socket, &Arc<State>) + Send + Copy + 'static,
    ) -> Result<Self> {
        let state =
            State { listening: true.into(), serving: true.into(), terminating: false.into(), connections: 0.into() };
        let mut server = Self { state: Arc::new(state), threads: Vec::new() };
        for socket in sockets {
            let socket = socket?;
            socket.set_read_timeout(Some(pulse))?;
            let to_shut = socket.try_clone()?;
            let state = Arc::clone(&server.state);
            let name = name.to_owned();
            let thread = thread::Builder::new().name(format!("server {name}"));
            let thread = thread.spawn(move || work(&name, socket, &state))?;
            server.threads.push((to_shut, thread));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.serving.store(false, Ordering::SeqCst);
        self.close_listener();
    }
}

fn anywhere(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)
}

fn bound(namespace: &Namespace, transport: Transport, at: SocketAddr) -> Result<Socket> {
    namespace.enter(|| {
        let domain = Domain::for_address(at);
        let socket = transport.socket(domain).with_context(|| format!("a socket for {transport:?}"))?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(false)?;
        }
        if transport != Transport::Udp {
            // A restarted pod must listen at once, even if connections of its predecessor are in TIME_WAIT.
            socket.set_reuse_address(true)?;
        }
        socket.bind(&SockAddr::from(at)).with_context(|| format!("listening on {transport:?} {at}"))?;
        Ok(socket)
    })
}

fn plain(peer: SocketAddr) -> SocketAddr {
    let address = match peer.ip() {
        IpAddr::V6(address) => address.to_canonical(),
        address @ IpAddr::V4(_) => address,
    };
    SocketAddr::new(address, peer.port())
}

fn answer(name: &str, peer: SocketAddr, content: &[u8]) -> Vec<u8> {
    let mut answer = format!("{name} {peer} ").into_bytes();
    answer.extend_from_slice(content);
    answer
}

/// Reads once; `None` if the connection has ended or the server stops.
fn read_some(socket: &mut Socket, buffer: &mut [u8], state: &State) -> Option<usize> {
    while state.is_serving() {
        match socket.read(buffer) {
            // A stopped server does not answer.
            Ok(_) if !state.is_serving() => return None,
            Ok(0) => return None,
            Ok(length) => return Some(length),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(_) => return None,
        }
    }
    None
}

fn echo_connection(name: &str, peer: SocketAddr, mut socket: Socket, state: &State) {
    let mut buffer = [0; 2048];
    while let Some(length) = read_some(&mut socket, &mut buffer, state) {
        if socket.write_all(&answer(name, peer, &buffer[..length])).is_err() {
            return;
        }
    }
}

fn http_connection(name: &str, peer: SocketAddr, mut socket: Socket, state: &State) {
    let mut request = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            let Some(length) = read_some(&mut socket, &mut buffer, state) else { return };
            request.extend_from_slice(&buffer[..length]);
        }
        let asked = String::from_utf8_lossy(&request).to_ascii_lowercase().contains("connection: close");
        let close = asked || state.terminating.load(Ordering::SeqCst);
        let connection = if close { "close" } else { "keep-alive" };
        let response = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {connection}\r\n\
             Peer: {peer}\r\n\r\n{name}\n",
            name.len() + 1
        );
        if socket.write_all(response.as_bytes()).is_err() || close {
            return;
        }
        request.clear();
    }
}
