//! The daemon's HTTP servers, with an engine on a kernel in memory.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, Command, FromArgMatches};
use kube_ipvs::{
    config::{Configuration, Options},
    events::EventNote,
    serve::{self, Ask, Call, Counters, Limits, Status, Taken},
    source::Changes,
};
use parking_lot::Mutex;
use proxier::{
    Completeness, Engine, SyncReport,
    fake::FakeKernel,
    kernel::KernelUnavailable,
    linux::Meter,
    model::{
        Conditions, Endpoint, EndpointPort, EndpointSlice, Event, Family, Hints, PortNumber, Protocol, Service,
        ServiceId, ServicePort, SliceId, VirtualServerKey,
    },
};

/// Longer than any test takes.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// The daemon times out no caller and no measurement, unless a test is about that. A measurement stays valid.
pub(crate) const UNHURRIED: Limits = Limits { caller: HOUR, owner: HOUR, measurement: HOUR };

/// This timeout only ends a hang.
pub(crate) fn soon() -> Duration {
    scenarios::patience()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

pub(crate) fn get(at: SocketAddr, path: &str, header: &str) -> Result<Answer> {
    let (head, body) = get_bytes(at, path, header)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("a status")?;
    Ok(Answer { status, head, body: String::from_utf8(body)? })
}

pub(crate) fn get_bytes(at: SocketAddr, path: &str, header: &str) -> Result<(String, Vec<u8>)> {
    const END: &[u8] = b"\r\n\r\n";
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(soon()))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n{header}\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(END.len()).position(|bytes| bytes == END).context("no answer")?;
    let body = answer.split_off(end + END.len());
    answer.truncate(end);
    Ok((String::from_utf8(answer)?, body))
}

/// Returns each free port once. The kernel gives ports from 32768 on to connections, also to those of other tests.
pub(crate) fn free() -> Result<SocketAddr> {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + 200 * u16::try_from(std::process::id() % 100)?;
    loop {
        let number = first + TAKEN.fetch_add(1, Ordering::Relaxed);
        ensure!(number < 32_768, "no port is free");
        let at = SocketAddr::from(([127, 0, 0, 1], number));
        if TcpListener::bind(at).is_ok() {
            return Ok(at);
        }
    }
}

pub(crate) fn configuration(flags: &[String]) -> Result<Configuration> {
    let words = ["daemon".to_owned(), "--hostname-override=node-1".to_owned()];
    let matches = Options::augment_args(Command::new("daemon")).get_matches_from(words.iter().chain(flags));
    Ok(Options::from_arg_matches(&matches)?.resolve()?.configuration)
}

/// The kernel's counters, for scrapes.
#[derive(Default)]
pub(crate) struct Ipvs {
    pub(crate) counters: Counters,
    pub(crate) is_gone: bool,
    /// The keys of all reads so far.
    pub(crate) queried: Vec<Vec<VirtualServerKey>>,
}

impl Ipvs {
    fn read(&mut self, keys: &[VirtualServerKey]) -> Result<Counters, KernelUnavailable> {
        self.queried.push(keys.to_vec());
        if self.is_gone {
            return Err(KernelUnavailable::new("IPVS", "gone"));
        }
        Ok(self.counters.iter().filter(|(key, _)| keys.contains(key)).copied().collect())
    }
}

pub(crate) struct Daemon {
    pub(crate) health: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) engine: Engine,
    pub(crate) kernel: FakeKernel,
    pub(crate) status: Arc<Status>,
    now: Duration,
    taken: Taken,
    pub(crate) ipvs: Arc<Mutex<Ipvs>>,
    calls: Receiver<Call>,
}

impl Daemon {
    pub(crate) fn start(flags: &[&str]) -> Result<Self> {
        Self::start_with(flags, UNHURRIED)
    }

    pub(crate) fn start_with(flags: &[&str], limits: Limits) -> Result<Self> {
        let (health, metrics) = (free()?, free()?);
        let mut flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        flags.push(format!("--healthz-bind-address={health}"));
        flags.push(format!("--metrics-bind-address={metrics}"));
        let configuration = configuration(&flags)?;
        let status = Arc::new(Status::new(&configuration));
        let mut engine = Engine::new(configuration.engine()?, BTreeSet::new());
        engine.set_complete(Completeness::Complete);
        let ipvs = Arc::new(Mutex::new(Ipvs::default()));
        let (owner, calls) = channel();
        serve_with(configuration, &status, limits, move |call| drop(owner.send(call)), Arc::clone(&ipvs));
        for at in [health, metrics] {
            await_listener(at)?;
        }
        let (kernel, now, taken) = (FakeKernel::default(), Duration::ZERO, Taken::default());
        Ok(Self { health, metrics, engine, kernel, status, now, taken, ipvs, calls })
    }

    /// Records changes, and does not sync.
    pub(crate) fn queue(&mut self, changes: Changes) {
        self.status.queued(&changes);
        self.taken.add(&changes);
        changes.events.into_iter().for_each(|event| self.engine.apply(event));
    }

    pub(crate) fn events(&mut self, events: Vec<Event>) -> SyncReport {
        self.queue(Changes { events, ..Changes::default() });
        self.sync()
    }

    /// Advances the engine's clock, so that it retries failures and compares everything. Health has another clock.
    pub(crate) fn later(&mut self, time: Duration) {
        self.now += time;
    }

    pub(crate) fn sync(&mut self) -> SyncReport {
        self.status.taken();
        let start = Instant::now();
        let report = self.engine.sync(&mut self.kernel, self.now);
        self.status.record_sync(&self.engine, &report, std::mem::take(&mut self.taken), start, Meter::default());
        report
    }

    pub(crate) fn recorded(&mut self) -> Result<EventNote> {
        loop {
            if let Call::Record(event_note) = self.calls.recv_timeout(soon())? {
                return Ok(event_note);
            }
        }
    }

    /// Scrapes all metrics while virtual servers have these counters.
    pub(crate) fn scrape(&mut self, header: &'static str, counters: Counters) -> Result<Answer> {
        self.ipvs.lock().counters = counters;
        self.answer_while(|at| get(at, "/metrics", header))
    }

    /// Runs a client, and answers its scrape as the sync loop does. While a measurement is valid, a scrape asks
    /// nothing.
    pub(crate) fn answer_while<T: Send + 'static>(
        &mut self,
        client: impl FnOnce(SocketAddr) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let at = self.metrics;
        let client = thread::spawn(move || client(at));
        while !client.is_finished() {
            // The timeout only ends the wait for a scrape that asks nothing.
            if let Ok(Call::Measure(ask)) = self.calls.recv_timeout(Duration::from_millis(10)) {
                self.answer(ask);
            }
        }
        client.join().map_err(|_| anyhow::anyhow!("the client panicked"))?
    }

    pub(crate) fn asked(&mut self) -> Result<Ask> {
        loop {
            if let Call::Measure(ask) = self.calls.recv_timeout(soon())? {
                return Ok(ask);
            }
        }
    }

    pub(crate) fn answer(&self, ask: Ask) {
        ask.answer(&self.engine);
    }
}

pub(crate) fn serve(configuration: Configuration, status: &Arc<Status>) {
    serve_with(configuration, status, UNHURRIED, drop, Arc::default());
}

fn serve_with(
    configuration: Configuration,
    status: &Arc<Status>,
    limits: Limits,
    owner: impl Fn(Call) + Send + Sync + 'static,
    ipvs: Arc<Mutex<Ipvs>>,
) {
    let status = Arc::clone(status);
    thread::spawn(move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let flags = [("v".to_owned(), "2".to_owned())];
        let read = move |keys: &[_]| ipvs.lock().read(keys);
        runtime.block_on(serve::run(&configuration, &flags, status, owner, read, limits))
    });
}

pub(crate) fn await_listener(at: SocketAddr) -> Result<()> {
    scenarios::eventually(|| {
        TcpStream::connect(at)?;
        Ok(())
    })
}

pub(crate) fn await_nobody(at: SocketAddr) -> Result<()> {
    scenarios::eventually(|| {
        let refused = TcpStream::connect(at).err().map(|error| error.kind());
        ensure!(refused == Some(ErrorKind::ConnectionRefused), "{at}: {refused:?}");
        Ok(())
    })
}

/// `default/NAME` with one ClusterIP and an unnamed TCP port 80.
pub(crate) fn service(name: &str, address: &str) -> Service {
    let port = ServicePort { name: "".into(), protocol: Protocol::Tcp, port: port(80), node_port: None };
    Service {
        cluster_ips: vec![address.parse().expect("an address")],
        ports: vec![port],
        ..Service::new(ServiceId::new("default", name))
    }
}

/// The EndpointSlice of that Service, with ready endpoints on this node.
pub(crate) fn slice(name: &str, endpoints: &[&str]) -> EndpointSlice {
    let endpoint = |address: &&str| Endpoint {
        address: address.parse().expect("an address"),
        conditions: Conditions::READY,
        node: Some("node-1".into()),
        hints: Hints::default(),
        weight: 1,
    };
    EndpointSlice {
        id: SliceId::new("default", name),
        service: ServiceId::new("default", name),
        family: Family::V4,
        ports: vec![EndpointPort { name: "".into(), protocol: Protocol::Tcp, port: port(8080) }],
        endpoints: endpoints.iter().map(endpoint).collect(),
    }
}

pub(crate) fn port(number: u16) -> PortNumber {
    number.try_into().expect("a port")
}
