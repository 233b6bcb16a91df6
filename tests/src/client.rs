//! HTTP and echo clients in any namespace, which distinguish every kind of failure.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, SockAddr, Socket};

use crate::namespace::Namespace;
use crate::servers::Transport;
use crate::wait::{patience, time_out};

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// A reset, an abort or an ICMP port unreachable in answer to the first packet. If a host rejects its own UDP
    /// datagram, the kernel reports EPERM to the sender at once.
    Refused,
    /// The time-out passed without an answer.
    TimedOut,
    /// The peer reset or closed an established connection.
    Reset,
    /// Another error, such as no route.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => write!(out, "refused"),
            Self::TimedOut => write!(out, "timed out"),
            Self::Reset => write!(out, "reset"),
            Self::Other(text) => write!(out, "{text}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        /// ICMPv6 "administratively prohibited".
        const EACCES: i32 = 13;
        match error.kind() {
            _ if error.raw_os_error() == Some(EACCES) => Self::Other(error.to_string()),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::PermissionDenied => Self::Refused,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::TimedOut,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Self::Reset,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// An answer: the pod that gave it and the client address that the pod saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The name of the pod that answered.
    pub name: String,
    /// The client's address as the pod saw it.
    pub peer: SocketAddr,
}

/// An open connection. For UDP, a connected socket with a fixed port.
#[derive(Debug)]
pub struct Conversation {
    socket: Socket,
    said: u32,
}

impl Conversation {
    /// Opens a connection from inside a namespace.
    pub fn open(namespace: &Namespace, transport: Transport, to: SocketAddr) -> Result<Result<Self, Failure>> {
        namespace.enter(|| Ok(Self::open_here(transport, to)))
    }

    /// Opens a connection from the namespace of the calling thread.
    pub fn open_here(transport: Transport, to: SocketAddr) -> Result<Self, Failure> {
        let socket = transport.socket(Domain::for_address(to))?;
        if transport == Transport::Sctp {
            socket.bind(&SockAddr::from(SocketAddr::new(own_address(transport, to)?, 0)))?;
        }
        Self::by(socket, to)
    }

    fn by(socket: Socket, to: SocketAddr) -> Result<Self, Failure> {
        socket.connect_timeout(&SockAddr::from(to), patience())?;
        socket.set_read_timeout(Some(patience()))?;
        socket.set_write_timeout(Some(patience()))?;
        Ok(Self { socket, said: 0 })
    }

    /// Opens a connection from the namespace of the calling thread, and from a port that no other echo of this process
    /// has used for long.
    pub fn from_own_port_here(transport: Transport, to: SocketAddr) -> Result<Self, Failure> {
        Self::by(from_a_port_of_its_own(transport, to)?, to)
    }

    /// Closes the connection with a reset, so that it does not linger in TIME_WAIT.
    pub fn reset(self) -> Result<()> {
        self.socket.set_linger(Some(Duration::ZERO)).context("asking for a reset at close")
    }

    /// Sends a new message and waits for its echo.
    pub fn say(&mut self) -> Result<Answer, Failure> {
        self.send()?;
        self.hear()
    }

    /// Sends a new message and waits for its echo, at most this long.
    pub fn say_within(&mut self, time: Duration) -> Result<Answer, Failure> {
        self.socket.set_read_timeout(Some(time))?;
        let answer = self.say();
        self.socket.set_read_timeout(Some(patience()))?;
        answer
    }

    /// Sends a new message without waiting for the echo.
    pub fn send(&mut self) -> Result<(), Failure> {
        self.said += 1;
        Ok(self.socket.write_all(format!("message-{}", self.said).as_bytes())?)
    }

    /// The local address of the socket.
    pub fn own_address(&self) -> Result<SocketAddr> {
        self.socket.local_addr()?.as_socket().context("a socket without an address")
    }

    /// Waits for the echo of the last message.
    pub fn hear(&mut self) -> Result<Answer, Failure> {
        let content = format!("message-{}", self.said);
        let mut buffer = [0; 512];
        loop {
            let length = self.socket.read(&mut buffer)?;
            if length == 0 {
                return Err(Failure::Reset);
            }
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let mut words = text.split(' ');
            let answer = (words.next(), words.next().and_then(|peer| peer.parse().ok()), words.next());
            match answer {
                (Some(name), Some(peer), Some(echo)) if echo == content => {
                    return Ok(Answer { name: name.to_owned(), peer });
                }
                // A late answer to an earlier datagram.
                (_, _, Some(echo)) if echo.starts_with("message-") => {}
                _ => return Err(Failure::Other(format!("no echo but {text:?}"))),
            }
        }
    }
}

/// Sends one HTTP request over a new connection, from the namespace of the calling thread.
pub fn get_here(to: SocketAddr) -> Result<Answer, Failure> {
    let Conversation { mut socket, .. } = Conversation::open_here(Transport::Tcp, to)?;
    write!(socket, "GET / HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    socket.read_to_string(&mut response)?;
    parse_response(&response).ok_or_else(|| match response.as_str() {
        "" => Failure::Reset,
        other => Failure::Other(format!("no whole answer: {other:?}")),
    })
}

/// An HTTP client that keeps its connection, and opens another one if the server closes it.
#[derive(Debug)]
pub struct KeepAlive {
    to: SocketAddr,
    socket: Option<Socket>,
}

impl KeepAlive {
    /// A client without a connection.
    pub fn new(to: SocketAddr) -> Self {
        Self { to, socket: None }
    }

    /// Sends one request, from the namespace of the calling thread if it opens a connection.
    pub fn get(&mut self) -> Result<Answer, Failure> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => Conversation::open_here(Transport::Tcp, self.to)?.socket,
        };
        // One packet: the second one of a request would wait for the acknowledgement of the first.
        socket.write_all(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", self.to).as_bytes())?;
        let (mut response, mut buffer) = (String::new(), [0; 2048]);
        loop {
            let length = socket.read(&mut buffer)?;
            if length == 0 {
                return Err(Failure::Reset);
            }
            response.push_str(&String::from_utf8_lossy(&buffer[..length]));
            if let Some(answer) = parse_response(&response) {
                self.socket = (!response.contains("\r\nConnection: close\r\n")).then_some(socket);
                return Ok(answer);
            }
        }
    }
}

fn parse_response(response: &str) -> Option<Answer> {
    let (head, body) = response.split_once("\r\n\r\n")?;
    let peer = head.lines().find_map(|line| line.strip_prefix("Peer: "))?.parse().ok()?;
    let name = body.strip_suffix('\n')?.to_owned();
    head.starts_with("HTTP/1.1 200 ").then_some(Answer { name, peer })
}

/// Sends one echo over a new socket, from the namespace of the calling thread.
pub fn echo_here(transport: Transport, to: SocketAddr) -> Result<Answer, Failure> {
    Conversation::by(from_a_port_of_its_own(transport, to)?, to)?.say()
}

/// Binds a socket to a port that no other echo of this process has used for long. The kernel can give one port to
/// connections to different addresses. If both lead to one endpoint, IPVS cannot tell their answers apart
/// (docs/dataplane.md). A test with many addresses and few endpoints would fail now and then.
fn from_a_port_of_its_own(transport: Transport, to: SocketAddr) -> io::Result<Socket> {
    /// Above the node ports.
    const FIRST: u16 = 33_000;
    const COUNT: u16 = 28_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let address = own_address(transport, to)?;
    let mut outcome = Err(io::ErrorKind::AddrInUse.into());
    for _ in 0..COUNT {
        let socket = transport.socket(Domain::for_address(to))?;
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        outcome = socket.bind(&SockAddr::from(SocketAddr::new(address, port))).map(|()| socket);
        // Another socket has the port, or the port is in TIME_WAIT.
        if !outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
            break;
        }
    }
    outcome
}

/// The address to bind a client's socket to: the wildcard, or for SCTP the kernel's choice of source address. An SCTP
/// socket on the wildcard announces all addresses of its host to the server, including a node's VIPs. The server then
/// takes packets from those addresses for the same association, and no NAT translates them (docs/dataplane.md).
fn own_address(transport: Transport, to: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    if transport != Transport::Sctp {
        return Ok(any);
    }
    // A UDP connect sends no packet.
    let asks = UdpSocket::bind((any, 0))?;
    asks.connect(to)?;
    Ok(asks.local_addr()?.ip())
}

/// Clients in this namespace. Addresses are text, as users write them.
impl Namespace {
    /// Sends one HTTP request; `Ok(Err(_))` if it gets no answer.
    pub fn try_get(&self, to: &str) -> Result<Result<Answer, Failure>> {
        let to = socket_address(to)?;
        self.enter(|| Ok(get_here(to)))
    }

    /// Sends one HTTP request. Fails if it gets no answer.
    pub fn get(&self, to: &str) -> Result<Answer> {
        self.try_get(to)?.with_context(|| format!("GET http://{to}/ from {}", self.name()))
    }

    /// Sends one echo; `Ok(Err(_))` if it gets no answer.
    pub fn try_echo(&self, transport: Transport, to: &str) -> Result<Result<Answer, Failure>> {
        let to = socket_address(to)?;
        self.enter(|| Ok(echo_here(transport, to)))
    }

    /// Sends one echo. Fails if it gets no answer.
    pub fn echo(&self, transport: Transport, to: &str) -> Result<Answer> {
        self.try_echo(transport, to)?.with_context(|| format!("{transport:?} echo of {to} from {}", self.name()))
    }

    /// Opens a connection. Fails if the connection fails.
    pub fn connect(&self, transport: Transport, to: &str) -> Result<Conversation> {
        let opened = Conversation::open(self, transport, socket_address(to)?)?;
        opened.with_context(|| format!("{transport:?} connection to {to} from {}", self.name()))
    }

    /// Opens a connection from a port that no other echo of this process has used for long. Fails if the connection
    /// fails.
    pub fn connect_from_own_port(&self, transport: Transport, to: &str) -> Result<Conversation> {
        let address = socket_address(to)?;
        let opened = self.enter(|| Ok(Conversation::from_own_port_here(transport, address)))?;
        opened.with_context(|| format!("{transport:?} connection to {to} from {}", self.name()))
    }

    /// Sends `count` HTTP requests in sequence and returns the names that answered, in order. Fails if one gets no
    /// answer.
    pub fn get_many(&self, to: &str, count: usize) -> Result<Vec<String>> {
        let address = socket_address(to)?;
        self.enter(|| {
            let one = |number| {
                let answer =
                    get_here(address).with_context(|| format!("request {number} to {to} from {}", self.name()));
                answer.map(|answer| answer.name)
            };
            (1..=count).map(one).collect()
        })
    }

    /// Fetches a URL with curl, as a user would.
    pub fn curl(&self, url: &str) -> Result<String> {
        Ok(self.run("curl", &["-sS", "--max-time", &time_out(), url])?.trim_end().to_owned())
    }

    /// The value of a metric of the daemon in this namespace. `name` includes the labels.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let metrics = self.curl("http://127.0.0.1:10249/metrics")?;
        let values = metrics.lines().filter_map(|line| line.rsplit_once(' '));
        let value = values.filter(|(found, _)| *found == name).map(|(_, value)| value).next();
        Ok(value.with_context(|| format!("no {name}"))?.parse()?)
    }
}

/// Parses `10.0.0.1:80` or `[fd00::1]:80`.
pub fn socket_address(text: &str) -> Result<SocketAddr> {
    text.parse().with_context(|| format!("{text} is no address with a port"))
}

/// Counts how often each name occurs.
pub fn tally(names: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for name in names {
        *tally.entry(name).or_default() += 1;
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_response_yields_pod_name_and_peer() {
        let answer = parse_response("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nPeer: 10.1.1.1:4711\r\n\r\nweb\n");
        assert_eq!(answer, Some(Answer { name: "web".into(), peer: "10.1.1.1:4711".parse().unwrap() }));
    }

    #[test]
    fn truncated_http_response_is_not_parsed() {
        assert_eq!(parse_response("HTTP/1.1 200 OK\r\nPeer: 10.1.1.1:4711\r\n\r\nwe"), None);
        assert_eq!(parse_response("HTTP/1.1 200 OK\r\nPeer: 10.1."), None);
    }
}
