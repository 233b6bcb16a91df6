//! Virtual servers and real servers.

use std::collections::{BTreeMap, BTreeSet};

use ipvs_netlink::{Client, Error, Request, RequestFailure, VirtualServer};

use crate::{
    cluster::EndpointAddress,
    kernel::{Cause, ConnectionCounts, Failure, Reason},
    model::VirtualServerKey,
    plan::Change,
    state::{State, VirtualServerState},
};

pub(super) fn apply(
    client: &mut Client,
    changes: &[(usize, &Change)],
    failures: &mut Vec<Failure>,
) -> Result<(), Error> {
    let mut batch = Vec::with_capacity(changes.len());
    let mut numbers = Vec::with_capacity(changes.len());
    for (number, change) in changes {
        if let Some(request) = request(change) {
            batch.push(request);
            numbers.push(*number);
        }
    }
    if batch.is_empty() {
        return Ok(());
    }
    for failure in client.execute(&batch)? {
        if is_done_already(&failure) {
            continue;
        }
        let cause = match failure.request {
            _ if failure.error.already_exists() => Cause::Exists,
            Request::AddService { .. } | Request::UpdateService { .. } if failure.error.errno() == ENOENT => {
                Cause::NoScheduler
            }
            _ => Cause::Rejected,
        };
        let reason = Reason::new(failure.to_string(), Some(failure.error.errno()));
        failures.push(Failure { change: numbers[failure.number], cause, reason });
    }
    Ok(())
}

/// Whether the object to remove does not exist. If a real server's virtual server does not exist, that is a failure:
/// kube-ipvs expects the virtual server.
fn is_done_already(failure: &RequestFailure) -> bool {
    match failure.request {
        Request::DeleteService { .. } => failure.is_not_found(),
        Request::DeleteDestination { .. } => failure.error.errno() == ENOENT,
        _ => false,
    }
}

/// The errno for a missing real server, and for a missing scheduler.
const ENOENT: i32 = 2;

fn request(change: &Change) -> Option<Request> {
    Some(match *change {
        Change::AddVirtualServer { key, config } => Request::AddService { key: key.into(), service: config },
        Change::UpdateVirtualServer { key, config } => Request::UpdateService { key: key.into(), service: config },
        Change::RemoveVirtualServer(key) => Request::DeleteService { key: key.into() },
        Change::AddRealServer { key, address, destination } => {
            Request::AddDestination { service: key.into(), key: address.into(), destination }
        }
        Change::UpdateRealServer { key, address, destination } => {
            Request::UpdateDestination { service: key.into(), key: address.into(), destination }
        }
        Change::RemoveRealServer { key, address } => {
            Request::DeleteDestination { service: key.into(), key: address.into() }
        }
        _ => return None,
    })
}

/// Dumps all virtual servers on addresses, with their real servers.
///
/// A dump of IPVS is no snapshot: the kernel continues by index, so concurrent changes can make it skip entries.
/// kube-ipvs [finds](passed_over) the expected entries that a dump lacks, and [queries](ask) them individually.
pub(super) fn list(client: &mut Client, state: &mut State) -> Result<(), Error> {
    client.services()?.into_iter().try_for_each(|entry| add(client, state, entry))
}

/// The virtual servers that a dump lacks although another source names them: the nftables sets, the believed state, or
/// `known`.
pub(super) fn passed_over<'a>(
    listed: &'a State,
    believed: &'a State,
    known: impl Iterator<Item = &'a VirtualServerKey>,
) -> BTreeSet<VirtualServerKey> {
    let believed = believed.virtual_servers.keys().chain(&believed.owned);
    let expected = listed.elements.keys().chain(believed).chain(known);
    expected.filter(|key| !listed.virtual_servers.contains_key(key)).copied().collect()
}

/// Queries virtual servers individually, and adds those that exist.
pub(super) fn ask(
    client: &mut Client,
    state: &mut State,
    keys: impl IntoIterator<Item = VirtualServerKey>,
) -> Result<(), Error> {
    for key in keys {
        if let Some(entry) = client.service(key.into())? {
            add(client, state, entry)?;
        }
    }
    Ok(())
}

/// Queries virtual servers individually, without their real servers. Returns those that exist.
pub(super) fn configurations(
    client: &mut Client,
    keys: &[VirtualServerKey],
) -> Result<BTreeMap<VirtualServerKey, VirtualServer>, Error> {
    let mut found = BTreeMap::new();
    for key in keys {
        found.extend(client.service((*key).into())?.map(|entry| (*key, entry.service)));
    }
    Ok(found)
}

fn add(client: &mut Client, state: &mut State, entry: ipvs_netlink::ServiceEntry) -> Result<(), Error> {
    let Some(key) = VirtualServerKey::from_ipvs(entry.key) else { return Ok(()) };
    let destinations = client.destinations(entry.key)?;
    let real_servers =
        destinations.iter().filter_map(|entry| Some((EndpointAddress::from_ipvs(entry.key)?, entry.destination)));
    let server = VirtualServerState { config: entry.service, real_servers: real_servers.collect() };
    state.virtual_servers.insert(key, server);
    Ok(())
}

pub(super) fn connections(client: &mut Client, servers: &[VirtualServerKey]) -> Result<ConnectionCounts, Error> {
    let mut counts = ConnectionCounts::new();
    for server in servers {
        for entry in client.destinations((*server).into())? {
            let count = u64::from(entry.connections.active) + u64::from(entry.connections.inactive);
            let address = EndpointAddress::from_ipvs(entry.key);
            counts.extend(address.map(|address| ((*server, address), count)));
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::key;

    #[test]
    fn unlisted_virtual_server_is_queried_if_another_source_names_it() {
        let keys = [1, 2, 3, 4, 5].map(|number| key(&format!("TCP 10.96.0.{number}:80")));
        let [listed, element, believed, owned, known] = keys;
        let server = || VirtualServerState {
            config: ipvs_netlink::VirtualServer::new(ipvs_netlink::Scheduler::RR),
            real_servers: Default::default(),
        };
        let list = State {
            virtual_servers: [(listed, server())].into(),
            elements: [(listed, Default::default()), (element, Default::default())].into(),
            ..State::default()
        };
        let before = State {
            virtual_servers: [(listed, server()), (believed, server())].into(),
            owned: [listed, owned].into(),
            ..State::default()
        };
        let missing = passed_over(&list, &before, [listed, known].iter());
        assert_eq!(missing, [element, believed, owned, known].into());
    }
}
