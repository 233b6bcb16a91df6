//! One namespace, with all that `edit` allows in it, whose objects are made to hurt all other tenants.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use scenarios::{ApiServer, Cluster, Proxy, TestResult, eventually, scenario, slowness};
use serde_json::{Map, Value, json};

use crate::api_server::api_server;
use crate::common::{WEB, web_service, web_slice};
use crate::memory::memory;

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
/// How many objects the tenant has.
const OBJECTS: usize = 200;
/// How often all of them change.
const ROUNDS: usize = 3;
/// By how much the tenant may have a daemon grow, in KiB.
const MOST_MEMORY: u64 = 32 * 1024;
/// How much a daemon may log of it, in bytes.
const MOST_LOG: usize = 512 * 1024;
/// How often a daemon may list all Nodes meanwhile.
const MOST_LISTS: usize = 2;
/// How many times longer than beside harmless objects the changes of others may take.
const MOST_TIMES: u32 = 2;
/// How many times the work of harmless objects of the same size hostile ones may cost. They have more ports, for one.
const MOST_WORK: u32 = 8;
/// How often that is measured at most: what else runs here makes a measurement worse, and none better.
const MEASUREMENTS: usize = 5;
/// What of its objects has the scheduler that would load a module.
const WITH_MODULE: &str = "10.96.20.9:80";

/// What the tenant's objects do: all of it, or nothing of it in as many bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Intent {
    Harmless,
    Hostile,
}

/// The tenant's objects, as they are in one round.
struct Tenant {
    intent: Intent,
    round: usize,
}

impl Tenant {
    /// Annotations: ours, or another program's.
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
                // It is older than all other Services.
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

    /// External IPs, where they hurt.
    fn outer(&self, mut service: Value, count: usize) -> Value {
        if self.intent == Intent::Hostile {
            let addresses: Vec<String> = (1..=count).map(|host| format!("198.51.100.{host}")).collect();
            service["spec"]["externalIPs"] = json!(addresses);
        }
        service
    }

    /// A slice of many ports, of which one endpoint comes and goes.
    fn wide_slice(&self, ports: usize) -> Value {
        // As many bytes in one name are no work.
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
        // The first of them, which never changes, is the fact that all nodes find.
        let mut objects = vec![self.service("typo", 0, one("scheduler".into(), "round".into()), port())];
        // Two who ask for the same addresses and ports: the second has none of them.
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
        // Thousands of annotations that do not exist, with other names each time.
        let renamed = (0..2000).map(|number| (format!("r{round}-{number}"), String::new()));
        objects.push(self.service("renamed", 4, self.annotations(renamed), port()));
        objects.push(self.service("wide", 5, json!({}), port()));
        objects.push(self.wide_slice(4000));
        let for_ever = self.annotations([("max-drain-time".into(), "2562047h".into())]);
        objects.push(self.service("drains", 6, for_ever, port()));
        objects.push(self.service("module", 8, one("scheduler".into(), "dh".into()), port()));
        // Values of all that the API allows, and small ones; each time others.
        for number in 0..40 {
            let length = if number < 3 { 200_000 } else { 100 };
            let value = format!("{round}{}", "\u{1b}".repeat(length));
            objects.push(self.service(&format!("noisy-{number}"), 10 + number, one("scheduler".into(), value), port()));
        }
        // Addresses that might be those of Nodes, touched each time.
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

/// Gives another tenant's Service other endpoints. Returns how long that took until every node's kernel has them.
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
    /// How long changes of others took while the daemons took in the tenant's changes. Only printed: if the machine has
    /// no processor left, it is the work.
    meanwhile: Duration,
    /// How long changes of others took beside the tenant's objects.
    beside: Duration,
    /// The processor time of the daemons.
    work: Duration,
}

/// Hostile objects delay the changes of others at most so many times longer than harmless objects of the same size, and
/// cost the daemons at most so many times their work. Both sides are of this run: the machine's speed does not count.
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

/// The tenant changes all its objects, and others change their endpoints meanwhile and afterwards.
fn rounds(cluster: &Cluster, api: &ApiServer, proxies: &[Proxy], intent: Intent) -> Result<Cost> {
    let mut sum = Cost::default();
    for round in 0..ROUNDS {
        let before = work(proxies)?;
        api.put(Tenant { intent, round }.objects())?;
        let meanwhile = flip(cluster, api, 2 * round)?;
        let beside = flip(cluster, api, 2 * round + 1)?;
        // To have them the first time is work that counts for itself.
        if round > 0 {
            sum.meanwhile += meanwhile;
            sum.beside += beside;
            sum.work += work(proxies)? - before;
        }
        NODES.into_iter().try_for_each(|node| await_health(cluster, node))?;
    }
    Ok(sum)
}

/// The processor time of the daemons so far.
fn work(proxies: &[Proxy]) -> Result<Duration> {
    /// Of the fields of /proc/PID/stat behind the name of the program: `utime` and `stime`, in hundredths of a second.
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

/// A node is healthy beside the tenant's objects, which stay. It is not for a moment where the machine stood still.
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

/// How often a list of all Nodes was asked for.
fn node_lists(api: &ApiServer) -> usize {
    let requests = api.requests();
    requests
        .iter()
        .filter(|request| request.starts_with("/api/v1/nodes?") && !request.contains("metadata.name"))
        .count()
}

/// A fact is what an Event says, and about what: three nodes find all of it and one stores it.
fn check_events(api: &ApiServer) -> Result<()> {
    eventually(|| {
        let events = api.events();
        let asked = api.requests().iter().filter(|request| request.starts_with("POST ")).count();
        let of_typo = events.iter().filter(|event| event["regarding"]["name"] == "typo").count();
        ensure!(of_typo == 1, "{of_typo} Events are about one typo");
        // Who came second and third stored nothing.
        ensure!(asked >= events.len() + 2, "{asked} requests for {} Events", events.len());
        Ok(())
    })?;
    let mut stored: BTreeMap<String, usize> = BTreeMap::new();
    let events = api.events();
    for event in &events {
        let note = event["note"].as_str().unwrap_or_default();
        ensure!(note.len() <= 1024, "a note of {} bytes", note.len());
        // What stands behind is which node has found it.
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
        // What waits for twice as long makes a node unhealthy. A slower machine needs longer for the same.
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
        // A list is used for ten minutes.
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
