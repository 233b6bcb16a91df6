//! Endpoints that change hundreds of times a second: the queue, the memory, and the state at the end.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use scenarios::{ApiServer, Cluster, Namespace, Proxy, TestResult, eventually, scenario};
use serde_json::{Value, json};

use crate::api_server::api_server;
use crate::churn::await_exactly;
use crate::memory::memory;

const NODE: &str = "node-3";
/// Changes a second, if the machine can make as many.
const RATE: u32 = 500;
/// How often the test looks at the daemon.
const LOOK: Duration = Duration::from_secs(2);
/// The changes that the API server keeps for watches that lag behind.
const KEPT: u64 = 2_000;
/// How much more data than after the warm-up the daemon can have at the end, in KiB: the allocator does not give back
/// every page, and the last delivery can be a large one.
const MOST_GROWTH: u64 = 8 * 1024;

/// The Services, the endpoints of each, and the duration. In CI they are few and short.
struct Size {
    services: u32,
    endpoints: u32,
    time: Duration,
}

impl Size {
    fn of_environment() -> Result<Self> {
        let (services, endpoints, seconds) = match std::env::var("KUBE_IPVS_ENDPOINT_CHANGES_SECONDS") {
            Ok(seconds) => (5_000, 50, seconds.parse().context("KUBE_IPVS_ENDPOINT_CHANGES_SECONDS")?),
            Err(_) => (200, 10, 12),
        };
        Ok(Self { services, endpoints, time: Duration::from_secs(seconds) })
    }
}

/// The EndpointSlices. Each bit says to which of two addresses the pod of an endpoint has moved.
struct Slices {
    size: Size,
    moved: Vec<u64>,
}

impl Slices {
    fn addresses(&self, service: u32) -> impl Iterator<Item = String> {
        let (moved, endpoints) = (self.moved[service as usize], self.size.endpoints);
        (0..endpoints).map(move |endpoint| {
            let [_, high, middle, low] = (service * endpoints + endpoint).to_be_bytes();
            let block = if moved >> endpoint & 1 == 0 { 128 } else { 192 };
            format!("10.{}.{middle}.{low}", block + high)
        })
    }

    fn object(&self, service: u32) -> Value {
        let name = format!("s{service}");
        let endpoint = |address| json!({ "addresses": [address], "conditions": { "ready": true } });
        json!({
            "kind": "EndpointSlice",
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
            "addressType": "IPv4",
            "ports": [{ "name": "", "protocol": "TCP", "port": 8080 }],
            "endpoints": self.addresses(service).map(endpoint).collect::<Vec<_>>(),
        })
    }

    fn wanted(&self) -> BTreeMap<String, Vec<String>> {
        let reals = |service| {
            let mut reals: Vec<String> = self.addresses(service).map(|address| format!("{address}:8080 1")).collect();
            reals.sort();
            reals
        };
        (0..self.size.services).map(|service| (format!("TCP {}:80", vip(service)), reals(service))).collect()
    }
}

fn vip(service: u32) -> String {
    format!("10.96.{}.{}", service / 250, service % 250 + 1)
}

fn service(number: u32) -> Value {
    let ports = json!([{ "name": "", "protocol": "TCP", "port": 80, "targetPort": 8080 }]);
    json!({
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": { "name": format!("s{number}") },
        "spec": { "clusterIP": vip(number), "clusterIPs": [vip(number)], "ports": ports },
    })
}

/// The metrics of the daemon's queue and syncs.
fn metrics(node: &Namespace) -> Result<[f64; 3]> {
    let syncs = "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}";
    let changes = "kubeproxy_sync_proxy_rules_endpoint_changes_total";
    let pending = "kubeproxy_sync_proxy_rules_endpoint_changes_pending";
    let values = [syncs, changes, pending].map(|name| node.metric(name));
    let [syncs, changes, pending] = values;
    Ok([syncs?, changes?, pending?])
}

/// Changes endpoints for the whole time. Returns the number of changes, the daemon's memory after a third of the time,
/// and the largest number of changes that waited.
fn change(slices: &mut Slices, api: &ApiServer, node: &Namespace, proxy: &mut Proxy) -> Result<(u32, u64, f64)> {
    let mut random = fastrand::Rng::new();
    let (start, time) = (Instant::now(), slices.size.time);
    let (mut made, mut warm, mut most_pending, mut looked) = (0_u32, 0, 0.0_f64, Instant::now());
    while start.elapsed() < time {
        let service = random.u32(..slices.size.services);
        slices.moved[service as usize] ^= 1 << random.u32(..slices.size.endpoints);
        api.put(vec![slices.object(service)])?;
        made += 1;
        if made.is_multiple_of(1_000) {
            api.forget(KEPT);
        }
        if looked.elapsed() > LOOK {
            looked = Instant::now();
            proxy.check_alive()?;
            most_pending = most_pending.max(metrics(node)?[2]);
        }
        if warm == 0 && start.elapsed() > time / 3 {
            warm = memory(proxy, "RssAnon")?;
        }
        // A pause of the machine does not lead to a burst.
        let due = Duration::from_secs(1) * made / RATE;
        thread::sleep(due.saturating_sub(start.elapsed()).min(Duration::from_secs(1) / RATE));
    }
    Ok((made, warm, most_pending))
}

fn await_idle(node: &Namespace) -> Result<()> {
    eventually(|| {
        let [_, changes, pending] = metrics(node)?;
        ensure!(pending == 0.0, "{pending} of {changes} changes wait");
        Ok(())
    })
}

#[test]
fn endpoint_changes_at_a_high_rate_leave_an_exact_state_and_no_more_memory() -> TestResult {
    let size = Size::of_environment()?;
    scenario(Cluster::builder(), |cluster| {
        let mut slices = Slices { moved: vec![0; size.services as usize], size };
        let (api, kubeconfig) = api_server(cluster, None)?;
        for number in 0..slices.size.services {
            api.put(vec![service(number), slices.object(number)])?;
        }
        let mut proxy = cluster.kube_ipvs(NODE)?.start_with_kubeconfig(&kubeconfig, &[])?;
        let node = cluster.at(NODE)?;
        await_exactly(node, &slices.wanted())?;

        let before = metrics(node)?;
        let (made, warm, most_pending) = change(&mut slices, &api, node, &mut proxy)?;
        await_idle(node)?;
        await_exactly(node, &slices.wanted()).with_context(|| format!("the daemon said\n{}", proxy.log_text()))?;
        let after = metrics(node)?;
        let (syncs, received) = (after[0] - before[0], after[1] - before[1]);
        let [own, resident, peak] = ["RssAnon", "VmRSS", "VmHWM"].map(|name| memory(&proxy, name));
        let (own, resident, peak) = (own?, resident?, peak?);
        println!(
            "{made} changes in {:?}, {received} received, {syncs} syncs, at most {most_pending} waited; {warm} KiB of \
             data after the warm-up, {own} KiB at the end, {resident} KiB resident, {peak} KiB at most",
            slices.size.time
        );
        ensure!(own <= warm + MOST_GROWTH, "the daemon's data grew from {warm} KiB to {own} KiB");
        proxy.check_alive()
    })
}
