//! A separate node for each measurement: a network namespace, an engine, and its kernel.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use proxier::{
    Completeness, Config, Engine, State,
    linux::{LinuxKernel, Settings},
    model::{Event, NodeAddress},
};
use scenarios::{Namespace, VIP_DEVICE};

use crate::{
    clock::{Spent, measure},
    replay::Datagram,
};

/// The settings of kube-ipvs without flags.
pub(crate) fn config() -> Config {
    Config::new("node")
}

pub(crate) struct Place(Arc<Namespace>);

impl Place {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let namespace = Namespace::create(&format!("bench-{name}"))?;
        // Until an address has been local, the kernel treats the address of every real server as a broadcast address.
        namespace.ip("link set lo up")?;
        Ok(Self(namespace))
    }

    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.0.enter(work)
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.0
    }

    pub(crate) fn state(&self) -> Result<State> {
        self.enter(|| Ok(LinuxKernel::open(&config(), Settings::default())?.inspect()?))
    }

    /// Fails if the namespace has other numbers of objects than `expected`: then a load did not do all its work.
    pub(crate) fn check(&self, expected: &State) -> Result<()> {
        let state = self.state()?;
        let counts = |state: &State| {
            let real_servers = state.virtual_servers.values().map(|server| server.real_servers.len());
            let servers = (state.virtual_servers.len(), real_servers.sum::<usize>());
            (servers, state.elements.len(), state.recorded_vips.len(), state.bound_vips.len())
        };
        let (found, wanted) = (counts(&state), counts(expected));
        ensure!(found == wanted, "{}: the state is {found:?} instead of {wanted:?}", self.0.name());
        Ok(())
    }
}

impl Drop for Place {
    /// Empties the namespace at once. Otherwise a kernel thread empties it during the next measurement.
    fn drop(&mut self) {
        let script = format!("ipvsadm -C; nft flush ruleset; ip link delete {VIP_DEVICE} 2>/dev/null; true");
        if let Err(error) = self.0.run("sh", &["-c", &script]) {
            eprintln!("bench: {error:#}");
        }
    }
}

pub(crate) struct Node {
    pub(crate) place: Place,
    engine: Engine,
    kernel: LinuxKernel,
}

impl Node {
    pub(crate) fn open(place: Place, config: Config) -> Result<Self> {
        let (engine, kernel) = place.enter(|| open(config))?;
        Ok(Self { place, engine, kernel })
    }

    /// A node with addresses that serve node ports.
    pub(crate) fn open_at(place: Place, config: Config, addresses: BTreeSet<NodeAddress>) -> Result<Self> {
        let mut node = Self::open(place, config)?;
        node.engine.apply(Event::NodeAddresses(addresses));
        Ok(node)
    }

    /// A node that serves the given objects.
    pub(crate) fn start(name: &str, config: Config, events: Vec<Event>) -> Result<Self> {
        let mut node = Self::open(Place::new(name)?, config)?;
        node.deliver(events)?;
        Ok(node)
    }

    pub(crate) fn enter<T: Send>(
        &mut self,
        work: impl FnOnce(&mut Engine, &mut LinuxKernel) -> Result<T> + Send,
    ) -> Result<T> {
        let Self { place, engine, kernel } = self;
        place.enter(|| work(engine, kernel))
    }

    /// Applies events and syncs at time 0, when no check of the kernel and no count of draining connections is due.
    pub(crate) fn deliver(&mut self, events: Vec<Event>) -> Result<Spent> {
        self.enter(|engine, kernel| sync(engine, kernel, events, Duration::ZERO))
    }

    /// Records the messages to the kernel from now on. Do not measure a recorded sync, because copying takes time.
    pub(crate) fn record(&mut self) -> Recording {
        let (sender, sent) = channel();
        self.kernel.observe_sends(move |protocol, bytes| {
            let _ = sender.send((protocol, bytes.to_vec()));
        });
        Recording(sent)
    }
}

pub(crate) struct Recording(Receiver<Datagram>);

impl Recording {
    /// The messages since the last call.
    pub(crate) fn take(&self) -> Vec<Datagram> {
        self.0.try_iter().collect()
    }
}

/// An engine with a complete, empty view of the cluster, and the kernel of this thread's namespace.
pub(crate) fn open(config: Config) -> Result<(Engine, LinuxKernel)> {
    let mut engine = Engine::new(config, BTreeSet::new());
    engine.set_complete(Completeness::Complete);
    let kernel = LinuxKernel::open(engine.config(), Settings::default())?;
    Ok((engine, kernel))
}

/// Applies events and syncs. The time is from the events to the kernel's last reply.
pub(crate) fn sync(engine: &mut Engine, kernel: &mut LinuxKernel, events: Vec<Event>, now: Duration) -> Result<Spent> {
    let (report, spent) = measure(|| {
        events.into_iter().for_each(|event| engine.apply(event));
        Ok(engine.sync(kernel, now))
    })?;
    ensure!(report.unavailable.is_none(), "{:?}", report.unavailable);
    ensure!(report.failures.is_empty(), "{}", report.failures[0]);
    ensure!(!report.plan.is_empty(), "there was nothing to do");
    Ok(spent)
}
