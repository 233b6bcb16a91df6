//! Follows a test API server as the daemon does, and keeps what was delivered.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use kube_ipvs::{
    config::ClientConnection,
    source::{
        Changes,
        kubernetes::{KubernetesSource, Limits},
    },
};
use proxier::model::Event;
use scenarios::{ApiServer, eventually};
use tracing_subscriber::EnvFilter;

/// In a test nothing takes long.
pub(crate) const LIMITS: Limits = Limits {
    watch: Duration::from_secs(1),
    overtime: Duration::from_millis(300),
    answer: Duration::from_secs(1),
    list: Duration::from_secs(5),
    silence: Duration::from_millis(700),
    first_pause: Duration::from_millis(20),
    longest_pause: Duration::from_millis(200),
    stale: Duration::from_secs(300),
};

/// What is known of the world, by the names of things.
#[derive(Debug, Default, Clone)]
pub(crate) struct World {
    /// Services with their addresses.
    pub(crate) services: BTreeMap<String, Vec<String>>,
    /// Slices, as `service: addresses`.
    pub(crate) slices: BTreeMap<String, String>,
    pub(crate) nodes: BTreeSet<String>,
    pub(crate) ranges: BTreeMap<String, Vec<String>>,
    pub(crate) problems: Vec<String>,
    pub(crate) complete: bool,
    /// Everything that was delivered, in its order.
    pub(crate) log: Vec<String>,
    pub(crate) deliveries: usize,
    /// Since when what has changed is to be in the kernel.
    pub(crate) triggers: Vec<String>,
}

impl World {
    fn take(&mut self, changes: Changes) {
        self.deliveries += 1;
        self.complete = changes.complete;
        self.triggers.extend(changes.triggers.iter().map(|(family, since)| format!("{family} {since}")));
        self.problems.extend(changes.problems.iter().map(ToString::to_string));
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
                other => format!("{other:?}"),
            });
        }
    }
}

/// A thread that follows.
pub(crate) struct Follower {
    world: Arc<Mutex<World>>,
    stop: Arc<AtomicBool>,
}

impl Follower {
    pub(crate) fn start(api: &ApiServer) -> Self {
        Self::start_with(ClientConnection { master: api.url(), ..fast() }, LIMITS)
    }

    pub(crate) fn start_with(flags: ClientConnection, limits: Limits) -> Self {
        let filter = EnvFilter::new("kube_ipvs=debug");
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let world = Arc::new(Mutex::new(World::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, stopped) = (Arc::clone(&world), Arc::clone(&stop));
        thread::spawn(move || {
            let follow = async {
                let source = KubernetesSource::open(&flags, "node-1").await?.with_limits(limits);
                let follow = source.follow(|changes| {
                    lock(&seen).take(changes);
                    ControlFlow::Continue(())
                });
                let stop = async {
                    while !stopped.load(Ordering::SeqCst) {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                tokio::select! {
                    outcome = follow => outcome,
                    () = stop => Ok(()),
                }
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let outcome = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(follow));
            lock(&seen).problems.extend(outcome.err().map(|error| format!("cannot follow: {error:#}")));
        });
        Self { world, stop }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    /// Waits until what is known is as it should be.
    pub(crate) fn eventually(&self, what: impl Fn(&World) -> bool) -> Result<()> {
        eventually(|| {
            let world = self.world().clone();
            ensure!(what(&world), "what is known is {world:#?}");
            Ok(())
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Flags without a limit of requests.
pub(crate) fn fast() -> ClientConnection {
    ClientConnection { qps: -1.0, ..ClientConnection::default() }
}
