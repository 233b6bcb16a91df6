//! The benchmark's Services and endpoints, as events.

use std::net::Ipv4Addr;

use proxier::model::{
    Conditions, Endpoint, EndpointPort, EndpointSlice, Event, Family, Hints, PortNumber, Protocol, Service, ServiceId,
    ServicePort, SliceId,
};

use crate::shape::Shape;

/// The maximum number of endpoints that Kubernetes puts into one EndpointSlice.
pub(crate) const SLICE: u32 = 100;
/// The port of every endpoint.
pub(crate) const PORT: u16 = 8080;

impl Shape {
    /// All Services, each with a ClusterIP, and their endpoints.
    pub(crate) fn events(self) -> Vec<Event> {
        let slices = move |number| (0..self.slices()).map(move |slice| self.slice(number, slice, false));
        (0..self.services)
            .flat_map(|number| [Event::ServiceApplied(service(number))].into_iter().chain(slices(number)))
            .collect()
    }

    /// The deletion of all Services and endpoints.
    pub(crate) fn removal(self) -> Vec<Event> {
        let slices = move |number| (0..self.slices()).map(move |slice| Event::SliceRemoved(slice_id(number, slice)));
        (0..self.services)
            .flat_map(|number| [Event::ServiceRemoved(service_id(number))].into_iter().chain(slices(number)))
            .collect()
    }

    /// The move of the first endpoint of a Service to another address, as when its pod is replaced, or back.
    pub(crate) fn moved(self, number: u32, is_away: bool) -> Event {
        self.slice(number, 0, is_away)
    }

    fn slices(self) -> u32 {
        self.endpoints.div_ceil(SLICE)
    }

    fn slice(self, number: u32, slice: u32, is_first_away: bool) -> Event {
        let endpoint = |index| Endpoint {
            address: if index == 0 && is_first_away { away(number) } else { self.pod(number, index) }.into(),
            conditions: Conditions::READY,
            node: Some(format!("node-{}", (number + index) % 100).as_str().into()),
            hints: Hints::default(),
            weight: 1,
        };
        let first = slice * SLICE;
        Event::SliceApplied(EndpointSlice {
            id: slice_id(number, slice),
            service: service_id(number),
            family: Family::V4,
            ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: port(PORT) }],
            endpoints: (first..self.endpoints.min(first + SLICE)).map(endpoint).collect(),
        })
    }

    pub(crate) fn pod(self, number: u32, index: u32) -> Ipv4Addr {
        after([10, 244, 0, 0], number * self.endpoints + index)
    }
}

fn service(number: u32) -> Service {
    Service {
        cluster_ips: vec![vip(number).into()],
        ports: vec![ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: port(80), node_port: None }],
        ..Service::new(service_id(number))
    }
}

fn service_id(number: u32) -> ServiceId {
    ServiceId::new("default", &format!("service-{number}"))
}

fn slice_id(number: u32, slice: u32) -> SliceId {
    SliceId::new("default", &format!("service-{number}-{slice}"))
}

pub(crate) const fn port(number: u16) -> PortNumber {
    match PortNumber::new(number) {
        Some(port) => port,
        None => PortNumber::MIN,
    }
}

/// The ClusterIP of a Service.
pub(crate) fn vip(number: u32) -> Ipv4Addr {
    after([10, 96, 0, 0], number)
}

/// The address to which the first endpoint of a Service moves.
pub(crate) fn away(number: u32) -> Ipv4Addr {
    after([10, 252, 0, 0], number)
}

fn after(base: [u8; 4], number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from_be_bytes(base) + 1 + number)
}
