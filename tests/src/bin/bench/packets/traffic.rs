//! Clients of one Service, and the server behind all its endpoints.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use proxier::model::PortNumber;
use scenarios::{Namespace, patience};
use socket2::SockRef;

use crate::world::port;

/// The port of the endpoints of the measured Service.
pub(super) const PORT: PortNumber = port(8081);
const CONNECTIONS: u32 = 500;
const EXCHANGES: u32 = 1_000;
const MEGABYTES: u32 = 50;
const MEGABYTE: usize = 1 << 20;

/// Connections, exchanges and megabytes before the measurement.
const WARM_UP: u32 = 20;

/// Times are in microseconds, and in milliseconds for a megabyte.
pub(super) struct Sample {
    pub(super) connection: f64,
    pub(super) exchange: f64,
    pub(super) megabyte: f64,
}

/// Serves one connection after the other, until the process ends. A request is the number of bytes of its answer.
pub(super) fn answer(namespace: &Namespace) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT.get()));
    let listener = namespace.enter(|| TcpListener::bind(address).context("listening as an endpoint"))?;
    thread::spawn(move || {
        let bytes = vec![0; MEGABYTE];
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 8];
            // A client that has gone needs no answer.
            while stream.read_exact(&mut request).is_ok() {
                let size = usize::from_be_bytes(request).min(bytes.len());
                let _ = stream.write_all(&bytes[..size]);
            }
        }
    });
    Ok(())
}

pub(super) fn measure(client: &Namespace, address: SocketAddr) -> Result<Sample> {
    client.enter(|| {
        let connect = || Client::connect(address).and_then(|mut client| client.request(1));
        each(WARM_UP, connect)?;
        let connection = each(CONNECTIONS, connect)?;
        let mut client = Client::connect(address)?;
        each(WARM_UP, || client.request(1))?;
        let exchange = each(EXCHANGES, || client.request(1))?;
        each(WARM_UP, || client.request(MEGABYTE))?;
        let megabyte = each(MEGABYTES, || client.request(MEGABYTE))?;
        Ok(Sample { connection: micros(connection), exchange: micros(exchange), megabyte: micros(megabyte) / 1_000.0 })
    })
}

fn each(count: u32, mut work: impl FnMut() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    for _ in 0..count {
        work()?;
    }
    Ok(start.elapsed() / count)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect_timeout(&address, patience()).with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience()))?;
        // It ends by a reset, so its port is free at once.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        Ok(Self { stream, bytes: vec![0; 1] })
    }

    fn request(&mut self, size: usize) -> Result<()> {
        self.bytes.resize(size, 0);
        self.stream.write_all(&size.to_be_bytes())?;
        Ok(self.stream.read_exact(&mut self.bytes)?)
    }
}
