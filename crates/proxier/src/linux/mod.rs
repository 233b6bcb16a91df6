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
mod ipvs;
mod nft;
mod sysctl;

use std::{collections::BTreeMap, fmt::Display, sync::Arc};

use ipnet::IpNet;

use crate::{
    kernel::{Cause, ConnectionCounts, Failure, Kernel, Report, Setbacks, Unusable},
    model::VirtualServerKey,
    plan::{Change, Phase, Plan},
    set::KeySet,
    state::{Membership, State},
};
pub use addresses::DEVICE;

/// What the back end needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The bit of the packet mark that asks for masquerade, 0 to 31. kube-proxy's is 14.
    pub masquerade_bit: u8,
    /// Whether all traffic to ClusterIPs is masqueraded.
    pub masquerade_all: bool,
    /// How a packet from a pod is told from others.
    pub local_detector: LocalDetector,
    /// Whether packets that conntrack takes for no part of any connection may pass.
    pub tcp_be_liberal: bool,
}

/// How a packet from a pod is told from others (kube-proxy's `detectLocal`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalDetector {
    /// By nothing: traffic to ClusterIPs is never masqueraded, and pods are treated as outsiders elsewhere.
    None,
    /// By its source: the pods' ranges. A family without any is as with `None`.
    Sources(Vec<IpNet>),
    /// By the bridge that it comes in by.
    Bridge(String),
    /// By how the name of the interface begins that it comes in by.
    InterfacePrefix(String),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            masquerade_bit: 14,
            masquerade_all: false,
            local_detector: LocalDetector::None,
            tcp_be_liberal: false,
        }
    }
}

/// The kernel of one network namespace. One owner, no other writer of what it records as its own.
pub struct LinuxKernel {
    ipvs: ipvs_netlink::Client,
    addresses: addresses::Addresses,
    conntrack: conntrack::Conntrack,
    nft: nft::Nft,
}

impl LinuxKernel {
    /// Opens the sockets, in the network namespace of the calling thread. Nothing is changed yet.
    ///
    /// # Errors
    ///
    /// When the kernel has no IPVS, or no netlink at all, with what to do.
    pub fn open(settings: Settings) -> Result<Self, Unusable> {
        Ok(Self {
            ipvs: ipvs_netlink::Client::open().map_err(unusable("IPVS"))?,
            conntrack: conntrack::Conntrack::open().map_err(unusable("conntrack"))?,
            addresses: addresses::Addresses::open().map_err(unusable("rtnetlink"))?,
            nft: nft::Nft::open(settings).map_err(unusable("nftables"))?,
        })
    }

    /// Removes what is ours and nothing else: the virtual servers and addresses that our record names, our
    /// tables, and the device if nobody else has an address on it.
    ///
    /// # Errors
    ///
    /// The first thing that could not be read or removed. Calling it again goes on from there.
    pub fn clean_up(&mut self) -> Result<Plan, Unusable> {
        let state = self.observe()?;
        let recorded = |key: &VirtualServerKey| {
            state.elements.get(key).is_some_and(|entry| entry.sets.contains(KeySet::Served))
        };
        let servers = state.virtual_servers.keys().copied().filter(recorded).map(Change::RemoveServer);
        let bound = state.recorded_vips.intersection(&state.bound_vips).copied().map(Change::Unbind);
        let plan = Plan::new(servers.chain(bound).collect());
        if let Some(failure) = self.apply(&plan).failures.first() {
            return Err(Unusable(format!("{}: {}", plan.changes()[failure.change], failure.reason)));
        }
        self.nft.remove().map_err(unusable("nftables"))?;
        self.addresses.remove().map_err(unusable(DEVICE))?;
        Ok(plan)
    }

    /// The Service port behind each virtual server of ours, as our record in nftables has it.
    ///
    /// # Errors
    ///
    /// When nftables cannot be read.
    pub fn owners(&mut self) -> Result<BTreeMap<ipvs_netlink::VirtualServerKey, Arc<str>>, Unusable> {
        let mut state = State::default();
        self.nft.observe(&mut state).map_err(unusable("nftables"))?;
        let owner = |(key, entry): (_, Membership)| Some((ipvs::wire_key(key), entry.comment?));
        Ok(state.elements.into_iter().filter_map(owner).collect())
    }

    /// Shows `observer` every netlink datagram before it is sent, for benchmarks that replay them.
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

    /// Carries out changes of one phase.
    fn execute(&mut self, phase: Phase, changes: &[(usize, &Change)]) -> Vec<Failure> {
        let mut failures = Vec::new();
        let outcome = match phase {
            Phase::Record | Phase::Divert | Phase::Restore | Phase::Forget => {
                self.nft.apply(changes, &mut failures);
                Ok(())
            }
            Phase::Open | Phase::Serve | Phase::Withdraw => {
                ipvs::apply(&mut self.ipvs, changes, &mut failures).map_err(|error| error.to_string())
            }
            Phase::Attract | Phase::Repel => {
                self.addresses.apply(changes, &mut failures).map_err(|error| error.to_string())
            }
            Phase::Cleanse => self.conntrack.apply(changes).map_err(|error| format!("conntrack: {error}")),
        };
        if let Err(reason) = outcome {
            let unknown =
                |(change, _): &_| Failure { change: *change, cause: Cause::Unknown, reason: reason.clone() };
            failures = changes.iter().map(unknown).collect();
        }
        failures
    }
}

impl Kernel for LinuxKernel {
    fn prepare(&mut self) -> Result<(), Unusable> {
        sysctl::prepare().map_err(unusable("sysctl"))?;
        self.addresses.prepare().map_err(unusable(DEVICE))?;
        self.nft.prepare().map_err(unusable("nftables"))
    }

    fn observe(&mut self) -> Result<State, Unusable> {
        let mut state = State::default();
        self.nft.observe(&mut state).map_err(unusable("nftables"))?;
        ipvs::observe(&mut self.ipvs, &mut state).map_err(unusable("IPVS"))?;
        state.bound_vips = self.addresses.observe().map_err(unusable(DEVICE))?;
        Ok(state)
    }

    fn connections(&mut self, servers: &[VirtualServerKey]) -> Result<ConnectionCounts, Unusable> {
        ipvs::connections(&mut self.ipvs, servers).map_err(unusable("IPVS"))
    }

    fn apply(&mut self, plan: &Plan) -> Report {
        let mut report = Report::default();
        let mut setbacks = Setbacks::default();
        let numbered: Vec<_> = plan.changes().iter().enumerate().collect();
        for run in numbered.chunk_by(|(_, one), (_, other)| one.phase() == other.phase()) {
            let mut possible = Vec::with_capacity(run.len());
            let mut failures = Vec::new();
            for &(change, what) in run {
                match setbacks.stops(what) {
                    None => possible.push((change, what)),
                    Some(reason) => {
                        let (cause, reason) = (Cause::Refused, reason.into());
                        failures.push(Failure { change, cause, reason });
                    }
                }
            }
            failures.extend(self.execute(run[0].1.phase(), &possible));
            failures.iter().for_each(|failure| setbacks.note(&plan.changes()[failure.change]));
            report.failures.extend(failures);
        }
        report
    }
}

fn unusable<E: Display>(what: &'static str) -> impl Fn(E) -> Unusable {
    move |error| Unusable(format!("{what}: {error}"))
}
