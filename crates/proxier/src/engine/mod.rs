//! The one loop body: events in, a plan out, its report back in.

mod contribution;
mod doubt;
mod flows;
mod health;
mod report;
mod retry;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use crate::{
    cluster::{Claim, Cluster, EndpointAddress},
    config::Config,
    desired::{self, Desired, HealthCheck, SharedResource, Skipped},
    diff::Differ,
    drain::Drains,
    kernel::{Cause, Kernel, KernelUnavailable, Report},
    model::{Event, ServiceId, VirtualServerKey},
    plan::{Change, Plan},
    state::State,
};
use contribution::Contributions;
pub use doubt::Completeness;
use doubt::Doubt;
use flows::PendingFlowDeletes;
pub use report::{Counts, FailedChange, SyncReport};
use retry::Retry;

/// Decides what the kernel should have, and keeps it so.
///
/// Time is given from outside, as the time since any fixed moment: the engine has no clock. Feed it events
/// with [`apply`](Self::apply), then call [`sync`](Self::sync), and again when
/// [`next_sync`](Self::next_sync) says.
///
/// The first sync must come when all of this has been fed in: the first full list of Services, of EndpointSlices and of
/// ServiceCIDRs, our own Node, and the addresses of this host ([`Event::NodeAddresses`]). It removes what the kernel
/// has of ours and no Service needs: without the addresses of the host, all that serves node ports. Where Services
/// have external or load-balancer IPs it needs the other Nodes too, or it binds their addresses.
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

/// The kernel is not read more often than this while nothing fails.
const SHORTEST_PERIOD: Duration = Duration::from_millis(100);

/// What is to be done next.
#[derive(Debug, Default)]
struct Decision {
    plan: Plan,
    skipped: BTreeSet<Skipped>,
    health_checks: Vec<(ServiceId, Option<HealthCheck>)>,
    given_up: BTreeMap<VirtualServerKey, ServiceId>,
}

/// What reading the kernel has shown.
#[derive(Debug, Default)]
struct Reading {
    /// What may be left in it of Services that are gone.
    leftovers: Scope,
    /// What it was believed to have, if it was read.
    believed: Option<State>,
    /// Whether it was read.
    whole: bool,
}

/// The parts of the state that a plan may touch.
#[derive(Debug, Default)]
struct Scope {
    keys: BTreeSet<VirtualServerKey>,
    shared: BTreeSet<SharedResource>,
}

impl Scope {
    fn add(&mut self, desired: &Desired) {
        self.keys.extend(desired.virtual_servers.keys());
        self.shared.extend(&desired.shared);
    }
}

impl Engine {
    /// An engine that knows nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            cluster: Cluster::new(&config),
            config,
            known: None,
            foreign: BTreeSet::new(),
            disowned: BTreeSet::new(),
            contributions: Contributions::default(),
            drains: Drains::default(),
            pending_flow_deletes: PendingFlowDeletes::default(),
            retry: Retry::default(),
            next_audit: Duration::ZERO,
            doubt: Doubt::none(),
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
    /// known Service asks for, if it may belong to an unknown one. By default, all are known.
    ///
    /// If some objects are unreadable, the engine keeps a day later only the state that our record names as theirs. As
    /// long as there is no complete list, it removes nothing.
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

    /// How many Services have traffic that is to stay on this node, where none of their endpoints takes it: as
    /// `internalTrafficPolicy` says and as `externalTrafficPolicy` says, each by family.
    pub fn without_local_endpoints(&self) -> [[usize; 2]; 2] {
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
            Ok(reading) if self.known.is_some() => self.carry_out(reading, kernel, now),
            Ok(_) => SyncReport::default(),
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
        let reading = self.observed(observed);
        let Decision { plan, skipped, .. } = self.decide(reading.leftovers, reading.whole, now);
        (plan, skipped.into_iter().collect())
    }

    /// Reads the kernel, if it is time to.
    fn read_where_due(
        &mut self,
        kernel: &mut impl Kernel,
        now: Duration,
    ) -> Result<Reading, KernelUnavailable> {
        let mut reading = Reading::default();
        // After a failure the kernel is read when the retry is due, and not before.
        let due = self.retry.due().unwrap_or(self.next_audit) <= now;
        if due || self.verify.is_some_and(|verify| verify <= now) {
            self.verify = None;
            kernel.prepare()?;
            let nothing = State::default();
            let state = kernel.observe(self.known.as_ref().unwrap_or(&nothing))?;
            reading = self.observed(state);
            self.next_audit = now.saturating_add(self.config.sync_period.max(SHORTEST_PERIOD));
            self.retry.started();
        }
        let mut over = self.drains.ended(now);
        let draining = self.drains.due(now);
        if !draining.is_empty() {
            over.extend(self.drains.counted(&kernel.connections(&draining)?, now));
        }
        for key in over {
            self.cluster.mark_owner_dirty(&Claim::VirtualServer(key));
        }
        Ok(reading)
    }

    /// Takes in what the kernel has. Every Service is to be compared with it.
    fn observed(&mut self, mut state: State) -> Reading {
        let believed = self.known.take();
        let nothing = State::default();
        let before = believed.as_ref().unwrap_or(&nothing);
        self.disowned.retain(|key| state.virtual_servers.contains_key(key));
        let had =
            |key: &VirtualServerKey| before.virtual_servers.contains_key(key) || before.owned.contains(key);
        let ours =
            |key: &VirtualServerKey| (state.is_recorded(key) || had(key)) && !self.disowned.contains(key);
        self.foreign = state.virtual_servers.keys().copied().filter(|key| !ours(key)).collect();
        state.virtual_servers.retain(|key, _| !self.foreign.contains(key));
        let mut leftovers = self.doubt.leftovers(&state, before);
        leftovers.keys.extend(&self.foreign);
        self.drains.retain(|key, address| {
            state.virtual_servers.get(key).is_some_and(|server| server.real_servers.contains_key(address))
        });
        self.cluster.mark_all();
        self.known = Some(state);
        Reading { leftovers, believed, whole: true }
    }

    /// Compares what the changed Services want, and the leftovers, with what the kernel has.
    fn decide(&mut self, leftovers: Scope, whole: bool, now: Duration) -> Decision {
        let mut scope = leftovers;
        let mut wanted = Desired::default();
        let (mut health_checks, mut given_up) = (Vec::new(), BTreeMap::new());
        for id in self.cluster.drain_dirty() {
            let mut desired = desired::of_service(&self.cluster, &self.config, &id);
            leave_out_foreign(&mut desired, &self.foreign);
            desired.cap_reasons(&id);
            scope.add(&desired);
            let old = self.contributions.replace(&id, &desired);
            let lost = old.keys.iter().filter(|key| !desired.virtual_servers.contains_key(key));
            given_up.extend(lost.map(|key| (*key, id.clone())));
            scope.keys.extend(old.keys);
            scope.shared.extend(old.shared);
            desired.skipped.retain(|reason| !old.skipped.contains(reason));
            let health_check = desired.health_checks.get(&id).copied();
            if health_check != old.health_check {
                health_checks.push((id, health_check));
            }
            wanted.merge(desired);
        }
        let Some(known) = &self.known else { return Default::default() };
        let mut differ = Differ {
            config: &self.config,
            known,
            foreign: &self.foreign,
            drains: &mut self.drains,
            now,
            changes: Vec::new(),
        };
        for key in scope.keys {
            differ.virtual_server(key, wanted.virtual_servers.get(&key));
        }
        for shared in scope.shared {
            differ.shared(shared, self.contributions.need(shared));
        }
        differ.service_ranges(self.cluster.service_ranges());
        differ.pod_sources(self.cluster.pod_sources());
        differ.remote_pods(self.cluster.remote_pods());
        let mut changes = differ.changes;
        if whole {
            self.pending_flow_deletes.plan(known, &mut changes);
        }
        Decision { plan: Plan::new(changes), skipped: wanted.skipped, health_checks, given_up }
    }

    /// Executes what was decided, and learns from the report.
    fn carry_out(&mut self, reading: Reading, kernel: &mut impl Kernel, now: Duration) -> SyncReport {
        let Decision { plan, skipped, health_checks, given_up } =
            self.decide(reading.leftovers, reading.whole, now);
        let had = |change: &&Change| reading.believed.as_ref().is_some_and(|believed| believed.has(change));
        let drifted = plan.changes().iter().filter(had).count();
        let had_server = |key: &VirtualServerKey| {
            reading.believed.as_ref().is_some_and(|believed| believed.virtual_servers.contains_key(key))
        };
        let Report { failures, amended } =
            if plan.is_empty() { Report::default() } else { kernel.apply(&plan) };
        let reasons: BTreeMap<usize, (Cause, String)> =
            failures.into_iter().map(|failure| (failure.change, (failure.cause, failure.reason))).collect();
        let (mut done, mut failures, mut taken) =
            (Vec::with_capacity(plan.changes().len()), Vec::new(), false);
        let mut unlisted = BTreeSet::new();
        for (number, change) in plan.changes().iter().enumerate() {
            match reasons.get(&number) {
                None => done.push(change),
                Some((cause, reason)) => {
                    self.pending_flow_deletes.note(change);
                    match (cause, change) {
                        // It was recorded before this plan, or was there before, so it is ours: Linux has one table
                        // for all network namespaces, and a list leaves some out while another namespace changes its
                        // own.
                        (Cause::Exists, Change::AddServer { key, .. })
                            if self.is_recorded(*key) || had_server(key) =>
                        {
                            unlisted.insert(*key);
                        }
                        // Another program has this key. The engine takes its own record of it back at once.
                        (Cause::Exists, Change::AddServer { key, .. }) => {
                            self.disowned.insert(*key);
                            taken = true;
                        }
                        (
                            Cause::NoScheduler,
                            Change::AddServer { config, .. } | Change::UpdateServer { config, .. },
                        ) if config.scheduler != self.config.scheduler => {
                            self.cluster.record_missing(config.scheduler);
                            taken = true;
                        }
                        // If it is there at the next reading, it is ours. Until then, its Service may go and take its
                        // record along, or another program may empty nftables.
                        (Cause::Unknown, Change::AddServer { key, .. }) => {
                            self.known.iter_mut().for_each(|known| known.owned.extend([*key]));
                        }
                        (Cause::Unknown, Change::Bind(address)) | (_, Change::Unbind(address)) => {
                            self.known.iter_mut().for_each(|known| known.owned_vips.extend([*address]));
                        }
                        _ => {}
                    }
                    if change.key().is_some_and(|key| unlisted.contains(&key)) {
                        continue;
                    }
                    let service =
                        change.key().and_then(|key| self.cluster.holder(&Claim::VirtualServer(key)));
                    let service = service.map(|holder| holder.port.clone());
                    failures.push(FailedChange { service, change: change.clone(), reason: reason.clone() });
                }
            }
        }
        self.done(&done);
        self.done(&amended.iter().collect::<Vec<_>>());
        self.known.iter_mut().for_each(|known| known.owned.extend(&unlisted));
        match (failures.is_empty() && unlisted.is_empty(), taken) {
            (true, _) => self.retry.done(),
            (false, true) => self.retry.at_once(now),
            (false, false) => self.retry.failed(now),
        }
        let skipped = skipped.into_iter().collect();
        let whole = reading.whole;
        SyncReport { plan, failures, skipped, unavailable: None, health_checks, whole, drifted, given_up }
    }
}

impl Engine {
    fn is_recorded(&self, key: VirtualServerKey) -> bool {
        self.known.as_ref().is_some_and(|known| known.is_recorded(&key))
    }

    /// The kernel carried these changes out.
    fn done(&mut self, changes: &[&Change]) {
        for change in changes {
            match change {
                Change::AddServer { key, .. } => {
                    self.disowned.remove(key);
                }
                Change::RemoveServer(key) => self.drains.forget_server(*key),
                Change::RemoveRealServer { key, address } => self.drains.forget(*key, *address),
                _ => {}
            }
        }
        self.known.iter_mut().for_each(|known| known.apply_all(changes));
    }
}

/// Takes out the virtual servers that another program made where we want ours, and what only they were wanted for. If
/// an address has nothing of the Service left, it may be another host's, so the engine does not bind it.
fn leave_out_foreign(desired: &mut Desired, foreign: &BTreeSet<VirtualServerKey>) {
    let clashes: BTreeMap<_, _> =
        desired.virtual_servers.extract_if(.., |key, _| foreign.contains(key)).collect();
    if clashes.is_empty() {
        return;
    }
    let addresses: BTreeSet<IpAddr> = desired.virtual_servers.keys().map(|key| key.address).collect();
    desired.shared.retain(|shared| match shared {
        SharedResource::Vip(address) => addresses.contains(address),
        SharedResource::HealthCheck(check) => addresses.contains(&check.address),
        SharedResource::Hairpin(..) => true,
    });
    for (key, server) in &mut desired.virtual_servers {
        let at = |to: &EndpointAddress| VirtualServerKey {
            address: to.address,
            protocol: key.protocol,
            port: to.port,
        };
        server.short_circuit = server.short_circuit.filter(|to| !clashes.contains_key(&at(to)));
    }
    let reasons = clashes.into_iter().map(|(key, server)| Skipped::Foreign { port: server.owner, key });
    desired.skipped.extend(reasons);
}
