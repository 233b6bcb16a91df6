//! The number of rules, and the cost for a packet of an established connection.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Result, ensure};
use proxier::linux::{LinuxKernel, Settings};
use proxier::model::{
    Endpoint, EndpointPort, EndpointSlice, Event, Family, PortNumber, Protocol, Service, ServiceId, ServicePort,
    SliceId, TrafficPolicy,
};
use proxier::{Config, Engine};
use scenarios::{Cluster, Namespace, Slice, TestResult, eventually, scenario};

const FAMILIES: [&str; 2] = ["ip", "ip6"];

/// Chains and rules, without their counters (`-s`) and without the elements of sets (`-t`).
fn chains(node: &Namespace) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for family in FAMILIES {
        let listing = node.run("nft", &["-s", "-t", "list", "table", family, "kube-ipvs"])?;
        let from_chains = listing.lines().skip_while(|line| !line.trim_start().starts_with("chain "));
        lines.extend(from_chains.map(str::to_owned));
    }
    Ok(lines)
}

fn services(count: usize) -> String {
    let one = |number: usize| {
        let (high, low) = (number / 250, number % 250 + 1);
        let service = scenarios::Service::new(&format!("app-{number}"))
            .line("type: LoadBalancer")
            .line(&format!("externalTrafficPolicy: {}", if number.is_multiple_of(2) { "Local" } else { "Cluster" }))
            .line("loadBalancerSourceRanges: [192.168.0.0/16]")
            .cluster_ip(&format!("10.96.{high}.{low}"))
            .load_balancer_ip(&format!("203.0.{high}.{low}"))
            .port_line(&format!("port: 80, targetPort: 8080, nodePort: {}", 30_000 + number));
        let slice = Slice::of(&format!("app-{number}")).port(8080);
        let slice = slice.ready(&format!("10.244.{high}.{low}")).on("node-3");
        format!("{service}---\n{}---\n", slice.ready(&format!("10.245.{high}.{low}")).on("node-2"))
    };
    (0..count).map(one).collect()
}

/// "Constant number of rules": one Service and five hundred have the same chains. A packet of an established connection
/// meets one rule in each, and a few more where packets can be hidden from IPVS.
#[test]
fn rule_count_is_the_same_for_one_and_five_hundred_services() -> TestResult {
    scenario(Cluster::builder(), |cluster| {
        let node = cluster.at("node-3")?;
        cluster.manifests.write("all", &services(1))?;
        let _proxy = cluster.start_proxy("node-3", &["--cluster-cidr", "10.244.0.0/16"])?;
        node.await_service("TCP 10.96.0.1:80", &["10.244.0.1:8080 1", "10.245.0.1:8080 1"])?;
        cluster.await_settled("node-3", &["--cluster-cidr", "10.244.0.0/16"])?;
        let one = chains(node)?;
        ensure!(one.len() > 20, "{one:?}");
        cluster.manifests.write("all", &services(500))?;
        node.await_service("TCP 10.96.1.250:80", &["10.244.1.250:8080 1", "10.245.1.250:8080 1"])?;
        cluster.await_settled("node-3", &["--cluster-cidr", "10.244.0.0/16"])?;
        // Linux 6.1 lists a large table in parts, and omits entries while other namespaces change theirs.
        eventually(|| {
            let virtual_servers = node.ipvsadm()?.keys().len();
            ensure!(virtual_servers >= 1500, "only {virtual_servers} virtual servers");
            Ok(())
        })?;
        assert_eq!(chains(node)?, one);
        let mut hooked = 0;
        for chain in one.split(|line| line.trim() == "}") {
            let mut lines = chain.iter().map(|line| line.trim()).filter(|line| !line.is_empty());
            let (Some(name), Some(kind)) = (lines.next(), lines.next()) else {
                continue;
            };
            // nat chains see only first packets, and `clear-mark` is one rule long.
            if kind.starts_with("type filter") && !name.contains("clear-mark") {
                hooked += 1;
                let before = match name.split(' ').nth(1) {
                    // A hidden packet from outside, and an answer.
                    Some("input") => 2,
                    // A hidden packet.
                    Some("unscheduled" | "unallocated") => 1,
                    _ => 0,
                };
                let established = lines.position(|line| line.starts_with("ct state established,related accept"));
                ensure!(established == Some(before), "{name}: {chain:?}");
            }
        }
        ensure!(hooked == 12, "{hooked} filter chains, not six in each family");
        Ok(())
    })
}

fn embedded(number: u32) -> [Event; 2] {
    let id = ServiceId::new("default", &format!("app-{number}"));
    let at = |base: [u8; 4], number: u32| IpAddr::from(Ipv4Addr::from_bits(u32::from_be_bytes(base) + number));
    let port = |number| PortNumber::new(number).unwrap_or(PortNumber::MIN);
    let service = Service {
        cluster_ips: vec![at([10, 96, 0, 1], number)],
        internal_policy: if number.is_multiple_of(2) { TrafficPolicy::Local } else { TrafficPolicy::Cluster },
        ports: vec![ServicePort::new("http", Protocol::Tcp, port(80))],
        ..Service::new(id.clone())
    };
    let slice = EndpointSlice {
        ports: vec![EndpointPort::new("http", Protocol::Tcp, port(8080))],
        endpoints: vec![Endpoint::ready(at([10, 128, 0, 1], number))],
        ..EndpointSlice::new(SliceId::new("default", &format!("app-{number}")), id, Family::V4)
    };
    [Event::ServiceApplied(service), Event::SliceApplied(slice)]
}

/// The same through the library, with one Service and five thousand. proxier's own tests cover fifty thousand. Here
/// their virtual servers would slow down all other scenarios, because all namespaces share one table in the kernel.
#[test]
fn rule_count_stays_when_an_embedder_serves_more_services() -> TestResult {
    const MANY: u32 = 5_000;
    scenario(Cluster::builder(), |cluster| {
        let node = cluster.at("node-3")?;
        node.enter(|| {
            let mut engine = Engine::new(Config::new("node-3"), BTreeSet::new());
            let mut kernel = LinuxKernel::open(engine.config(), Settings::default())?;
            let mut listings = Vec::new();
            for numbers in [0..1, 1..MANY] {
                numbers.flat_map(embedded).for_each(|event| engine.apply(event));
                let report = engine.sync(&mut kernel, Duration::ZERO);
                ensure!(report.unavailable.is_none(), "{:?}", report.unavailable);
                ensure!(report.failures.is_empty(), "{}", report.failures[0]);
                listings.push(chains(node)?);
            }
            ensure!(engine.counts().virtual_servers == MANY as usize, "{:?}", engine.counts());
            ensure!(listings[0].len() > 20 && listings[0] == listings[1], "{listings:?}");
            Ok(())
        })
    })
}
