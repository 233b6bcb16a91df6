//! Traffic policies, as a table: for every kind of client, VIP and policy, in every state of the endpoints, which
//! endpoint answers and which source address it sees.
//!
//! Kubernetes e2e tests that this covers: "should respect internalTrafficPolicy=Local Pod and Node", "should fallback
//! to local terminating endpoints when there are no ready endpoints with externalTrafficPolicy=Local" with its variants
//! for `Cluster` and inside, "should be rejected when no endpoints exist", ESIPP "should work from pods".

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use scenarios::{
    Attempt, Cluster, Failure, Server, Service, Slice, TestResult, Transport, echo_here, eventually, scenario,
    socket_address,
};
use table::{
    Case,
    Condition::{Gone, NotReady, Ready, Terminating},
    DROPS, Fate, Kind, PODS, POLICIES, Source, State, TRANSPORTS, cases, cases_of_pods_elsewhere, node_port, port,
};

/// The number of concurrent cases: enough to use a small machine fully, and few enough that hardly any waits.
const AT_ONCE: usize = 8;
const FLAGS: [&str; 2] = ["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"];

/// A Service for each combination of policies, with all kinds of addresses in both families, and its slices.
fn manifests(state: State) -> String {
    let one = |(index, (internal, external)): (usize, &(&str, &str))| {
        let number = index + 1;
        let name = format!("app-{number}");
        let service = Service::new(&name)
            .cluster_ip(&format!("10.96.1.{number}"))
            .cluster_ip(&format!("fd00:10:96::1:{number}"))
            .line("type: LoadBalancer")
            .line(&format!("internalTrafficPolicy: {internal}"))
            .line(&format!("externalTrafficPolicy: {external}"))
            .line(&format!("externalIPs: [\"203.0.113.{number}\", \"2001:db8:e::{number}\"]"))
            .load_balancer_ip(&format!("198.51.100.{number}"))
            .load_balancer_ip(&format!("2001:db8:1b::{number}"));
        let service = TRANSPORTS.iter().fold(service, |service, (transport, protocol)| {
            let (port, name) = (port(*transport), protocol.to_lowercase());
            let node_port = node_port(index, *transport);
            service.port_line(&format!(
                "name: {name}, protocol: {protocol}, port: {port}, targetPort: {}, nodePort: {node_port}",
                8000 + port
            ))
        });
        let slice = |suffix: &str, family: usize| {
            let slice = Slice::of(&name).name(&format!("{name}-{suffix}"));
            let slice = TRANSPORTS.iter().fold(slice, |slice, (transport, protocol)| {
                slice.named_port(&protocol.to_lowercase(), protocol, 8000 + port(*transport))
            });
            PODS.iter().zip(state).fold(slice, |slice, ((_, node, addresses), condition)| {
                let address = addresses.split(' ').nth(family).unwrap_or_default();
                match condition {
                    Ready => slice.ready(address).on(node),
                    NotReady => slice.endpoint(address, "ready: false, serving: false, terminating: false").on(node),
                    Terminating => slice.endpoint(address, "ready: false, serving: true, terminating: true").on(node),
                    Gone => slice,
                }
            })
        };
        format!("{service}---\n{}---\n{}---\n", slice("v4", 0), slice("v6", 1))
    };
    POLICIES.iter().enumerate().map(one).collect()
}

fn nodes(cluster: &Cluster) -> String {
    let one = |(node, number): (&scenarios::Node, usize)| {
        let (v4, v6) = (format!("10.244.{number}.0/24"), format!("fd00:10:244:{number}::/64"));
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {}}}\nspec: {{podCIDR: {v4}, podCIDRs: [{v4}, \
             \"{v6}\"]}}\nstatus:\n  addresses:\n  - {{type: InternalIP, address: \"{}\"}}\n  - {{type: \
             InternalIP, address: \"{}\"}}\n",
            node.name(),
            node.ipv4(),
            node.ipv6()
        )
    };
    cluster.nodes().iter().zip(1..).map(one).collect()
}

fn servers(cluster: &Cluster) -> Result<Vec<Server>> {
    let all = PODS.iter().flat_map(|(pod, ..)| TRANSPORTS.map(|(transport, _)| (*pod, transport)));
    all.map(|(pod, transport)| cluster.echo(pod, transport, 8000 + port(transport))).collect()
}

/// Routes VIPs from an outside client through one node, as a router in front of the cluster would.
fn route(cluster: &Cluster, client: &str, node: &str) -> Result<()> {
    let node = cluster.node(node)?;
    let (v4, v6) = (node.ipv4().to_string(), node.ipv6().to_string());
    for (range, via) in [
        ("10.96.0.0/16", &v4),
        ("203.0.113.0/24", &v4),
        ("198.51.100.0/24", &v4),
        ("fd00:10:96::/64", &v6),
        ("2001:db8::/32", &v6),
    ] {
        cluster.at(client)?.run("ip", &["route", "replace", range, "via", via])?;
    }
    Ok(())
}

type Owners = BTreeMap<&'static str, BTreeSet<IpAddr>>;

fn owners(cluster: &Cluster) -> Result<Owners> {
    let addresses =
        |name: &&'static str| -> Result<_> { Ok((*name, cluster.at(name)?.addresses()?.into_iter().collect())) };
    let names: BTreeSet<&str> = cases().iter().flat_map(|case| [case.client, case.entry]).collect();
    names.iter().map(addresses).collect()
}

/// Sends four requests. Each time a permitted pod must answer and see the expected source address.
fn answered(
    cluster: &Cluster,
    owners: &Owners,
    case: Case,
    may: &BTreeSet<&str>,
    source: Source,
) -> Result<BTreeSet<String>> {
    let (from, to) = (cluster.at(case.client)?, case.address(cluster)?);
    let whose = match source {
        Source::Client => case.client,
        Source::Node => case.entry,
    };
    let mut names = BTreeSet::new();
    let to = socket_address(&to)?;
    let answers = from.enter(|| Ok([(); 4].map(|()| echo_here(case.transport, to))))?;
    for answer in answers {
        let answer = answer?;
        ensure!(may.contains(answer.name.as_str()), "{} answered; only {may:?} may", answer.name);
        ensure!(owners[whose].contains(&answer.peer.ip()), "{} is not of {whose}", answer.peer);
        names.insert(answer.name);
    }
    Ok(names)
}

/// Runs `work` for many cases concurrently and collects the failures.
fn each<T: Send>(cluster: &Cluster, cases: &[Case], work: impl Fn(Case) -> Result<T> + Sync) -> Result<Vec<(Case, T)>> {
    let next = AtomicUsize::new(0);
    let take = || -> Vec<(Case, Result<T>)> {
        std::iter::from_fn(|| cases.get(next.fetch_add(1, Ordering::Relaxed)))
            .map(|case| (*case, work(*case)))
            .collect()
    };
    let results: Vec<(Case, Result<T>)> = thread::scope(|scope| {
        let running: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(take)).collect();
        let all = running.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("panicked")));
        all.collect::<Result<Vec<_>>>().map(|all| all.into_iter().flatten().collect())
    })?;
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for (case, result) in results {
        match result {
            Ok(value) => done.push((case, value)),
            Err(error) => {
                let address = case.address(cluster)?;
                failures.push(format!("{case:?} {:?} to {address}: {error:#}", POLICIES[case.service]));
            }
        }
    }
    ensure!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
    Ok(done)
}

fn drops(cluster: &Cluster) -> Result<BTreeMap<(&'static str, &'static str), u64>> {
    let all = ["node-1", "node-3"].into_iter().flat_map(|node| DROPS.map(|reason| (node, reason)));
    all.map(|(node, reason)| Ok(((node, reason), cluster.at(node)?.nft_packets(reason)?))).collect()
}

/// Sends all first packets. The counters prove that each was dropped for the right reason, so the test waits for no
/// time-out.
fn dropped(cluster: &Cluster, state: State, cases: &[Case]) -> Result<()> {
    let before = drops(cluster)?;
    let mut expected = before.clone();
    for case in cases {
        if let Fate::Dropped(reason) = case.fate(state) {
            *expected.get_mut(&(case.entry, reason)).context("no such counter")? += 1;
        }
    }
    let attempts = each(cluster, cases, |case| {
        Attempt::start(cluster.at(case.client)?, case.transport, socket_address(&case.address(cluster)?)?)
    })?;
    let enough = || {
        let counted = drops(cluster)?;
        let few: Vec<_> = counted.iter().filter(|(rule, count)| **count < expected[*rule]).collect();
        ensure!(few.is_empty(), "fewer drops than {expected:?}: {few:?}");
        Ok(())
    };
    eventually(enough)?;
    for (case, mut attempt) in attempts {
        match attempt.outcome()? {
            None => {}
            // The kernel reports a local drop to the process at once.
            Some(Err(Failure::Refused)) if case.transport == Transport::Udp && case.is_at_home() => {}
            Some(outcome) => bail!("{case:?} should be dropped: {outcome:?}"),
        }
    }
    let after = drops(cluster)?;
    for (rule, count) in &expected {
        let none = *count == before[rule];
        ensure!(!none || after[rule] == *count, "{rule:?} dropped something else");
    }
    Ok(())
}

fn check(cluster: &Cluster, owners: &Owners, state: State, cases: &[Case]) -> Result<()> {
    cluster.manifests.write("all", &manifests(state))?;
    // A settled check right after the write could still see the old state.
    let weight = |condition| match condition {
        Ready => Some("1"),
        // Beside a ready endpoint they drain. kube-ipvs never adds an endpoint that is not ready.
        Terminating | NotReady if state.contains(&Ready) => Some("0"),
        Terminating => Some("1"),
        NotReady | Gone => None,
    };
    let address = |addresses: &str| addresses.split(' ').next().unwrap_or_default().to_owned();
    let reals = PODS.iter().zip(state).filter_map(|((_, _, addresses), condition)| {
        Some(format!("{}:8100 {}", address(addresses), weight(condition)?))
    });
    let reals: Vec<String> = reals.collect();
    let reals: Vec<&str> = reals.iter().map(String::as_str).collect();
    for node in cluster.nodes() {
        node.namespace().await_service("SCTP 10.96.1.1:100", &reals)?;
        cluster.await_settled(node.name(), &FLAGS)?;
    }
    let (to_be_dropped, others): (Vec<Case>, Vec<Case>) =
        cases.iter().partition(|case| matches!(case.fate(state), Fate::Dropped(_)));
    dropped(cluster, state, &to_be_dropped)?;
    let results = each(cluster, &others, |case| match case.fate(state) {
        Fate::Answered(may, source) => answered(cluster, owners, case, &may, source),
        Fate::Refused | Fate::Dropped(_) => {
            cluster.at(case.client)?.expect_refused(case.transport, &case.address(cluster)?)?;
            Ok(BTreeSet::new())
        }
    })?;
    // Each permitted pod must answer at least once.
    let mut reached: BTreeMap<(Kind, usize, &str, &str), BTreeSet<String>> = BTreeMap::new();
    for (case, names) in results {
        reached.entry((case.kind, case.service, case.client, case.entry)).or_default().extend(names);
    }
    for case in &others {
        let names = &reached[&(case.kind, case.service, case.client, case.entry)];
        let Fate::Answered(may, _) = case.fate(state) else { continue };
        let may: BTreeSet<String> = may.into_iter().map(str::to_owned).collect();
        ensure!(*names == may, "{case:?}: {names:?} answered, not {may:?}");
    }
    Ok(())
}

/// Checks these cases in every state of the endpoints, on a separate cluster. `have_ranges` says whether its Nodes have
/// podCIDRs.
fn in_every_state(cases: Vec<Case>, have_ranges: bool) -> TestResult {
    let builder = Cluster::builder()
        .pod("near", "node-1", "10.244.1.9 fd00:10:244:1::9")
        .pod("visitor", "node-3", "10.244.3.9 fd00:10:244:3::9")
        .host("far-client", "192.168.128.101 fd00:128::101");
    let builder = PODS.iter().fold(builder, |builder, (name, node, address)| builder.pod(name, node, address));
    scenario(builder, move |cluster| {
        let _servers = servers(cluster)?;
        route(cluster, "client", "node-1")?;
        route(cluster, "far-client", "node-3")?;
        let owners = owners(cluster)?;
        if have_ranges {
            cluster.manifests.write("nodes", &nodes(cluster))?;
        }
        for node in cluster.nodes() {
            // Kernels limit the ICMP errors to one peer to a few per second, and this test needs hundreds.
            node.namespace().sysctls(&[("ipv4.icmp_ratemask", "0"), ("ipv6.icmp.ratemask", "128")])?;
        }
        let _proxies = cluster.start_proxies(&FLAGS)?;
        for state in [
            [Ready, Ready],
            [NotReady, Ready],
            [Terminating, Ready],
            [Terminating, Terminating],
            [Gone, Gone],
            [NotReady, NotReady],
        ] {
            check(cluster, &owners, state, &cases).with_context(|| format!("with the endpoints {state:?}"))?;
        }
        Ok(())
    })
}

#[test]
fn traffic_policies_hold_for_every_client_address_and_state() -> TestResult {
    in_every_state(cases().into_iter().filter(|case| !case.node_3_asks_node_1()).collect(), false)
}

#[test]
fn traffic_policies_hold_for_a_node_at_node_ports_elsewhere() -> TestResult {
    in_every_state(cases().into_iter().filter(Case::node_3_asks_node_1).collect(), false)
}

/// "should fallback to local terminating endpoints when there are no ready endpoints with externalTrafficPolicy=Local"
/// connects from a pod to the node port of another node. For that node the pod is an outside client: it keeps its
/// address, and only a local endpoint answers.
#[test]
fn traffic_policies_hold_for_a_pod_at_node_ports_elsewhere() -> TestResult {
    in_every_state(cases_of_pods_elsewhere(), true)
}
