//! The benchmark's Services, as events and as rules for `ipvsadm -R`.

use std::{fmt::Write, net::Ipv4Addr};

use proxier::model::{
    Conditions, Endpoint, EndpointPort, EndpointSlice, Event, Family, Hints, PortNumber, Protocol, Service, ServiceId,
    ServicePort, SliceId,
};

pub(crate) const ENDPOINTS: u32 = 10;

/// `count` Services with a ClusterIP and ten endpoints each.
pub(crate) fn events(count: u32) -> Vec<Event> {
    (0..count).flat_map(|number| [Event::ServiceApplied(service(number)), slice(number, ENDPOINTS)]).collect()
}

fn service(number: u32) -> Service {
    Service {
        cluster_ips: vec![vip(number).into()],
        ports: vec![ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: port(80), node_port: None }],
        ..Service::new(ServiceId::new("default", &format!("service-{number}")))
    }
}

pub(crate) fn slice(number: u32, endpoints: u32) -> Event {
    let name = format!("service-{number}");
    let endpoint = |index| Endpoint {
        address: pod(number, index).into(),
        conditions: Conditions::READY,
        node: Some(format!("node-{}", (number + index) % 100).as_str().into()),
        hints: Hints::default(),
        weight: 1,
    };
    Event::SliceApplied(EndpointSlice {
        id: SliceId::new("default", &name),
        service: ServiceId::new("default", &name),
        family: Family::V4,
        ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: port(8080) }],
        endpoints: (0..endpoints).map(endpoint).collect(),
    })
}

pub(crate) fn ipvsadm_rules(count: u32) -> String {
    let mut rules = String::new();
    for number in 0..count {
        let _ = writeln!(rules, "-A -t {}:80 -s rr", vip(number));
        for index in 0..ENDPOINTS {
            let _ = writeln!(rules, "-a -t {}:80 -r {}:8080 -m -w 1", vip(number), pod(number, index));
        }
    }
    rules
}

fn port(number: u16) -> PortNumber {
    PortNumber::new(number).unwrap_or(PortNumber::MIN)
}

fn vip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 1).to_bits() + number)
}

fn pod(number: u32, index: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 244, 0, 1).to_bits() + number * ENDPOINTS + index)
}
