//! A tenant with the role `edit` in one namespace creates objects to harm all other tenants.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use scenarios::{ApiServer, Cluster, Proxy, TestResult, eventually, scenario, slowness};
use serde_json::{Map, Value, json};

use crate::api_server::api_server;
use crate::common::{WEB, web_service, web_slice};
use crate::memory::memory;

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
const OBJECTS: usize = 200;
/// How often all of them change.
const ROUNDS: usize = 3;
/// The limit for the growth of a daemon's memory, in KiB.
const MOST_MEMORY: u64 = 32 * 1024;
/// The limit for the growth of a daemon's log, in bytes.
const MOST_LOG: usize = 512 * 1024;
/// The limit for lists of all Nodes per daemon.
const MOST_LISTS: usize = 2;
/// The limit for the delay of others' changes, as a multiple of that beside harmless objects.
const MOST_TIMES: u32 = 2;
/// The limit for the CPU time, as a multiple of that for harmless objects of the same size. Hostile ones have more
/// ports.
const MOST_WORK: u32 = 8;
/// The maximum number of measurements. Other load on the machine can only make a measurement worse.
const MEASUREMENTS: usize = 5;
/// The virtual server of the tenant whose scheduler would load a kernel module.
const WITH_MODULE: &str = "10.96.20.9:80";

/// Whether the tenant's objects are hostile, or harmless with the same size.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Intent {
    Harmless,
    Hostile,
}

struct Tenant {
    intent: Intent,
    round: usize,
}

impl Tenant {
    /// Annotations of kube-ipvs if hostile, of another program if harmless.
    fn annotations(&self, annotations: impl IntoIterator<Item = (String, String)>) -> Value {
        let prefix = if self.intent == Intent::Hostile { "kube-ipvs.io" } else { "example.com" };
        let named = annotations.into_iter().map(|(name, value)| (format!("{prefix}/{name}"), value.into()));
        Value::Object(named.collect::<Map<_, _>>())
    }

    fn service(&self, name: &str, host: usize, annotations: Value, ports: Value) -> Value {
        let ip = format!("10.96.{}.{}", 20 + host / 200, host % 200 + 1);
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": name,
                "namespace": "tenant",
                "uid": format!("uid-of-{name}"),
                // The tenant's Services are older than all others.
                "creationTimestamp": "2020-01-01T00:00:00Z",
                "annotations": annotations,
                "labels": {"round": self.round.to_string()},
            },
            "spec": {
                "type": "ClusterIP",
                "clusterIP": ip,
                "clusterIPs": [ip],
                "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
                "ports": ports,
            },
        })
    }

    fn ports(count: usize) -> Value {
        (0..count).map(|port| json!({"name": format!("p{port}"), "port": port + 80})).collect()
    }

    /// Adds external IPs if the intent is hostile.
    fn outer(&self, mut service: Value, count: usize) -> Value {
        if self.intent == Intent::Hostile {
            let addresses: Vec<String> = (1..=count).map(|host| format!("198.51.100.{host}")).collect();
            service["spec"]["externalIPs"] = json!(addresses);
        }
        service
    }

    /// A slice with many ports and one endpoint, which comes and goes.
    fn wide_slice(&self, ports: usize) -> Value {
        // The same number of bytes in one name causes no work.
        let ports: Value = match self.intent {
            Intent::Hostile => (0..ports)
                .map(|port| json!({"name": format!("p{port}"), "protocol": "TCP", "port": port + 80}))
                .collect(),
            Intent::Harmless => json!([{"name": "", "protocol": "TCP", "port": 80}]),
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "wide-1",
                "namespace": "tenant",
                "labels": {"kubernetes.io/service-name": "wide"},
                "annotations": {"example.com/padding": "x".repeat(if self.intent == Intent::Harmless { 250_000 } else { 0 })},
            },
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": [{"addresses": ["10.244.9.9"], "conditions": {"ready": self.round.is_multiple_of(2)}}],
        })
    }

    fn objects(&self) -> Vec<Value> {
        let round = self.round;
        let one = |name: String, value: String| self.annotations([(name, value)]);
        let port = || Self::ports(1);
        // The first one never changes: all nodes report the same finding about it.
        let mut objects = vec![self.service("typo", 0, one("scheduler".into(), "round".into()), port())];
        // Two Services want the same addresses and ports, so the second gets none.
        for (name, host) in [("many-a", 1), ("many-b", 2)] {
            objects.push(self.outer(self.service(name, host, json!({}), Self::ports(50)), 60));
        }
        let mut local = self.outer(self.service("local", 3, json!({}), Self::ports(400)), 1);
        if self.intent == Intent::Hostile {
            local["spec"]["type"] = "LoadBalancer".into();
            local["spec"]["externalTrafficPolicy"] = "Local".into();
            local["spec"]["internalTrafficPolicy"] = "Local".into();
        }
        objects.push(local);
        // Thousands of unknown annotations, with new names in each round.
        let renamed = (0..2000).map(|number| (format!("r{round}-{number}"), String::new()));
        objects.push(self.service("renamed", 4, self.annotations(renamed), port()));
        objects.push(self.service("wide", 5, json!({}), port()));
        objects.push(self.wide_slice(4000));
        let for_ever = self.annotations([("max-drain-time".into(), "2562047h".into())]);
        objects.push(self.service("drains", 6, for_ever, port()));
        objects.push(self.service("module", 8, one("scheduler".into(), "dh".into()), port()));
        // Values of the maximum size and small ones, new in each round.
        for number in 0..40 {
            let length = if number < 3 { 200_000 } else { 100 };
            let value = format!("{round}{}", "\u{1b}".repeat(length));
            objects.push(self.service(&format!("noisy-{number}"), 10 + number, one("scheduler".into(), value), port()));
        }
        // Addresses that could belong to Nodes, changed in each round.
        for number in 0..20 {
            objects.push(self.outer(self.service(&format!("outer-{number}"), 60 + number, json!({}), port()), 3));
        }
        for number in objects.len()..OBJECTS {
            let unknown = one(format!("unknown-{round}"), "x".into());
            objects.push(self.service(&format!("more-{number}"), 100 + number, unknown, port()));
        }
        objects
    }
}

/// Changes the endpoints of another tenant's Service. Returns the time until every node's kernel has them.
fn flip(cluster: &Cluster, api: &ApiServer, round: usize) -> Result<Duration> {
    let (pods, address) = if round.is_multiple_of(2) { (["web-1"], "10.244.1.2") } else { (["web-2"], "10.244.2.2") };
    let start = Instant::now();
    api.apply(&web_slice(&pods))?;
    for node in NODES {
        let wanted = format!("{address}:8080 1");
        eventually(|| {
            let serving = cluster.at(node)?.ipvsadm_of(WEB)?.weights(WEB).context("there is no web")?;
            ensure!(
                serving.contains(&wanted) && serving.iter().filter(|real| real.ends_with(" 1")).count() == 1,
                "{node} serves with {serving:?}, not with {wanted}"
            );
            Ok(())
        })?;
    }
    Ok(start.elapsed())
}

/// The cost of the tenant's objects, summed over the rounds.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    /// The delay of others' changes while the daemons process the tenant's changes. It is only printed, because on a
    /// fully loaded machine it equals the work.
    meanwhile: Duration,
    /// The delay of others' changes after that.
    beside: Duration,
    /// The CPU time of the daemons.
    work: Duration,
}

/// Fails if hostile objects exceed the limits for delay and CPU time, relative to harmless objects of the same size.
/// Both costs are from this run, so the machine's speed does not matter.
fn check_costs(
    cluster: &Cluster,
    api: &ApiServer,
    proxies: &[Proxy],
    (mut quiet, mut hostile): (Cost, Cost),
) -> Result<()> {
    for left in (0..MEASUREMENTS).rev() {
        println!("hostile: {hostile:.1?}\nharmless: {quiet:.1?}");
        let is_fast = hostile.beside <= quiet.beside * MOST_TIMES;
        let is_cheap = hostile.work <= quiet.work * MOST_WORK;
        if is_fast && is_cheap {
            return Ok(());
        }
        ensure!(left > 0, "hostile objects cost others {hostile:?}, harmless ones {quiet:?}");
        quiet = rounds(cluster, api, proxies, Intent::Harmless)?;
        hostile = rounds(cluster, api, proxies, Intent::Hostile)?;
    }
    Ok(())
}

/// The tenant changes all its objects. Others change their endpoints meanwhile and afterwards.
fn rounds(cluster: &Cluster, api: &ApiServer, proxies: &[Proxy], intent: Intent) -> Result<Cost> {
    let mut sum = Cost::default();
    for round in 0..ROUNDS {
        let before = work(proxies)?;
        api.put(Tenant { intent, round }.objects())?;
        let meanwhile = flip(cluster, api, 2 * round)?;
        let beside = flip(cluster, api, 2 * round + 1)?;
        // The first round creates the objects, which is other work.
        if round > 0 {
            sum.meanwhile += meanwhile;
            sum.beside += beside;
            sum.work += work(proxies)? - before;
        }
        NODES.into_iter().try_for_each(|node| await_health(cluster, node))?;
    }
    Ok(sum)
}

fn work(proxies: &[Proxy]) -> Result<Duration> {
    /// `utime` and `stime` in /proc/PID/stat, counted after the program's name, in hundredths of a second.
    const TIMES: std::ops::RangeInclusive<usize> = 11..=12;
    let mut sum = Duration::ZERO;
    for proxy in proxies {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.id()))?;
        let (_, fields) = stat.rsplit_once(')').context("no end of the program's name")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        for ticks in &fields[TIMES] {
            sum += Duration::from_millis(10 * ticks.parse::<u64>()?);
        }
    }
    Ok(sum)
}

/// Waits until a node is healthy with the tenant's objects. A suspended machine is unhealthy for a moment.
fn await_health(cluster: &Cluster, node: &str) -> Result<()> {
    let arguments = ["-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:10256/healthz"];
    eventually(|| {
        let status = cluster.at(node)?.run("curl", &arguments)?;
        ensure!(status == "200", "{node} is unhealthy: {status}");
        Ok(())
    })
}

fn memories(proxies: &[Proxy]) -> Result<Vec<u64>> {
    proxies.iter().map(|proxy| memory(proxy, "RssAnon")).collect()
}

fn logged(proxies: &[Proxy]) -> Vec<usize> {
    proxies.iter().map(|proxy| proxy.log_text().len()).collect()
}

fn node_lists(api: &ApiServer) -> usize {
    let requests = api.requests();
    requests
        .iter()
        .filter(|request| request.starts_with("/api/v1/nodes?") && !request.contains("metadata.name"))
        .count()
}

/// Each finding is stored as one Event, although three nodes report it. A finding is an object with a reason and a
/// note.
fn check_events(api: &ApiServer) -> Result<()> {
    eventually(|| {
        let events = api.events();
        let asked = api.requests().iter().filter(|request| request.starts_with("POST ")).count();
        let of_typo = events.iter().filter(|event| event["regarding"]["name"] == "typo").count();
        ensure!(of_typo == 1, "{of_typo} Events are about one typo");
        // The API server stores none of the second and third reports.
        ensure!(asked >= events.len() + 2, "{asked} requests for {} Events", events.len());
        Ok(())
    })?;
    let mut stored: BTreeMap<String, usize> = BTreeMap::new();
    let events = api.events();
    for event in &events {
        let note = event["note"].as_str().unwrap_or_default();
        ensure!(note.len() <= 1024, "a note of {} bytes", note.len());
        // The suffix names the node.
        let note = note.split("; found on node").next().unwrap_or_default();
        *stored.entry(format!("{} {} {note}", event["regarding"], event["reason"])).or_default() += 1;
    }
    let twice: Vec<_> = stored.iter().filter(|(_, count)| **count > 1).collect();
    ensure!(twice.is_empty(), "stored more than once: {twice:#?}");
    let of_tenant = events.iter().filter(|event| event["metadata"]["namespace"] == "tenant").count();
    println!("{of_tenant} Events are about the tenant");
    Ok(())
}

#[test]
fn a_hostile_tenant_harms_no_other() -> TestResult {
    scenario(Cluster::builder(), |cluster| {
        let (api, kubeconfig) = api_server(cluster, None)?;
        api.apply(&web_service())?;
        // A node becomes unhealthy if a change waits for twice this period. A slower machine needs longer.
        let period = format!("{}s", 30 * slowness());
        let flags = ["--ipvs-sync-period", &period];
        let start = |node| cluster.kube_ipvs(node)?.start_with_kubeconfig(&kubeconfig, &flags);
        let mut proxies = NODES.into_iter().map(start).collect::<Result<Vec<_>>>()?;
        flip(cluster, &api, 1)?;
        let quiet = rounds(cluster, &api, &proxies, Intent::Harmless)?;
        let (memory_before, log_before, lists_before) = (memories(&proxies)?, logged(&proxies), node_lists(&api));
        let start_of_lists = Instant::now();

        let hostile = rounds(cluster, &api, &proxies, Intent::Hostile)?;
        proxies.iter_mut().try_for_each(Proxy::check_alive)?;
        for (node, (before, now)) in NODES.iter().zip(memory_before.iter().zip(memories(&proxies)?)) {
            println!("{node} has {now} KiB, and had {before}");
            ensure!(now < before + MOST_MEMORY, "{node} has grown from {before} to {now} KiB");
        }
        for (node, (before, now)) in NODES.iter().zip(log_before.iter().zip(logged(&proxies))) {
            ensure!(now - before < MOST_LOG, "{node} has logged {} bytes", now - before);
        }
        let lists = node_lists(&api) - lists_before;
        // Each daemon caches a list for ten minutes.
        let most = MOST_LISTS + start_of_lists.elapsed().as_secs() as usize / 600;
        ensure!(lists <= most * NODES.len(), "all Nodes were listed {lists} times");
        check_events(&api)?;
        for node in NODES {
            await_health(cluster, node)?;
            let key = format!("TCP {WITH_MODULE}");
            let table = cluster.at(node)?.ipvsadm_of(&key)?;
            let scheduler = table.0.first().map(|server| &*server.scheduler);
            ensure!(scheduler == Some("rr"), "{node} has {scheduler:?} by a tenant's wish");
        }
        check_costs(cluster, &api, &proxies, (quiet, hostile))
    })
}
