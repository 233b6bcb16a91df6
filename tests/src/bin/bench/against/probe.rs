//! The client: connections to Services, and pings through the node.

use std::{
    io::Read,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use scenarios::Namespace;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::network::Host;

/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(10);
/// As long as the kernel waits before it repeats a SYN. After that the client tries another port.
const LIMIT: Duration = Duration::from_secs(1);
const PING_INTERVAL: Duration = Duration::from_millis(1);

/// Connects to each Service in turn, until an endpoint on `host` has answered. Returns the time of the first answer and
/// that of the last. `check` fails if it is no use to go on.
pub(super) fn await_answers(
    client: &Namespace,
    services: &[SocketAddr],
    host: Host,
    mut check: impl FnMut() -> Result<()> + Send,
) -> Result<[Instant; 2]> {
    client.enter(|| {
        let mut answered = Vec::new();
        for service in services {
            while ask(*service) != Some(host) {
                check()?;
                sleep(PAUSE);
            }
            answered.push(Instant::now());
        }
        let [first, last] = [answered.first(), answered.last()].map(|time| time.copied().context("no Service"));
        Ok([first?, last?])
    })
}

/// Opens a connection, and returns the host that accepted it.
fn ask(service: SocketAddr) -> Option<Host> {
    let mut stream = TcpStream::connect_timeout(&service, LIMIT).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    let mut byte = [0];
    stream.read_exact(&mut byte).ok()?;
    // The reset frees the port and the conntrack entry soon.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).ok()?;
    [Host::Old, Host::New].into_iter().find(|host| [host.byte()] == byte)
}

/// Pings from the client to a host behind the node, one each millisecond.
pub(super) struct Pings {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Result<Duration>>>,
}

impl Pings {
    pub(super) fn start(client: &Arc<Namespace>, to: Ipv4Addr) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = client.spawn(move || ping(to, &stopped))?;
        Ok(Self { stop, thread })
    }

    /// Returns the longest time from a ping to its answer.
    pub(super) fn longest(self) -> Result<Duration> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| anyhow!("the thread of the pings panicked"))??
    }
}

fn ping(to: Ipv4Addr, stopped: &AtomicBool) -> Result<Duration> {
    const ECHO: u8 = 8;
    let mut socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4)).context("a socket for pings")?;
    socket.connect(&SocketAddrV4::new(to, 0).into())?;
    socket.set_read_timeout(Some(LIMIT))?;
    let mut longest = Duration::ZERO;
    let mut number = 0_u16;
    while !stopped.load(Ordering::SeqCst) {
        number = number.wrapping_add(1);
        let [high, low] = number.to_be_bytes();
        let sent = Instant::now();
        // The kernel fills in the checksum and the identifier. A lost ping is sent again, and the stall goes on.
        while socket.send(&[ECHO, 0, 0, 0, 0, 0, high, low]).is_err() || !is_answered(&mut socket, [high, low]) {
            if stopped.load(Ordering::SeqCst) {
                break;
            }
        }
        longest = longest.max(sent.elapsed());
        sleep(PING_INTERVAL.saturating_sub(sent.elapsed()));
    }
    Ok(longest)
}

/// Reads until the answer with this number arrives. Answers to earlier pings can arrive late.
fn is_answered(socket: &mut Socket, number: [u8; 2]) -> bool {
    let mut answer = [0; 8];
    loop {
        match socket.read(&mut answer) {
            Ok(_) if answer[6..] == number => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}
