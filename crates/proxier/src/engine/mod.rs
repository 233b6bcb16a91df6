//! The one loop body: events in, a plan out, its report back in.

mod carry_out;
mod contribution;
mod decide;
mod doubt;
mod flows;
mod health;
mod read;
mod report;
mod retry;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

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

/// Decides what the kernel should have, and keeps it so.
///
/// Time is given from outside, as the time since any fixed moment: the engine has no clock. Feed it events
/// with [`apply`](Self::apply), then call [`sync`](Self::sync), and again when
/// [`next_sync`](Self::next_sync) says.
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
/// # What a sync removes
///
/// A new engine does not know what exists ([`Completeness::Unknown`]). In that state a sync serves the Services that it
/// knows, and removes only two kinds of things:
///
/// * What a Service asked for in an earlier sync of this engine, and does not ask for any more.
/// * From a virtual server of a known Service, what the Service does not ask for. A real server without an endpoint
///   drains. So feed in the EndpointSlices of a Service before the sync that first serves it.
///
/// Everything else stays that a previous process made: virtual servers, addresses, and elements of sets. A range stays
/// too, such as that of a ServiceCIDR, unless it overlaps with a range that is wanted.
///
/// After [`set_complete`](Self::set_complete) with [`Completeness::Complete`], the next sync removes all of ours that
/// no known object asks for. Feed in first the full lists of Services, EndpointSlices and ServiceCIDRs, and our own
/// Node. If Services have external or load-balancer IPs, feed in the other Nodes too, or the engine binds their
/// addresses.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    cluster: Cluster,
    /// What the kernel has of ours, as far as we know. `None` until it was read.
    known: Option<State>,
    /// Virtual servers that another program made.
    foreign: BTreeSet<VirtualServerKey>,
    /// Virtual servers that we recorded and could not make. If they exist, another program made them.
    disowned: BTreeSet<VirtualServerKey>,
    contributions: Contributions,
    drains: Drains,
    pending_flow_deletes: PendingFlowDeletes,
    retry: Retry,
    next_audit: Duration,
    /// What may exist and is not known.
    doubt: Doubt,
    /// When to read the kernel because another program may have changed it.
    verify: Option<Duration>,
}

impl Engine {
    /// An engine that knows only the addresses of this host, without those of `kube-ipvs0`. Node ports are served on
    /// them. Feed in later changes as [`Event::NodeAddresses`].
    pub fn new(config: Config, host_addresses: BTreeSet<NodeAddress>) -> Self {
        let mut cluster = Cluster::new(&config);
        cluster.apply(Event::NodeAddresses(host_addresses));
        Self {
            cluster,
            config,
            known: None,
            foreign: BTreeSet::new(),
            disowned: BTreeSet::new(),
            contributions: Contributions::default(),
            drains: Drains::default(),
            pending_flow_deletes: PendingFlowDeletes::default(),
            retry: Retry::default(),
            next_audit: Duration::ZERO,
            doubt: Doubt::default(),
            verify: None,
        }
    }

    /// Makes the engine read the kernel again at `due`, before the sync period is over: another program may have
    /// changed it.
    pub fn verify_at(&mut self, due: Duration) {
        self.verify = Some(self.verify.map_or(due, |before| before.min(due)));
    }

    /// Whether IPVS must take up connections that it has not seen the beginning of (`net.ipv4.vs.sloppy_tcp`).
    pub fn takes_up_connections(&self) -> bool {
        self.cluster.any_fails_over(self.config.scheduler)
    }

    /// Whether an address is bound to `kube-ipvs0`, as far as is known.
    pub fn has_bound(&self, address: IpAddr) -> bool {
        self.known.as_ref().is_some_and(|known| known.bound_vips.contains(&address))
    }

    /// Sets whether all Services and endpoints that exist are known. Until they are, the engine keeps state that no
    /// known object asks for, if it may belong to an unknown one ([what a sync removes](Self#what-a-sync-removes)). A
    /// new engine does not know.
    ///
    /// If some objects are unreadable, the engine keeps a day later only the state that our record names as theirs.
    pub fn set_complete(&mut self, completeness: Completeness) {
        if self.doubt.set(completeness) {
            self.next_audit = Duration::ZERO;
        }
    }

    /// Takes in an event. It takes effect with the next sync.
    pub fn apply(&mut self, event: Event) {
        self.cluster.apply(event);
    }

    /// What the kernel has, as far as is known: as it was read last, and as the changes since then left it. Virtual
    /// servers of other programs are not in it. None: it was not read yet.
    pub fn known(&self) -> Option<&State> {
        self.known.as_ref()
    }

    /// By what it decides.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is known of the world.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What a Service needs, as it is computed now.
    pub fn desired(&self, service: &ServiceId) -> Desired {
        desired::of_service(&self.cluster, &self.config, service)
    }

    /// How many real servers have left the endpoints and keep their last connections.
    pub fn draining(&self) -> usize {
        self.drains.len()
    }

    /// How much there is in the kernel of ours. Costs a look at every virtual server.
    pub fn counts(&self) -> Counts {
        let servers = || self.known.iter().flat_map(|known| known.virtual_servers.values());
        Counts {
            virtual_servers: servers().count(),
            real_servers: servers().map(|server| server.real_servers.len()).sum(),
            draining: self.draining(),
        }
    }

    /// How many Services have traffic that is to stay on this node, where none of their endpoints takes it.
    pub fn without_local_endpoints(&self) -> NoLocalEndpoints {
        self.contributions.no_local()
    }

    /// Whether the kernel has all that is wanted, as far as is known.
    pub fn is_healthy(&self) -> bool {
        self.known.is_some() && !self.retry.is_pending()
    }

    /// Whether the kernel has all that is wanted and nothing of ours that is not, as far as is known: all that exists
    /// was known in the last sync, or was waited for long enough, and nothing failed.
    pub fn is_converged(&self) -> bool {
        self.doubt.is_over() && self.is_healthy()
    }

    /// Brings the kernel to what is wanted. Costs work in proportion to what changed since the last sync;
    /// once every `sync_period`, and after a failure, the kernel is read again and compared as a whole.
    pub fn sync(&mut self, kernel: &mut impl Kernel, now: Duration) -> SyncReport {
        self.doubt.sync(now);
        match self.read_where_due(kernel, now) {
            // Until the kernel could be read once, there is nothing to compare with.
            Ok(_) if self.known.is_none() => SyncReport::default(),
            Ok(Reading { leftovers, believed, whole }) => {
                let decision = self.decide(leftovers, whole, now);
                self.carry_out(decision, believed.as_ref(), kernel, now)
            }
            Err(unavailable) => {
                self.retry.failed(now);
                SyncReport { unavailable: Some(unavailable), ..SyncReport::default() }
            }
        }
    }

    /// When the next sync is due if no event comes before.
    pub fn next_sync(&self) -> Duration {
        let read = self.retry.due().unwrap_or(self.next_audit);
        let read = self.verify.map_or(read, |verify| verify.min(read));
        self.drains.next().map_or(read, |next| next.min(read))
    }

    /// What the next sync would do to a kernel in this state, and what Services could not have.
    pub fn plan(&mut self, observed: State, now: Duration) -> (Plan, Vec<Skipped>) {
        let Reading { leftovers, whole, .. } = self.observed(observed);
        let Decision { plan, skipped, .. } = self.decide(leftovers, whole, now);
        (plan, skipped.into_iter().collect())
    }
}
