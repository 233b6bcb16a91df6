//! The reconcile loop: takes events, makes a plan, and takes in its report.

mod carry_out;
mod contribution;
mod decide;
mod doubt;
mod flows;
mod health;
mod read;
mod report;
mod retry;
mod spot_check;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use crate::{
    cluster::Cluster,
    config::Config,
    desired::{self, Desired, Skipped},
    drain::Drains,
    kernel::Kernel,
    model::{Event, NodeAddress, ServiceId, VirtualServerKey},
    plan::Plan,
    state::State,
};
use contribution::Contributions;
use decide::Decision;
pub use doubt::Completeness;
use doubt::Doubt;
use flows::PendingFlowDeletes;
use read::Reading;
pub use report::{Counts, FailedChange, NoLocalEndpoints, SyncReport};
use retry::Retry;
use spot_check::SpotCheck;

/// Decides the kernel's desired state, and keeps the kernel in it.
///
/// The engine has no clock: the caller passes the time since any fixed moment. Feed it events with
/// [`apply`](Self::apply), then call [`sync`](Self::sync). Call it again when [`next_sync`](Self::next_sync) says.
///
/// ```
/// use std::time::Duration;
///
/// use proxier::{Completeness, Config, Engine, fake::FakeKernel, model::*};
///
/// let web = ServiceId::new("default", "web");
/// let mut service = Service::new(web.clone());
/// service.cluster_ips = vec!["10.96.0.80".parse()?];
/// service.ports = vec![ServicePort::new("http", Protocol::Tcp, 80.try_into()?)];
/// let mut slice = EndpointSlice::new(SliceId::new("default", "web-1"), web, Family::V4);
/// slice.ports = vec![EndpointPort::new("http", Protocol::Tcp, 8080.try_into()?)];
/// slice.endpoints = vec![Endpoint::ready("10.244.1.57".parse()?)];
///
/// let host = NodeAddress { address: "192.0.2.1".parse()?, global: true };
/// let mut engine = Engine::new(Config::new("node-1"), [host].into());
/// engine.apply(Event::ServiceApplied(service));
/// engine.apply(Event::SliceApplied(slice));
/// engine.set_complete(Completeness::Complete);
/// let report = engine.sync(&mut FakeKernel::default(), Duration::ZERO);
/// assert!(report.failures.is_empty());
/// assert!(report.plan.to_string().contains("+ real server TCP 10.96.0.80:80 -> 10.244.1.57:8080 Masq 1"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Removal
///
/// A new engine does not know which objects exist ([`Completeness::Unknown`]). In that state a sync serves the known
/// Services, and removes only two kinds of state:
///
/// * State that a Service asked for in an earlier sync of this engine, and does not ask for any more.
/// * From a virtual server of a known Service, any state that the Service does not ask for. A real server without an
///   endpoint drains. So feed in the EndpointSlices of a Service before the sync that first serves it.
///
/// All other state of a previous process stays: virtual servers, addresses, and elements of sets. A range, such as that
/// of a ServiceCIDR, also stays unless it overlaps with a wanted range.
///
/// After [`set_complete`](Self::set_complete) with [`Completeness::Complete`], the next sync removes all state of
/// kube-ipvs that no known object asks for. Before that, feed in the full lists of Services, EndpointSlices and
/// ServiceCIDRs, and this host's Node. If Services have external or load-balancer IPs, feed in the other Nodes too.
/// Otherwise the engine binds their addresses.
#[derive(Debug)]
pub struct Engine {
    cluster: Cluster,
    /// The last known state of kube-ipvs in the kernel. `None` until the first read.
    known: Option<State>,
    /// Virtual servers of other programs.
    foreign: BTreeSet<VirtualServerKey>,
    /// Virtual servers that the engine recorded and could not create. If they exist, another program created them.
    disowned: BTreeSet<VirtualServerKey>,
    contributions: Contributions,
    drains: Drains,
    pending_flow_deletes: PendingFlowDeletes,
    retry: Retry,
    next_audit: Duration,
    /// When the engine next corrects the kernel's settings.
    next_settings: Duration,
    spot_check: SpotCheck,
    doubt: Doubt,
    /// When to read the kernel because another program can have changed it.
    verify: Option<Duration>,
}

impl Engine {
    /// An engine that knows only the addresses of this host, except those of `kube-ipvs0`. It serves node ports on
    /// them. Feed in later changes as [`Event::NodeAddresses`].
    pub fn new(config: Config, host_addresses: BTreeSet<NodeAddress>) -> Self {
        let mut cluster = Cluster::new(config);
        cluster.apply(Event::NodeAddresses(host_addresses));
        Self {
            cluster,
            known: None,
            foreign: BTreeSet::new(),
            disowned: BTreeSet::new(),
            contributions: Contributions::default(),
            drains: Drains::default(),
            pending_flow_deletes: PendingFlowDeletes::default(),
            retry: Retry::default(),
            next_audit: Duration::ZERO,
            next_settings: Duration::ZERO,
            spot_check: SpotCheck::default(),
            doubt: Doubt::default(),
            verify: None,
        }
    }

    /// Makes the engine read the kernel again at `due`, because another program can have changed it.
    pub fn verify_at(&mut self, due: Duration) {
        self.verify = Some(self.verify.map_or(due, |before| before.min(due)));
    }

    /// Whether IPVS must accept connections whose beginning it has not seen (`net.ipv4.vs.sloppy_tcp`).
    pub fn needs_sloppy_tcp(&self) -> bool {
        self.cluster.any_fails_over()
    }

    /// Whether the last known state has an address bound to `kube-ipvs0`.
    pub fn has_bound(&self, address: IpAddr) -> bool {
        self.known.as_ref().is_some_and(|known| known.bound_vips.contains(&address))
    }

    /// Sets whether the engine knows all Services and EndpointSlices. Until it does, it keeps state that no known
    /// object asks for, if the state can belong to an unknown object ([removal](Self#removal)). A new engine starts
    /// with [`Completeness::Unknown`].
    ///
    /// If some objects stay unreadable for a day, the engine then keeps only the state that its record names as theirs.
    pub fn set_complete(&mut self, completeness: Completeness) {
        if self.doubt.set(completeness) {
            self.verify_at(Duration::ZERO);
        }
    }

    /// Applies an event. It takes effect with the next sync.
    pub fn apply(&mut self, event: Event) {
        self.cluster.apply(event);
    }

    /// The last known state of the kernel: as the engine last read it, with the changes since then. Virtual servers of
    /// other programs are not in it. `None` until the first read.
    pub fn known(&self) -> Option<&State> {
        self.known.as_ref()
    }

    /// The engine's settings.
    pub fn config(&self) -> &Config {
        &self.cluster.config
    }

    /// The known objects.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The desired state of a Service, computed now.
    pub fn desired(&self, service: &ServiceId) -> Desired {
        desired::of_service(&self.cluster, service)
    }

    /// The number of real servers that left the endpoints and keep their last connections.
    pub fn draining(&self) -> usize {
        self.drains.len()
    }

    /// The keys of a Service's virtual servers, as the last sync wanted them. The kernel can have rejected some.
    pub fn keys_of(&self, service: &ServiceId) -> &[VirtualServerKey] {
        self.contributions.keys_of(service)
    }

    /// Counts the state of kube-ipvs in the kernel. The cost is linear in the number of virtual servers.
    pub fn counts(&self) -> Counts {
        let servers = self.known.as_ref().map(|known| &known.virtual_servers);
        Counts {
            virtual_servers: servers.map_or(0, BTreeMap::len),
            real_servers: servers.into_iter().flatten().map(|(_, server)| server.real_servers.len()).sum(),
            draining: self.draining(),
        }
    }

    /// The number of Services whose traffic must stay on this node, where none of their endpoints takes it.
    pub fn without_local_endpoints(&self) -> NoLocalEndpoints {
        self.contributions.no_local()
    }

    /// Whether the kernel has the whole desired state, as far as the engine knows.
    pub fn is_healthy(&self) -> bool {
        self.known.is_some() && !self.retry.is_pending()
    }

    /// Whether the kernel has exactly the desired state, as far as the engine knows: nothing failed, and the engine
    /// knew all objects in the last sync or has waited for them long enough.
    pub fn is_converged(&self) -> bool {
        self.doubt.is_over() && self.is_healthy()
    }

    /// Reconciles the kernel with the desired state. The cost is proportional to the changes since the last sync.
    ///
    /// Once every `sync_period`, and after a failure, the engine reads the kernel again and compares all of it. It also
    /// does so if a spot check of one virtual server, every two seconds, finds a difference. If the state has more
    /// than 1,000 objects, the engine waits another period for each 1,000.
    pub fn sync(&mut self, kernel: &mut impl Kernel, now: Duration) -> SyncReport {
        self.doubt.sync(now);
        match self.read_where_due(kernel, now) {
            // Before the first successful read, the engine has nothing to compare with.
            Ok(_) if self.known.is_none() => SyncReport::default(),
            Ok(Reading { leftovers, believed, is_full }) => {
                let decision = self.decide(leftovers, is_full, now);
                let report = self.carry_out(decision, believed.as_ref(), kernel, now);
                if is_full {
                    // After the changes, because those of a first sync make the state large.
                    self.next_audit = now.saturating_add(self.audit_interval());
                }
                report
            }
            Err(unavailable) => {
                self.retry.failed(now);
                SyncReport { unavailable: Some(unavailable), ..SyncReport::default() }
            }
        }
    }

    /// When the next sync is due if no event comes first.
    pub fn next_sync(&self) -> Duration {
        let read = self.retry.due().unwrap_or(self.next_audit.min(self.next_settings).min(self.spot_check.due()));
        let read = self.verify.map_or(read, |verify| verify.min(read));
        self.drains.next().map_or(read, |next| next.min(read))
    }

    /// The plan of the next sync for a kernel in this state, and the requests of Services that cannot be fulfilled.
    pub fn plan(&mut self, state: State, now: Duration) -> (Plan, Vec<Skipped>) {
        let Reading { leftovers, is_full, .. } = self.learn(state);
        let Decision { plan, skipped, .. } = self.decide(leftovers, is_full, now);
        (plan, skipped.into_iter().collect())
    }
}
