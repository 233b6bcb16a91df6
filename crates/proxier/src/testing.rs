//! Helpers that build engines, Services and EndpointSlices in tests.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use crate::{
    config::Config,
    engine::{Completeness, Engine, SyncReport},
    fake::FakeKernel,
    model::*,
    state::VirtualServerState,
};

/// An engine with a complete view of an empty cluster, on a host without addresses.
pub(crate) fn engine_with(config: Config) -> Engine {
    let mut engine = Engine::new(config, BTreeSet::new());
    engine.set_complete(Completeness::Complete);
    engine
}

/// An engine with the defaults for `node-1`, and an empty kernel.
pub(crate) fn start() -> (Engine, FakeKernel) {
    (engine_with(Config::new("node-1")), FakeKernel::default())
}

/// Removes the first real server.
pub(crate) fn remove_first(server: &mut VirtualServerState) {
    let first = server.real_servers.first().map(|(address, _)| *address).unwrap();
    server.real_servers.remove(&first).unwrap();
}

pub(crate) fn port(number: u16) -> PortNumber {
    number.try_into().unwrap()
}

pub(crate) fn key(text: &str) -> VirtualServerKey {
    let (protocol, socket) = text.split_once(' ').unwrap();
    let socket: std::net::SocketAddr = socket.parse().unwrap();
    VirtualServerKey { address: socket.ip(), protocol: protocol.parse().unwrap(), port: port(socket.port()) }
}

/// `default/NAME` with one unnamed TCP port per number. A second number is its node port.
pub(crate) fn service(name: &str, ips: &[&str], ports: &[(u16, Option<u16>)]) -> Service {
    Service {
        cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        ports: ports
            .iter()
            .map(|(number, node_port)| ServicePort {
                node_port: node_port.map(port),
                ..ServicePort::new("", Protocol::Tcp, port(*number))
            })
            .collect(),
        ..Service::new(ServiceId::new("default", name))
    }
}

/// A slice of `default/SERVICE` with an unnamed TCP port. Endpoints are ready. A `!` after the address makes one not
/// ready, and a `~` makes it terminating and serving.
pub(crate) fn slice(name: &str, service: &str, target: u16, endpoints: &[&str]) -> EndpointSlice {
    let endpoint = |text: &&str| {
        let conditions = match text.chars().last() {
            Some('!') => Conditions::NOT_READY,
            Some('~') => Conditions::SERVING_TERMINATING,
            _ => Conditions::READY,
        };
        let address: IpAddr = text.trim_end_matches(['!', '~']).parse().unwrap();
        Endpoint { conditions, ..Endpoint::ready(address) }
    };
    let endpoints: Vec<_> = endpoints.iter().map(endpoint).collect();
    let family = endpoints.first().map_or(Family::V4, |endpoint| Family::of(endpoint.address));
    EndpointSlice {
        ports: vec![EndpointPort::new("", Protocol::Tcp, port(target))],
        endpoints,
        ..EndpointSlice::new(SliceId::new("default", name), ServiceId::new("default", service), family)
    }
}

pub(crate) fn with_protocol(mut service: Service, mut slice: EndpointSlice, protocol: Protocol) -> [Event; 2] {
    service.ports.iter_mut().for_each(|port| port.protocol = protocol);
    slice.ports.iter_mut().for_each(|port| port.protocol = protocol);
    [Event::ServiceApplied(service), Event::SliceApplied(slice)]
}

pub(crate) fn addresses(addresses: &[&str]) -> Event {
    let global = |ip: &&str| NodeAddress { address: ip.parse().unwrap(), global: true };
    Event::NodeAddresses(addresses.iter().map(global).collect::<BTreeSet<_>>())
}

/// Applies events and syncs. Every change must succeed.
pub(crate) fn sync(
    engine: &mut Engine,
    kernel: &mut FakeKernel,
    seconds: u64,
    events: impl IntoIterator<Item = Event>,
) -> SyncReport {
    events.into_iter().for_each(|event| engine.apply(event));
    let report = engine.sync(kernel, Duration::from_secs(seconds));
    assert_eq!(report.failures, []);
    assert_eq!(report.unavailable, None);
    report
}
