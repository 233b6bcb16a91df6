//! The real kernel: IPVS, the device `kube-ipvs0`, nftables and sysctls, over netlink.
//!
//! All of these belong to a network namespace: that of the thread which called [`LinuxKernel::open`]. Use the
//! kernel on that thread. Several kernels can live in one process, each on a thread that entered its
//! namespace first:
//!
//! ```no_run
//! use proxier::linux::{LinuxKernel, Settings};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let namespace = std::fs::File::open("/run/netns/node-1")?;
//! netlink_batch::in_namespace(&namespace, || {
//!     let kernel = LinuxKernel::open(Settings::default());
//!     // The loop that owns it.
//! })?;
//! # Ok(())
//! # }
//! ```

mod addresses;
mod conntrack;
mod ipset;
mod ipvs;
mod meter;
mod netfilter;
mod nft;
mod notices;
mod reason;
mod record;
mod routes;
mod settings;
pub mod sysctl;
mod takeover;
mod timeouts;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Instant,
};

use crate::{
    kernel::{
        Cause, ConnectionCounts, FailedPrerequisites, Failure, Kernel, KernelUnavailable, Reason, Report,
        amends,
    },
    model::VirtualServerKey,
    plan::{Change, Phase, Plan},
    state::{Membership, State},
    takeover::AdoptedState,
};
pub use addresses::DEVICE;
pub use meter::{FlowDeletion, Meter, Operation, Subsystem};
pub use notices::{Drift, Notices};
use reason::unavailable;
pub use settings::{LocalDetector, Settings, Timeouts};

/// The kernel of one network namespace. One owner, no other writer of what it records as its own.
pub struct LinuxKernel {
    ipvs: ipvs_netlink::Client,
    addresses: addresses::Addresses,
    conntrack: conntrack::Conntrack,
    ipsets: ipset::IpSets,
    record: Option<record::Record>,
    /// Why the record could not be read or written when that was tried last.
    record_trouble: Option<io::Error>,
    nft: nft::Nft,
    settings: Settings,
    meter: Meter,
    /// What kube-proxy made and our record in nftables may not have yet; `None` before anybody looked.
    adopted_state: Option<AdoptedState>,
    /// How many things that were at first.
    adopted: usize,
    /// What was removed of kube-proxy's leftovers, while some are still to go.
    cleared: Option<takeover::Cleared>,
}

impl LinuxKernel {
    /// Opens the sockets, in the network namespace of the calling thread. Nothing is changed yet.
    ///
    /// # Errors
    ///
    /// When the kernel has no IPVS, or no netlink at all, with what to do.
    pub fn open(settings: Settings) -> Result<Self, KernelUnavailable> {
        Ok(Self {
            record: settings.record.as_deref().map(record::Record::at),
            record_trouble: None,
            ipvs: ipvs_netlink::Client::open().map_err(unavailable("IPVS"))?,
            conntrack: conntrack::Conntrack::open().map_err(unavailable("conntrack"))?,
            addresses: addresses::Addresses::open().map_err(unavailable("rtnetlink"))?,
            ipsets: ipset::IpSets::open().map_err(unavailable("ipset"))?,
            nft: nft::Nft::open(settings.clone()).map_err(unavailable("nftables"))?,
            settings,
            meter: Meter::default(),
            adopted_state: None,
            adopted: 0,
            cleared: None,
        })
    }

    /// What stands in the way of packets to endpoints: chains of others at `forward` whose policy is to drop. One
    /// message each.
    ///
    /// # Errors
    ///
    /// When nftables cannot be read.
    pub fn hindrances(&mut self) -> Result<Vec<String>, KernelUnavailable> {
        let chains = self.nft.dropping_at_forward().map_err(unavailable("nftables"))?;
        let message = |chain| {
            format!(
                "the chain {chain} drops what none of its rules accepts: where they do not accept packets to and from \
                 endpoints, as kube-proxy's KUBE-FORWARD did, Services with endpoints on other nodes time out"
            )
        };
        Ok(chains.into_iter().map(message).collect())
    }

    /// The notices of what others change of ours, from now on, those of each part of the kernel for a thread of its
    /// own.
    ///
    /// # Errors
    ///
    /// When the kernel gives none.
    pub fn notices(&self) -> Result<[Notices; 2], KernelUnavailable> {
        let of_tables = Notices::of_tables(self.nft.port()).map_err(unavailable("nftables"))?;
        Ok([of_tables, Notices::of_devices(self.addresses.port()).map_err(unavailable("rtnetlink"))?])
    }

    /// What was asked of the kernel since the last call.
    pub fn take_meter(&mut self) -> Meter {
        std::mem::take(&mut self.meter)
    }

    /// The counters of all virtual servers on addresses, including those of other programs. One can be missing: lists
    /// of IPVS are no snapshots.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn traffic(&mut self) -> Result<Vec<(VirtualServerKey, ipvs_netlink::Stats)>, KernelUnavailable> {
        let traffic = self.timed(Subsystem::Ipvs, Operation::Read, |kernel| ipvs::traffic(&mut kernel.ipvs));
        traffic.map_err(unavailable("IPVS"))
    }

    fn timed<T>(
        &mut self,
        subsystem: Subsystem,
        operation: Operation,
        work: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let start = Instant::now();
        let outcome = work(self);
        self.meter.add(subsystem, operation, start.elapsed());
        outcome
    }

    /// Removes what is ours and nothing else: the virtual servers and addresses that our record names, and our tables.
    /// The device is removed too if no other program has an address on it.
    ///
    /// # Errors
    ///
    /// The first thing that could not be read or removed. Calling it again goes on from there.
    pub fn clean_up(&mut self) -> Result<Plan, KernelUnavailable> {
        // What kube-proxy made and we never served is not ours.
        self.adopted_state = Some(AdoptedState::default());
        let state = self.observe(&State::default())?;
        let recorded = |key: &VirtualServerKey| state.is_recorded(key);
        let servers = state.virtual_servers.keys().copied().filter(recorded).map(Change::RemoveServer);
        let vips = state.recorded_vips.union(&state.owned_vips).copied();
        let bound = vips.filter(|address| state.bound_vips.contains(address)).map(Change::Unbind);
        let plan = Plan::new(servers.chain(bound).collect());
        if let Some(failure) = self.apply(&plan).failures.first() {
            let change = plan.changes()[failure.change].to_string();
            return Err(KernelUnavailable::new(change, failure.reason.clone()));
        }
        self.nft.remove().map_err(unavailable("nftables"))?;
        self.addresses.remove().map_err(unavailable(DEVICE))?;
        Ok(plan)
    }

    /// The Service port behind each virtual server of ours, as our record in nftables has it.
    ///
    /// # Errors
    ///
    /// When nftables cannot be read.
    pub fn owners(
        &mut self,
    ) -> Result<BTreeMap<ipvs_netlink::VirtualServerKey, Arc<str>>, KernelUnavailable> {
        let mut state = State::default();
        self.nft.observe(&mut state).map_err(unavailable("nftables"))?;
        let owner = |(key, entry): (_, Membership)| Some((ipvs::wire_key(key), entry.comment?));
        Ok(state.elements.into_iter().filter_map(owner).collect())
    }

    /// Shows `observer` every netlink datagram before it is sent, for benchmarks that replay them.
    #[doc(hidden)]
    pub fn observe_sends(
        &mut self,
        observer: impl Fn(netlink_batch::Protocol, &[u8]) + Send + Clone + 'static,
    ) {
        use netlink_batch::Protocol::{Generic, Netfilter, Route};
        let to = |protocol| {
            let observer = observer.clone();
            move |bytes: &[u8]| observer(protocol, bytes)
        };
        self.ipvs.observe_sends(to(Generic));
        self.addresses.observe_sends(to(Route));
        self.nft.observe_sends(to(Netfilter));
    }

    /// Reads the state as [`observe`](Kernel::observe) does, and writes nothing, not even to the record. Use it to look
    /// while another process owns the kernel.
    ///
    /// # Errors
    ///
    /// When any part of it cannot be read.
    pub fn look(&mut self) -> Result<State, KernelUnavailable> {
        Ok(self.read(&State::default())?.0)
    }

    /// What the operator has to know though it does not stop everything.
    pub fn troubles(&self) -> Vec<String> {
        let record = self.record.as_ref().zip(self.record_trouble.as_ref()).map(|(record, error)| {
            format!(
                "cannot keep the copy of the record of what is ours in {}: {error}. Services are served all the same; \
                 but kube-ipvs forgets what it owns if another program empties nftables while kube-ipvs is not running",
                record.path().display()
            )
        });
        let v6 = self.nft.without_v6().map(|error| {
            format!("nftables has no table for IPv6: {error}. Services are served by IPv4 alone")
        });
        record.into_iter().chain(v6).collect()
    }

    /// Does something with the record. A failure stops nothing: it is a copy.
    fn with_record<T>(&mut self, work: impl FnOnce(&mut record::Record) -> io::Result<T>) -> Option<T> {
        match work(self.record.as_mut()?) {
            Ok(outcome) => Some(outcome),
            Err(error) => {
                self.record_trouble = Some(error);
                None
            }
        }
    }

    /// Reads the state, and what the copy of the record says; none where there is no such copy, or it cannot be read.
    fn read(&mut self, believed: &State) -> Result<(State, Option<record::Owned>), KernelUnavailable> {
        use Operation::Read;
        let mut state = State::default();
        let nft = |kernel: &mut Self| kernel.nft.observe(&mut state);
        self.timed(Subsystem::Nftables, Read, nft).map_err(unavailable("nftables"))?;
        let recorded = self.with_record(|record| record.read());
        let ipvs = |kernel: &mut Self| {
            ipvs::list(&mut kernel.ipvs, &mut state)?;
            let inherited = kernel.adopted_state.iter().flat_map(|adopted_state| &adopted_state.servers);
            let recorded = recorded.iter().flat_map(|recorded| &recorded.servers);
            let missing = ipvs::passed_over(&state, believed, recorded.chain(inherited));
            ipvs::ask(&mut kernel.ipvs, &mut state, missing)
        };
        self.timed(Subsystem::Ipvs, Read, ipvs).map_err(unavailable("IPVS"))?;
        let bound = self.timed(Subsystem::Addresses, Read, |kernel| kernel.addresses.observe());
        state.bound_vips = bound.map_err(unavailable(DEVICE))?;
        if let Some(record::Owned { servers, vips, .. }) = &recorded {
            // If the record names something that is not there, another program removed it. If a program makes it again,
            // that program owns it.
            state.owned =
                servers.iter().filter(|key| state.virtual_servers.contains_key(key)).copied().collect();
            state.owned_vips = vips.intersection(&state.bound_vips).copied().collect();
        }
        self.inherit(&mut state)?;
        Ok((state, recorded))
    }

    /// Takes back from the record what was removed, and what could not be made, which may be another program's. A line
    /// that cannot be written is made good when the kernel is read, which has nothing there.
    fn confirm(&mut self, changes: &[(usize, &Change)], failures: &[Failure]) {
        let causes: BTreeMap<usize, Cause> =
            failures.iter().map(|failure| (failure.change, failure.cause)).collect();
        let gone: Vec<Change> = changes
            .iter()
            .filter_map(|(number, change)| match (change, causes.get(number)) {
                (
                    Change::AddServer { key, .. },
                    Some(Cause::Exists | Cause::Refused | Cause::NoScheduler),
                ) => Some(Change::RemoveServer(*key)),
                (Change::RemoveServer(_) | Change::Unbind(_), None) => Some((*change).clone()),
                _ => None,
            })
            .collect();
        self.with_record(|record| record.forget(gone.iter()));
    }

    /// Does what is to be done at once about what failed.
    fn amend(&mut self, amends: &Plan, failed_before: &mut FailedPrerequisites, report: &mut Report) {
        let changes: Vec<_> = amends.changes().iter().enumerate().collect();
        if changes.is_empty() {
            return;
        }
        let failures = self.execute(Phase::WriteElements, &changes);
        let failed: BTreeSet<usize> = failures.iter().map(|failure| failure.change).collect();
        for (number, change) in changes {
            if failed.contains(&number) {
                failed_before.note(change);
            } else {
                report.amended.push(change.clone());
            }
        }
    }

    /// Carries out changes of one phase.
    fn execute(&mut self, phase: Phase, changes: &[(usize, &Change)]) -> Vec<Failure> {
        let subsystem = match phase {
            Phase::WriteElements
            | Phase::AddShortCircuits
            | Phase::RemoveShortCircuits
            | Phase::RemoveElements => Subsystem::Nftables,
            Phase::WriteVirtualServers | Phase::WriteRealServers | Phase::RemoveServers => Subsystem::Ipvs,
            Phase::BindVips | Phase::UnbindVips => Subsystem::Addresses,
            Phase::DeleteFlows => Subsystem::Conntrack,
        };
        let mut failures = Vec::new();
        let outcome = self.timed(subsystem, Operation::Apply, |kernel| match subsystem {
            Subsystem::Nftables => {
                kernel.nft.apply(changes, &mut failures);
                Ok(())
            }
            Subsystem::Ipvs => ipvs::apply(&mut kernel.ipvs, changes, &mut failures).map_err(Reason::from),
            Subsystem::Addresses => kernel.addresses.apply(changes, &mut failures).map_err(Reason::from),
            Subsystem::Conntrack => kernel
                .conntrack
                .apply(changes, &mut kernel.meter.flow_deletions)
                .map_err(|error| Reason::new(format!("conntrack: {error}"), error.errno())),
        });
        if let Err(reason) = outcome {
            // Flows are nothing that is read.
            let cause = if phase == Phase::DeleteFlows { Cause::Refused } else { Cause::Unknown };
            let failure = |(change, _): &_| Failure { change: *change, cause, reason: reason.clone() };
            failures = changes.iter().map(failure).collect();
        }
        failures
    }
}

impl Kernel for LinuxKernel {
    fn prepare(&mut self) -> Result<(), KernelUnavailable> {
        sysctl::prepare(&self.settings).map_err(unavailable("sysctl"))?;
        use Operation::Prepare;
        self.ipvs.refresh().map_err(unavailable("IPVS"))?;
        let timeouts = |kernel: &mut Self| timeouts::prepare(&mut kernel.ipvs, &kernel.settings.timeouts);
        self.timed(Subsystem::Ipvs, Prepare, timeouts).map_err(unavailable("IPVS"))?;
        let addresses = |kernel: &mut Self| kernel.addresses.prepare();
        self.timed(Subsystem::Addresses, Prepare, addresses).map_err(unavailable(DEVICE))?;
        let nft = |kernel: &mut Self| {
            kernel.nft.prepare()?;
            match kernel.addresses.default_gateways() {
                Ok(gateways) => kernel.nft.set_gateways(&gateways),
                // Those known so far stay: they change seldom, and only what is refused goes by them.
                Err(_) => Ok(()),
            }
        };
        self.timed(Subsystem::Nftables, Prepare, nft).map_err(unavailable("nftables"))
    }

    fn observe(&mut self, believed: &State) -> Result<State, KernelUnavailable> {
        let (state, recorded) = self.read(believed)?;
        if let Some(recorded) = recorded {
            let followed = self.with_record(|record| record.follow(&recorded, &state));
            self.record_trouble = self.record_trouble.take().filter(|_| followed.is_none());
        }
        Ok(state)
    }

    fn connections(&mut self, servers: &[VirtualServerKey]) -> Result<ConnectionCounts, KernelUnavailable> {
        let count = |kernel: &mut Self| ipvs::connections(&mut kernel.ipvs, servers);
        self.timed(Subsystem::Ipvs, Operation::Read, count).map_err(unavailable("IPVS"))
    }

    fn apply(&mut self, plan: &Plan) -> Report {
        let mut report = Report::default();
        let mut failed = FailedPrerequisites::default();
        let numbered: Vec<_> = plan.changes().iter().enumerate().collect();
        for run in numbered.chunk_by(|(_, one), (_, other)| one.phase() == other.phase()) {
            let mut possible = Vec::with_capacity(run.len());
            let mut failures = Vec::new();
            for &(change, what) in run {
                match failed.stops(what) {
                    None => possible.push((change, what)),
                    Some(reason) => {
                        let (cause, reason) = (Cause::NotTried, reason.into());
                        failures.push(Failure { change, cause, reason });
                    }
                }
            }
            // Where it cannot be written, that is made good when the kernel is read.
            self.with_record(|record| record.intend(possible.iter().map(|(_, change)| *change)));
            failures.extend(self.execute(run[0].1.phase(), &possible));
            self.confirm(&possible, &failures);
            failures.iter().for_each(|failure| failed.note(&plan.changes()[failure.change]));
            self.amend(&amends(plan, &failures), &mut failed, &mut report);
            report.failures.extend(failures);
        }
        report
    }
}
