//! The libraries' examples, on a node without kube-ipvs.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use scenarios::{Cluster, ClusterBuilder, Load, Namespace, TestResult, eventually, scenario, tally};

/// The address of the virtual server is node-1's own. The node is the gateway of its pods.
const ADDRESS: &str = "192.168.128.1:80";
const KEY: &str = "TCP 192.168.128.1:80";

const PODS: [(&str, &str); 3] = [("web-1", "10.244.1.2"), ("web-2", "10.244.1.3"), ("web-3", "10.244.1.4")];

fn pods() -> ClusterBuilder {
    PODS.iter().fold(Cluster::builder(), |cluster, (name, address)| cluster.pod(name, "node-1", address))
}

#[test]
fn balancer_example_removes_and_restores_a_dead_server() -> TestResult {
    const ALL: [&str; 3] = ["10.244.1.2:8080 1", "10.244.1.3:8080 2", "10.244.1.4:8080 1"];
    const WITHOUT_SECOND: [&str; 3] = ["10.244.1.2:8080 1", "10.244.1.3:8080 0", "10.244.1.4:8080 1"];
    const REQUESTS: usize = 12;
    scenario(pods(), |cluster| {
        let (node, client) = (cluster.at("node-1")?, cluster.at("client")?);
        let (_first, _third) = (cluster.http("web-1", 8080)?, cluster.http("web-3", 8080)?);
        let second = cluster.http("web-2", 8080)?;
        let balancer = cluster.example("node-1", "health_checked")?;
        let running = balancer.spawn(&[ADDRESS, "10.244.1.2:8080", "10.244.1.3:8080=2", "10.244.1.4:8080"])?;
        node.await_service(KEY, &ALL)?;
        let answers = tally(client.get_many(ADDRESS, REQUESTS)?);
        ensure!(answers.len() == PODS.len(), "not all pods answer: {answers:?}");

        drop(second);
        node.await_service(KEY, &WITHOUT_SECOND)?;
        let load = Load::start(client, ADDRESS, Duration::from_millis(5))?;
        let answers = tally(client.get_many(ADDRESS, REQUESTS)?);
        ensure!(answers.len() == 2 && !answers.contains_key("web-2"), "a dead pod is asked: {answers:?}");
        load.go_on(REQUESTS)?;

        let _second = cluster.http("web-2", 8080)?;
        node.await_service(KEY, &ALL)?;
        load.go_on(REQUESTS)?;
        let report = load.stop(2 * REQUESTS, "the client")?;
        ensure!(report.answers.len() == PODS.len(), "not all pods answer again: {:?}", report.answers);

        // A second balancer for the same address leaves the virtual server of the first alone.
        let another = balancer.output(&[ADDRESS, "10.244.1.2:8080"])?;
        let said = String::from_utf8_lossy(&another.stderr);
        ensure!(!another.status.success() && said.contains("there is a virtual server already"), "{said}");
        node.await_service(KEY, &ALL)?;

        let status = running.terminate()?;
        ensure!(status.success(), "after SIGTERM: {status}");
        node.await_no_service(KEY)
    })
}

/// Counters of each virtual server: connections, packets in and out, bytes in and out.
type Counters = BTreeMap<String, Vec<u64>>;

/// Reads the counters from `ipvsadm -Ln --stats`, in the order of its columns.
fn of_ipvsadm(node: &Namespace) -> Result<Counters> {
    let listing = node.run("ipvsadm", &["-Ln", "--stats", "--exact"])?;
    let rows = listing.lines().filter(|line| line.starts_with("TCP ") || line.starts_with("UDP "));
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        let key = [words.next().context("a protocol")?, words.next().context("an address")?].join(" ");
        Ok((key, words.map(str::parse).collect::<Result<_, _>>()?))
    };
    rows.map(row).collect::<Result<_>>().with_context(|| format!("not understood:\n{listing}"))
}

/// Reads the counters from the Prometheus text, in the same order.
fn of_exporter(text: &str) -> Result<Counters> {
    let metrics = ["connections", "incoming_packets", "outgoing_packets", "incoming_bytes", "outgoing_bytes"];
    let mut counters = Counters::new();
    for metric in metrics {
        let name = format!("ipvs_{metric}_total");
        ensure!(text.contains(&format!("# TYPE {name} counter\n")), "no type of {name}:\n{text}");
        let start = format!("{name}{{virtual_server=\"");
        for line in text.lines().filter_map(|line| line.strip_prefix(&start)) {
            let (key, value) = line.split_once("\"} ").with_context(|| format!("not understood: {line}"))?;
            counters.entry(key.to_owned()).or_default().push(value.parse()?);
        }
    }
    Ok(counters)
}

#[test]
fn exporter_example_shows_the_counters_of_ipvsadm() -> TestResult {
    const REQUESTS: usize = 5;
    const IDLE: [&str; 2] = ["TCP [fd00:128::1]:80", "UDP 192.168.128.1:53"];
    scenario(pods(), |cluster| {
        let node = cluster.at("node-1")?;
        let _server = cluster.http("web-1", 8080)?;
        for options in [
            "-A -t 192.168.128.1:80 -s rr",
            "-a -t 192.168.128.1:80 -r 10.244.1.2:8080 -m",
            "-A -t [fd00:128::1]:80 -s rr",
            "-A -u 192.168.128.1:53 -s rr",
        ] {
            node.run("ipvsadm", &options.split(' ').collect::<Vec<_>>())?;
        }
        let exporter = cluster.example("node-1", "export")?;
        let _serving = exporter.spawn(&["127.0.0.1:9108"])?;
        cluster.at("client")?.get_many(ADDRESS, REQUESTS)?;
        // The kernel updates its counters every two seconds, possibly between two of these reads.
        eventually(|| {
            let wanted = of_ipvsadm(node)?;
            let used = wanted.get(KEY).with_context(|| format!("no {KEY}: {wanted:?}"))?;
            ensure!(used[0] == REQUESTS as u64 && used.iter().all(|count| *count > 0), "{wanted:?}");
            let idle = IDLE.iter().all(|key| wanted.get(*key).is_some_and(|counts| *counts == [0; 5]));
            ensure!(idle && wanted.len() == 1 + IDLE.len(), "{wanted:?}");
            let printed = of_exporter(&exporter.run(&[])?)?;
            ensure!(printed == wanted, "printed {printed:?}, ipvsadm has {wanted:?}");
            let served = of_exporter(&node.curl("http://127.0.0.1:9108/metrics")?)?;
            ensure!(served == wanted, "served {served:?}, ipvsadm has {wanted:?}");
            Ok(())
        })
    })
}
