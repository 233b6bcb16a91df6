//! [`Kernel`] for Linux.

use std::{collections::BTreeMap, io};

use ipvs_netlink::VirtualServer;

use super::{LinuxKernel, Operation, Subsystem, ipvs, record, sysctl, timeouts, unavailable};
use crate::{
    kernel::{Cause, ConnectionCounts, Failure, Kernel, KernelUnavailable, Reason, Report, in_phases},
    model::VirtualServerKey,
    plan::{Change, Phase, Plan},
    state::State,
};

impl Kernel for LinuxKernel {
    fn prepare(&mut self) -> Result<(), KernelUnavailable> {
        self.correct_settings()?;
        use Operation::Prepare;
        let addresses = |kernel: &mut Self| kernel.addresses.prepare();
        let prepared = self.timed(Subsystem::Addresses, Prepare, addresses);
        prepared.map_err(unavailable(self.device()))?;
        let nft = |kernel: &mut Self| {
            kernel.nft.prepare()?;
            match kernel.addresses.default_gateways() {
                Ok(gateways) => kernel.nft.set_gateways(&gateways),
                // The last known gateways stay in force: they change seldom, and only reject rules use them.
                Err(_) => Ok(()),
            }
        };
        self.timed(Subsystem::Nftables, Prepare, nft).map_err(unavailable("nftables"))
    }

    fn correct_settings(&mut self) -> Result<(), KernelUnavailable> {
        sysctl::prepare(&self.config, &self.settings).map_err(unavailable("sysctl"))?;
        self.ipvs.refresh().map_err(unavailable("IPVS"))?;
        let timeouts = |kernel: &mut Self| timeouts::prepare(&mut kernel.ipvs, &kernel.settings.timeouts);
        self.timed(Subsystem::Ipvs, Operation::Prepare, timeouts).map_err(unavailable("IPVS"))
    }

    fn read_state(&mut self, believed: &State) -> Result<State, KernelUnavailable> {
        let (state, recorded) = self.read(believed)?;
        if let Some(recorded) = recorded {
            let followed = self.with_record(|record| record.follow(&recorded, &state));
            self.record_error = self.record_error.take().filter(|_| followed.is_none());
        }
        Ok(state)
    }

    fn virtual_servers(
        &mut self,
        keys: &[VirtualServerKey],
    ) -> Result<BTreeMap<VirtualServerKey, VirtualServer>, KernelUnavailable> {
        let query = |kernel: &mut Self| ipvs::configurations(&mut kernel.ipvs, keys);
        self.timed(Subsystem::Ipvs, Operation::Read, query).map_err(unavailable("IPVS"))
    }

    fn connections(&mut self, servers: &[VirtualServerKey]) -> Result<ConnectionCounts, KernelUnavailable> {
        let count = |kernel: &mut Self| ipvs::connections(&mut kernel.ipvs, servers);
        self.timed(Subsystem::Ipvs, Operation::Read, count).map_err(unavailable("IPVS"))
    }

    fn apply(&mut self, plan: &Plan) -> Report {
        in_phases(plan, |phase, changes| {
            // If the write fails, the next read of the kernel repairs the record.
            self.with_record(|record| record.intend(changes.iter().map(|(_, change)| *change)));
            let failures = self.execute(phase, changes, plan);
            self.confirm(changes, &failures);
            failures
        })
    }
}

impl LinuxKernel {
    /// Reads the state, and the file of the record. `None` if there is no such file or it cannot be read.
    pub(super) fn read(&mut self, believed: &State) -> Result<(State, Option<record::Owned>), KernelUnavailable> {
        use Operation::Read;
        let mut state = State::default();
        let nft = |kernel: &mut Self| kernel.nft.read_into(&mut state);
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
        let bound = self.timed(Subsystem::Addresses, Read, |kernel| kernel.addresses.read());
        state.bound_vips = bound.map_err(unavailable(self.device()))?;
        if let Some(record::Owned { servers, vips, .. }) = &recorded {
            // If a recorded object does not exist, another program removed it. A program that makes it again owns it.
            state.owned = servers.iter().filter(|key| state.virtual_servers.contains_key(key)).copied().collect();
            state.owned_vips = vips.intersection(&state.bound_vips).copied().collect();
        }
        self.inherit(&mut state)?;
        Ok((state, recorded))
    }

    /// A failure of the record stops nothing: it is a copy.
    fn with_record<T>(&mut self, work: impl FnOnce(&mut record::Record) -> io::Result<T>) -> Option<T> {
        match work(self.record.as_mut()?) {
            Ok(outcome) => Some(outcome),
            Err(error) => {
                self.record_error = Some(error);
                None
            }
        }
    }

    /// Removes from the record the objects that are gone, and the virtual servers that were not made: another program
    /// may own those. If the write fails, the next read of the kernel repairs the record.
    fn confirm(&mut self, changes: &[(usize, &Change)], failures: &[Failure]) {
        let causes: BTreeMap<usize, Cause> = failures.iter().map(|failure| (failure.change, failure.cause)).collect();
        let gone: Vec<Change> = changes
            .iter()
            .filter_map(|(number, change)| match (change, causes.get(number)) {
                (Change::AddVirtualServer { key, .. }, Some(Cause::Exists | Cause::Rejected | Cause::NoScheduler)) => {
                    Some(Change::RemoveVirtualServer(*key))
                }
                (Change::RemoveVirtualServer(_) | Change::Unbind(_), None) => Some((*change).clone()),
                _ => None,
            })
            .collect();
        self.with_record(|record| record.forget(gone.iter()));
    }

    fn execute(&mut self, phase: Phase, changes: &[(usize, &Change)], plan: &Plan) -> Vec<Failure> {
        let subsystem = match phase {
            Phase::WriteElements | Phase::AddShortCircuits | Phase::RemoveShortCircuits | Phase::RemoveElements => {
                Subsystem::Nftables
            }
            Phase::WriteVirtualServers | Phase::WriteRealServers | Phase::RemoveVirtualServers => Subsystem::Ipvs,
            Phase::BindVips | Phase::UnbindVips => Subsystem::Addresses,
            Phase::DeleteFlows => Subsystem::Conntrack,
        };
        let mut failures = Vec::new();
        let no_plan = Plan::default();
        let dnated = if self.settings.takeover && !self.has_taken_over { plan } else { &no_plan };
        let outcome = self.timed(subsystem, Operation::Apply, |kernel| match subsystem {
            Subsystem::Nftables => {
                kernel.nft.apply(changes, &mut failures);
                Ok(())
            }
            Subsystem::Ipvs => ipvs::apply(&mut kernel.ipvs, changes, &mut failures).map_err(Reason::from),
            Subsystem::Addresses => kernel.addresses.apply(changes, &mut failures).map_err(Reason::from),
            Subsystem::Conntrack => kernel
                .conntrack
                .apply(changes, dnated, &mut kernel.meter.flow_deletions)
                .map_err(|error| Reason::new(format!("conntrack: {error}"), error.errno())),
        });
        if let Err(reason) = outcome {
            // The engine's state does not contain flows, so a reread would not help.
            let cause = if phase == Phase::DeleteFlows { Cause::Rejected } else { Cause::Unknown };
            let failure = |(change, _): &_| Failure { change: *change, cause, reason: reason.clone() };
            failures = changes.iter().map(failure).collect();
        }
        failures
    }
}
