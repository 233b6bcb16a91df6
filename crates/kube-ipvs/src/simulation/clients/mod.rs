//! The model clients, with their connections, affinity and conntrack flows. They check whether the daemon may end
//! these.

mod connection;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use connection::{Absence, Connection};
use proxier::{
    cluster::EndpointAddress,
    fake::FakeKernel,
    ipvs_netlink::Destination,
    model::{Protocol, VirtualServerKey},
    plan::Change,
    set::{Element, KeySet},
};

use super::{
    Violation,
    cluster::{Cluster, PodId},
    known::{Known, Place},
    objects::host_ip,
};

/// The state that decides whether the daemon may end a connection.
pub(super) struct Facts<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) known: &'a Known,
    pub(super) now: Duration,
    pub(super) drain: Duration,
    pub(super) kernel: &'a FakeKernel,
    /// Whether the engine cannot know the kernel's state.
    pub(super) is_misled: bool,
}

impl Facts<'_> {
    /// Whether the record in the kernel assigns the key to a Service of which the daemon has read no valid version.
    fn is_unread(&self, key: &VirtualServerKey) -> bool {
        let served = Element::Key(KeySet::Served, *key);
        let comment = self.kernel.elements.iter().find_map(|all| all.get(&served)).and_then(Option::as_deref);
        comment.is_some_and(|comment| self.known.is_unread(comment))
    }
}

/// The persistence template of IPVS: the endpoint that it remembers for a client.
#[derive(Debug, Clone, Copy)]
struct Template {
    endpoint: EndpointAddress,
    pod: PodId,
    until: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Clients {
    connections: Vec<Connection>,
    absences: BTreeMap<(VirtualServerKey, EndpointAddress), Absence>,
    templates: BTreeMap<((u8, bool), VirtualServerKey), Template>,
    /// UDP flows that conntrack still has, and whose connections IPVS has ended.
    stale: Vec<(VirtualServerKey, EndpointAddress)>,
    /// Virtual servers for which conntrack failed to delete all flows. The retry cannot tell these flows from newer
    /// ones.
    undeleted: BTreeSet<VirtualServerKey>,
    pub(super) opened: usize,
    pub(super) ended: usize,
}

impl Clients {
    /// A client connects to a virtual server, if the kernel admits it.
    pub(super) fn open(&mut self, client: u8, pick: u8, is_inside: bool, facts: &Facts<'_>) {
        let kernel = facts.kernel;
        let keys: Vec<_> = kernel.virtual_servers.keys().filter(|key| facts.known.claims().contains_key(key)).collect();
        let Some(&&front) = keys.get(usize::from(pick) % keys.len().max(1)) else { return };
        let client = (client % 4, is_inside);
        let Some(target) = admitted(front, client, kernel) else { return };
        let (at, is_short) = match target {
            None => (Some(front), false),
            Some(to) => {
                let key = VirtualServerKey { address: to.address, port: to.port, ..front };
                (kernel.virtual_servers.contains_key(&key).then_some(key), true)
            }
        };
        let endpoint = match (at, target) {
            (Some(key), _) => self.schedule(client, key, kernel, facts),
            (None, target) => target,
        };
        let Some(endpoint) = endpoint else { return };
        let Some(pod) = facts.cluster.pod_at(endpoint.address) else { return };
        let is_released = false;
        self.connections.push(Connection { client, front, at, is_short, endpoint, pod, is_released });
        self.opened += 1;
    }

    /// Chooses an endpoint with a weight, as IPVS does: that of the client's template first.
    fn schedule(
        &mut self,
        client: (u8, bool),
        key: VirtualServerKey,
        kernel: &FakeKernel,
        facts: &Facts<'_>,
    ) -> Option<EndpointAddress> {
        let server = kernel.virtual_servers.get(&key)?;
        let takes = |(_, destination): &(&EndpointAddress, &Destination)| destination.weight > 0;
        let able: Vec<EndpointAddress> =
            server.real_servers.iter().filter(takes).map(|(address, _)| *address).collect();
        let Some(persistence) = server.config.persistence else {
            return able.get(self.opened % able.len().max(1)).copied();
        };
        let known = self.templates.get(&(client, key)).filter(|template| facts.now < template.until);
        let endpoint = match known.filter(|template| able.contains(&template.endpoint)) {
            Some(template) => template.endpoint,
            None => *able.get(self.opened % able.len().max(1))?,
        };
        let pod = facts.cluster.pod_at(endpoint.address)?;
        let until = facts.now + Duration::from_secs(persistence.timeout.into());
        self.templates.insert((client, key), Template { endpoint, pod, until });
        Some(endpoint)
    }

    pub(super) fn close(&mut self, pick: u8) {
        if !self.connections.is_empty() {
            self.connections.swap_remove(usize::from(pick) % self.connections.len());
        }
    }

    /// Sets the numbers of connections that the kernel reports.
    pub(super) fn count(&self, kernel: &mut FakeKernel) {
        kernel.connections.clear();
        for connection in &self.connections {
            if let Some(at) = connection.at {
                *kernel.connections.entry((at, connection.endpoint)).or_default() += 1;
            }
        }
    }

    /// The daemon has received objects.
    pub(super) fn received(&mut self, kernel: &FakeKernel, known: &Known, now: Duration) {
        for (key, server) in &kernel.virtual_servers {
            for address in server.real_servers.keys() {
                let absence = self.absences.entry((*key, *address)).or_default();
                absence.note(known.place(key, *address), now);
            }
        }
    }

    /// A sync has taken in all objects that the daemon has received.
    pub(super) fn synced(&mut self, kernel: &FakeKernel, known: &Known) {
        self.absences.retain(|(key, address), _| has(kernel, key, address));
        for (key, server) in &kernel.virtual_servers {
            for address in server.real_servers.keys() {
                self.absences.entry((*key, *address)).or_default().synced(known.place(key, *address));
            }
        }
    }

    /// A new daemon does not know the past. If the old one was killed after it removed a real server or a short circuit
    /// and before it deleted the flows, the flows stay.
    pub(super) fn restarted(&mut self, kernel: &FakeKernel) {
        self.stale.clear();
        self.connections.retain(|it| {
            let to = |at: VirtualServerKey| EndpointAddress { address: at.address, port: at.port };
            let is_shown = |element| kernel.elements.as_ref().is_some_and(|all| all.contains_key(&element));
            let is_known = it.at.is_none_or(|at| is_shown(Element::ShortCircuit(it.front, to(at))));
            !it.is_short || is_known && has(kernel, &it.server(), &it.endpoint)
        });
        self.absences.clear();
        self.undeleted.clear();
    }

    /// A change of the daemon failed, or its answer was lost.
    pub(super) fn failed(&mut self, change: &Change) {
        if let Change::DeleteFlows { to, endpoint: None, .. } = change {
            self.undeleted.insert(*to);
        }
    }

    /// Another program made a change. The daemon does not answer for the connections and flows that it ends.
    pub(super) fn changed_by_others(&mut self, change: &Change) {
        let is_touched = |connection: &Connection| match change {
            Change::RemoveElement { element: Element::ShortCircuit(key, _), .. } => {
                connection.is_short && connection.front == *key
            }
            Change::RemoveVirtualServer(key) => [connection.front, connection.server()].contains(key),
            Change::RemoveRealServer { key, address } => (connection.server(), connection.endpoint) == (*key, *address),
            _ => connection.ends_by(change),
        };
        self.connections.retain(|connection| !is_touched(connection));
        match change {
            Change::RemoveVirtualServer(key) => {
                self.stale.retain(|(to, _)| to != key);
                self.templates.retain(|(_, at), _| at != key);
            }
            Change::RemoveRealServer { key, address } | Change::UpdateRealServer { key, address, .. } => {
                self.stale.retain(|at| *at != (*key, *address));
                self.templates.retain(|(_, at), template| (at, template.endpoint) != (key, *address));
            }
            _ => {}
        }
    }

    /// Another program flushed nftables, and with it the short circuits.
    pub(super) fn lost_short_circuits(&mut self) {
        self.connections.retain(|connection| !connection.is_short);
    }

    /// Checks each connection and each affinity that a change of the daemon ends.
    pub(super) fn changed(&mut self, change: &Change, facts: &Facts<'_>) -> Result<(), Violation> {
        let mut ended = Vec::new();
        self.connections.retain_mut(|connection| {
            let (ends, loses_endpoint) = (connection.ends_by(change), connection.loses_endpoint_by(change));
            ended.extend((ends && !connection.is_released || loses_endpoint).then(|| connection.clone()));
            connection.is_released |= loses_endpoint;
            if let Change::AddRealServer { key, address, .. } = change {
                connection.is_released &= (*key, *address) != (connection.server(), connection.endpoint);
            }
            self.ended += usize::from(ends);
            !ends
        });
        for connection in ended {
            let absence = self.absences.get(&(connection.server(), connection.endpoint)).copied().unwrap_or_default();
            let is_repeated = matches!(change, Change::DeleteFlows { to, .. } if self.undeleted.contains(to));
            if !is_repeated && !connection.may_end(absence, facts) {
                let Connection { client, front, endpoint, .. } = &connection;
                let text = format!(
                    "{client:?} to {front} at {endpoint} could live, and ended by {change}: {connection:?} {absence:?}"
                );
                return Err(Violation::new("connection", text));
            }
            let leaves_flow = matches!(change, Change::RemoveVirtualServer(_) | Change::RemoveRealServer { .. });
            if leaves_flow && !connection.is_short && connection.front.protocol == Protocol::Udp {
                self.stale.push((connection.front, connection.endpoint));
            }
        }
        if let Change::DeleteFlows { to, endpoint, by_short_circuit: false } = change {
            if endpoint.is_none() {
                self.undeleted.remove(to);
            }
            self.stale.retain(|(front, at)| front != to || endpoint.is_some_and(|endpoint| endpoint != *at));
        }
        self.check_templates(change, facts)
    }

    fn check_templates(&mut self, change: &Change, facts: &Facts<'_>) -> Result<(), Violation> {
        let breaks = |key: &VirtualServerKey, template: &Template| match change {
            Change::RemoveVirtualServer(of) => of == key,
            Change::UpdateVirtualServer { key: of, config } => of == key && config.persistence.is_none(),
            Change::UpdateRealServer { key: of, address, destination } => {
                (of, *address) == (key, template.endpoint) && destination.weight == 0
            }
            Change::RemoveRealServer { key: of, address } => (of, *address) == (key, template.endpoint),
            _ => false,
        };
        let may_break = |key: &VirtualServerKey, template: &Template| {
            let is_served = facts.known.claims().contains_key(key) || facts.is_unread(key);
            let serves = match facts.known.claims().contains_key(key) {
                true => matches!(facts.known.place(key, template.endpoint), Place::Serving { .. }),
                false => true,
            };
            let has_affinity = facts.known.has_affinity(key) || facts.is_unread(key);
            !is_served || !serves || !has_affinity || !facts.cluster.lives(template.pod) || facts.now >= template.until
        };
        let mut lost = None;
        self.templates.retain(|(client, key), template| {
            let is_broken = breaks(key, template);
            if is_broken && !may_break(key, template) {
                lost = Some(format!("{client:?} loses its affinity to {} at {key} by {change}", template.endpoint));
            }
            !is_broken
        });
        lost.map_or(Ok(()), |text| Err(Violation::new("affinity", text)))
    }

    /// Checks, at rest, that no flow leads to an endpoint that its virtual server lacks.
    pub(super) fn check_flows(&self, kernel: &FakeKernel) -> Result<(), Violation> {
        let short = self.connections.iter().filter(|connection| connection.is_short);
        let flows = short.map(|connection| (connection.server(), connection.endpoint));
        match flows.chain(self.stale.iter().copied()).find(|(key, endpoint)| !has(kernel, key, endpoint)) {
            Some((key, endpoint)) => {
                Err(Violation::new("flow", format!("conntrack still leads clients by {key} to {endpoint}")))
            }
            None => Ok(()),
        }
    }
}

fn has(kernel: &FakeKernel, key: &VirtualServerKey, endpoint: &EndpointAddress) -> bool {
    kernel.virtual_servers.get(key).is_some_and(|server| server.real_servers.contains_key(endpoint))
}

/// `None` if the rules reject or drop the client. Otherwise the target of its short circuit, if it takes one.
#[allow(clippy::option_option, reason = "outside: admitted; inside: the short circuit")]
fn admitted(key: VirtualServerKey, client: (u8, bool), kernel: &FakeKernel) -> Option<Option<EndpointAddress>> {
    let elements = kernel.elements.as_ref()?;
    let is_in = |set| elements.contains_key(&Element::Key(set, key));
    let is_host = [proxier::model::Family::V4, proxier::model::Family::V6].map(host_ip).contains(&key.address);
    let is_bound = kernel.addresses.as_ref().is_some_and(|all| all.contains(&key.address));
    let (_, is_inside) = client;
    let source: IpAddr = if is_inside { [10, 244, 250, client.0].into() } else { [198, 18, 0, client.0].into() };
    if !is_bound && !is_host && !key.address.is_loopback() {
        return None;
    }
    let ranges = elements.keys().filter_map(|element| match element {
        Element::Allowed(of, range) if *of == key => Some(range),
        _ => None,
    });
    if is_in(KeySet::Firewall) && !ranges.into_iter().any(|range| range.contains(&source)) {
        return None;
    }
    let short_circuit = elements.keys().find_map(|element| match element {
        Element::ShortCircuit(of, to) if *of == key => Some(*to),
        _ => None,
    });
    let short_circuit = short_circuit.filter(|_| is_inside);
    let is_rejected =
        is_in(KeySet::NoEndpoints) || is_in(KeySet::NoLocalEndpoints) || is_in(KeySet::ShortCircuitTarget);
    let is_dropped = is_in(KeySet::NoLocalEndpointsExternal) && short_circuit.is_none();
    (!is_rejected && !is_dropped && is_in(KeySet::Served)).then_some(short_circuit)
}
