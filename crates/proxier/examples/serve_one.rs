//! Serves one Service from code, without a Kubernetes cluster:
//!
//! ```sh
//! serve_one 10.96.0.80:80 10.244.1.2:8080 10.244.2.2:8080
//! ```
//!
//! The first address is the ClusterIP and port of the Service. The others are its endpoints, to which this host has a
//! route.
//!
//! Run it as root. It changes the sysctls that `LinuxKernel` lists, such as `net.ipv4.ip_forward`. Look at the result
//! with `ipvsadm -Ln`, `ip addr show kube-ipvs0` and `nft list ruleset`. SIGINT (Ctrl-C) ends it, and the Service stays
//! in the kernel: a proxy can restart without an interruption. `kube-ipvs cleanup` removes it.

use std::{env, error::Error, net::SocketAddr, num::NonZero, sync::mpsc};

use proxier::{
    Completeness, Config, Runner, Update,
    linux::Settings,
    model::{Endpoint, EndpointPort, EndpointSlice, Event, Family, Protocol, Service, ServiceId, ServicePort, SliceId},
};

const USAGE: &str = "usage: serve_one CLUSTER_IP:PORT ENDPOINT:PORT...";

fn main() -> Result<(), Box<dyn Error>> {
    let addresses: Vec<SocketAddr> = env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let [vip, endpoints @ ..] = &addresses[..] else { return Err(USAGE.into()) };

    let id = ServiceId::new("default", "one");
    let mut service = Service::new(id.clone());
    service.cluster_ips = vec![vip.ip()];
    service.ports = vec![ServicePort::new("", Protocol::Tcp, port(vip)?)];

    let runner = Runner::open(Config::new("node-1"), Settings::default())?;
    let (sender, updates) = mpsc::channel();
    sender.send(Event::ServiceApplied(service).into())?;
    // All endpoints of a slice have the same port, as in Kubernetes.
    for (number, endpoint) in endpoints.iter().enumerate() {
        let slice = SliceId::new("default", &format!("one-{number}"));
        let mut slice = EndpointSlice::new(slice, id.clone(), Family::of(endpoint.ip()));
        slice.ports = vec![EndpointPort::new("", Protocol::Tcp, port(endpoint)?)];
        slice.endpoints = vec![Endpoint::ready(endpoint.ip())];
        sender.send(Event::SliceApplied(slice).into())?;
    }
    // From now on, a sync removes the state of earlier runs.
    sender.send(Update::Complete(Completeness::Complete))?;
    runner.run(updates, |_, report| {
        report.unavailable.iter().for_each(|unavailable| eprintln!("{unavailable}"));
        report.failures.iter().for_each(|failure| eprintln!("{failure}"));
        print!("{}", report.plan);
    })?;
    // Not reached: this function keeps the sender.
    drop(sender);
    Ok(())
}

fn port(address: &SocketAddr) -> Result<NonZero<u16>, &'static str> {
    NonZero::new(address.port()).ok_or("port 0 is no port")
}
