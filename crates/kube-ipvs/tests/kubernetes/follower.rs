//! Follows a test API server as the daemon does, and records the deliveries.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use kube_ipvs::{
    config::ClientConnection,
    serve::Contact,
    source::{
        Changes,
        kubernetes::{KubernetesSource, Limits},
    },
};
use proxier::{Completeness, model::Event};
use scenarios::{ApiServer, StreamingLists, eventually};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

/// Longer than any test runs.
const HOUR: Duration = Duration::from_secs(3600);

/// No timeouts, so that a slow machine repeats no request. Watches are short and retries quick.
pub(crate) const LIMITS: Limits = Limits {
    watch: Duration::from_secs(1),
    overtime: HOUR,
    answer: HOUR,
    list: HOUR,
    body: HOUR,
    silence: HOUR,
    ping: HOUR,
    pong: HOUR,
    nodes: HOUR,
    plugin: HOUR,
    spread: Duration::ZERO,
    event: HOUR,
    event_spread: Duration::ZERO,
    first_pause: Duration::from_millis(20),
    longest_pause: Duration::from_millis(200),
    stale: HOUR,
    repeat: HOUR,
    contact: None,
};

/// For an API server that falls silent, which only a timeout detects. An early timeout on a slow machine costs one
/// attempt, so tests with these limits must not count attempts.
pub(crate) const HURRIED: Limits = Limits {
    overtime: Duration::from_millis(300),
    answer: Duration::from_secs(1),
    list: Duration::from_secs(1),
    body: Duration::from_secs(1),
    silence: Duration::from_secs(1),
    ..LIMITS
};

/// An API server without streaming lists opens a watch that never sends the bookmark. Only a timeout detects that, and
/// an early one gives the same result.
pub(crate) fn limits(streaming: StreamingLists) -> Limits {
    match streaming {
        StreamingLists::Unknown => Limits { silence: Duration::from_millis(50), ..LIMITS },
        _ => LIMITS,
    }
}

#[derive(Debug, Default, Clone)]
pub(crate) struct World {
    pub(crate) services: BTreeMap<String, Vec<String>>,
    /// As `service: addresses`.
    pub(crate) slices: BTreeMap<String, String>,
    pub(crate) nodes: BTreeSet<String>,
    pub(crate) ranges: BTreeMap<String, Vec<String>>,
    pub(crate) problems: Vec<String>,
    /// As `reason: note`.
    pub(crate) event_notes: Vec<String>,
    pub(crate) servers: Vec<String>,
    pub(crate) complete: bool,
    pub(crate) log: Vec<String>,
    pub(crate) deliveries: usize,
    /// When the changes behind EndpointSlices happened.
    pub(crate) triggers: Vec<String>,
}

impl World {
    fn take(&mut self, changes: Changes) {
        self.deliveries += 1;
        self.complete = changes.complete == Completeness::Complete;
        self.triggers.extend(changes.triggers.iter().map(|(family, since)| format!("{family} {since}")));
        self.problems.extend(changes.problems.iter().map(ToString::to_string));
        let said = changes.event_notes.iter().map(|said| format!("{}: {}", said.reason, said.note));
        self.event_notes.extend(said);
        for event in changes.events {
            self.log.push(match event {
                Event::ServiceApplied(service) => {
                    let line = format!("+{}", service.id);
                    let vips = service.vips().map(|ip| ip.to_string()).collect();
                    self.services.insert(service.id.to_string(), vips);
                    line
                }
                Event::ServiceRemoved(id) => {
                    self.services.remove(&id.to_string());
                    format!("-{id}")
                }
                Event::SliceApplied(slice) => {
                    let addresses: Vec<String> =
                        slice.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
                    let line = format!("{}: {}", slice.service, addresses.join(" "));
                    self.slices.insert(slice.id.to_string(), line);
                    format!("+slice {}", slice.id)
                }
                Event::SliceRemoved(id) => {
                    self.slices.remove(&id.to_string());
                    format!("-slice {id}")
                }
                Event::NodeApplied(node) => {
                    self.nodes.insert(node.name.to_string());
                    format!("+node {}", node.name)
                }
                Event::NodeRemoved(name) => {
                    self.nodes.remove(&*name);
                    format!("-node {name}")
                }
                Event::ServiceCidrApplied(cidr) => {
                    let ranges = cidr.ranges.iter().map(ToString::to_string).collect();
                    self.ranges.insert(cidr.name.to_string(), ranges);
                    format!("+range {}", cidr.name)
                }
                Event::ServiceCidrRemoved(name) => {
                    self.ranges.remove(&*name);
                    format!("-range {name}")
                }
                Event::ApiServerAddresses(addresses) => {
                    self.servers = addresses.iter().map(ToString::to_string).collect();
                    "the API server".into()
                }
                other => format!("{other:?}"),
            });
        }
    }
}

pub(crate) struct Follower {
    world: Arc<Mutex<World>>,
    _stop: oneshot::Sender<()>,
}

impl Follower {
    pub(crate) fn start(api: &ApiServer) -> Self {
        Self::start_with(ClientConnection { master: api.url(), ..fast() }, LIMITS)
    }

    pub(crate) fn start_with(flags: ClientConnection, limits: Limits) -> Self {
        Self::start_in_contact(flags, limits, Contact::default())
    }

    pub(crate) fn start_in_contact(flags: ClientConnection, limits: Limits, contact: Contact) -> Self {
        let filter = EnvFilter::new("kube_ipvs=debug");
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let world = Arc::new(Mutex::new(World::default()));
        let seen = Arc::clone(&world);
        let (stop, stopped) = oneshot::channel::<()>();
        thread::spawn(move || {
            let follow = async {
                let source = KubernetesSource::open(&flags, "node-1").await?;
                let source = source.with_limits(limits).with_contact(contact);
                let follow = source.follow(|changes| {
                    lock(&seen).take(changes);
                    ControlFlow::Continue(())
                });
                tokio::select! {
                    outcome = follow => outcome,
                    _ = stopped => Ok(()),
                }
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let outcome = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(follow));
            lock(&seen).problems.extend(outcome.err().map(|error| format!("cannot follow: {error:#}")));
        });
        Self { world, _stop: stop }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    pub(crate) fn eventually(&self, what: impl Fn(&World) -> bool) -> Result<()> {
        eventually(|| {
            let world = self.world().clone();
            ensure!(what(&world), "what is known is {world:#?}");
            Ok(())
        })
    }
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn asked(api: &ApiServer, like: impl Fn(&str) -> bool) -> usize {
    api.requests().iter().filter(|request| like(request)).count()
}

pub(crate) fn await_asked(api: &ApiServer, count: usize, like: impl Fn(&str) -> bool) -> Result<()> {
    eventually(|| {
        let found = asked(api, &like);
        ensure!(found >= count, "{found} requests of {count}");
        Ok(())
    })
}

/// Without a rate limit.
pub(crate) fn fast() -> ClientConnection {
    ClientConnection { qps: -1.0, ..ClientConnection::default() }
}
