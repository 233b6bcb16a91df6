//! Two proxies in one network namespace: the daemon, and a program that embeds the library with its own names.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proxier::{
    Config, Engine, NodePortAddresses,
    linux::{HostAddresses, LinuxKernel, Names, Settings},
    model::{
        Conditions, Endpoint, EndpointPort, EndpointSlice, Event, Family, Hints, PortNumber, Protocol, Service,
        ServiceId, ServicePort, SliceId,
    },
};
use scenarios::{Cluster, Slice, TestResult, Transport, VIP_DEVICE, scenario};

const NODE: &str = "node-3";
const FLAGS: [&str; 4] = ["--cluster-cidr", "10.244.0.0/16", "--nodeport-addresses", "primary"];
const DEVICE: &str = "embedded0";

fn other() -> Result<[Event; 2]> {
    let id = ServiceId::new("default", "other");
    let port = |number| PortNumber::new(number).context("a port");
    let (name, protocol) = ("".into(), Protocol::Tcp);
    let service = Service {
        cluster_ips: vec!["10.97.0.7".parse()?],
        ports: vec![ServicePort { name, protocol, port: port(80)?, node_port: None }],
        ..Service::new(id.clone())
    };
    let endpoint = Endpoint {
        address: "10.244.1.3".parse()?,
        conditions: Conditions::READY,
        node: Some("node-1".into()),
        hints: Hints::default(),
        weight: 1,
    };
    let slice = EndpointSlice {
        id: SliceId::new("default", "other-1"),
        service: id,
        family: Family::V4,
        ports: vec![EndpointPort { name: "".into(), protocol, port: port(8080)? }],
        endpoints: vec![endpoint],
    };
    Ok([Event::ServiceApplied(service), Event::SliceApplied(slice)])
}

/// The embedding program, in the network namespace of the calling thread.
fn embedded() -> Result<(Engine, LinuxKernel)> {
    let names = Names::new("embedded", DEVICE)?;
    let node_ports = NodePortAddresses::Chosen { primary: true, ranges: Vec::new() };
    let addresses = HostAddresses::open(&names)?.read()?;
    let mut engine = Engine::new(Config { node_ports, ..Config::new(NODE) }, addresses);
    other()?.into_iter().for_each(|event| engine.apply(event));
    let kernel = LinuxKernel::open(engine.config(), Settings { names, ..Settings::default() })?;
    Ok((engine, kernel))
}

#[test]
fn two_proxies_in_one_namespace_manage_only_their_own_objects() -> TestResult {
    let builder = Cluster::builder().pod("web", "node-1", "10.244.1.2").pod("other", "node-1", "10.244.1.3").pod(
        "visitor",
        NODE,
        "10.244.3.9",
    );
    scenario(builder, |cluster| {
        let _servers = [cluster.echo("web", Transport::Tcp, 8080)?, cluster.echo("other", Transport::Tcp, 8080)?];
        let node = cluster.at(NODE)?;
        let web = scenarios::Service::new("web").cluster_ip("10.96.0.7").port_line("port: 80, targetPort: 8080");
        let slice = Slice::of("web").port(8080).ready("10.244.1.2").on("node-1");
        cluster.manifests.write("web", &format!("{web}---\n{slice}"))?;
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        node.await_vips(&["10.96.0.7"])?;
        node.enter(|| {
            let (mut engine, mut kernel) = embedded()?;
            let report = engine.sync(&mut kernel, Duration::ZERO);
            ensure!(report.unavailable.is_none(), "{:?}", report.unavailable);
            ensure!(report.failures.is_empty(), "{}", report.failures[0]);
            ensure!(!report.plan.is_empty(), "there was nothing to do");
            Ok(())
        })?;
        // Neither proxy wants to change the other's objects.
        cluster.await_settled(NODE, &FLAGS)?;
        node.await_vips(&["10.96.0.7"])?;
        node.enter(|| {
            let (mut engine, mut kernel) = embedded()?;
            let (plan, _) = engine.plan(kernel.inspect()?, Duration::ZERO);
            ensure!(plan.is_empty(), "{plan}");
            Ok(())
        })?;
        for from in ["visitor", NODE] {
            let from = cluster.at(from)?;
            for (vip, pod) in [("10.96.0.7", "web"), ("10.97.0.7", "other")] {
                assert_eq!(from.echo(Transport::Tcp, &format!("{vip}:80"))?.name, pod);
                from.expect_refused(Transport::Tcp, &format!("{vip}:81"))?;
            }
        }
        proxy.terminate()?;
        cluster.kube_ipvs(NODE)?.run(&["cleanup"])?;
        ensure!(!node.has_device(VIP_DEVICE)?, "{VIP_DEVICE} is left");
        assert_eq!(cluster.at("visitor")?.echo(Transport::Tcp, "10.97.0.7:80")?.name, "other");
        node.enter(|| Ok(embedded()?.1.clean_up()?))?;
        ensure!(!node.has_device(DEVICE)?, "{DEVICE} is left");
        let tables = node.run("nft", &["list", "tables"])?;
        ensure!(!tables.contains("kube-ipvs") && !tables.contains("embedded"), "{tables}");
        Ok(())
    })
}
