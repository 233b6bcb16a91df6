//! A thousand Services are created, changed and deleted while the watch fails in every way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use scenarios::{
    ApiServer, Cluster, Fault, Kind, Load, Namespace, Service, Slice, Table, TestResult, eventually, scenario,
};

use crate::api_server::api_server;
use crate::common::{WEB_ADDRESS, WEB_PODS, all_web, await_web, web_cluster, web_service, web_slice};

const SERVICES: usize = 1000;
/// The test never changes the first ones, so the node must serve them all the time.
const STEADY: usize = 50;
/// Few addresses, so that they move from one Service to another.
const ADDRESSES: usize = SERVICES + 20;
const NODE: &str = "node-3";

/// The duration of the test: short in CI, ten minutes and more through the environment.
fn duration() -> Result<Duration> {
    let seconds = std::env::var("KUBE_IPVS_CHURN_SECONDS").unwrap_or_else(|_| "30".into());
    Ok(Duration::from_secs(seconds.parse().context("KUBE_IPVS_CHURN_SECONDS")?))
}

/// The API server's objects that affect IPVS.
struct Objects {
    random: fastrand::Rng,
    /// Address index, and whether the protocol is UDP.
    services: BTreeMap<usize, (usize, bool)>,
    /// The key is the number and whether it is the second slice. The value is its Service and its endpoints.
    slices: BTreeMap<(usize, bool), (usize, BTreeSet<u8>)>,
    free: Vec<usize>,
}

impl Objects {
    fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            free: (0..ADDRESSES).collect(),
        }
    }

    /// Any Service that the test can change.
    fn any(&mut self) -> Option<usize> {
        let all: Vec<usize> = self.services.keys().copied().filter(|number| *number >= STEADY).collect();
        self.random.choice(all)
    }

    fn endpoints(&mut self) -> BTreeSet<u8> {
        let count = self.random.usize(0..4);
        (0..count).map(|_| self.random.u8(1..9)).collect()
    }

    fn make(&mut self, number: usize, api: &ApiServer) -> Result<()> {
        let chosen = self.random.usize(..self.free.len());
        let address = self.free.swap_remove(chosen);
        self.services.insert(number, (address, number % 5 == 4));
        let endpoints = self.endpoints();
        self.slices.insert((number, false), (number, endpoints));
        if self.random.bool() {
            self.apply_service(number, api)?;
            self.apply_slice((number, false), api)
        } else {
            self.apply_slice((number, false), api)?;
            self.apply_service(number, api)
        }
    }

    fn remove_service(&mut self, number: usize, api: &ApiServer) -> Result<()> {
        if let Some((address, _)) = self.services.remove(&number) {
            self.free.push(address);
            api.delete(Kind::Service, &service_name(number))?;
        }
        Ok(())
    }

    fn remove_slice(&mut self, key: (usize, bool), api: &ApiServer) -> Result<()> {
        if self.slices.remove(&key).is_some() {
            api.delete(Kind::EndpointSlice, &slice_name(key))?;
        }
        Ok(())
    }

    fn apply_service(&self, number: usize, api: &ApiServer) -> Result<()> {
        let (address, is_udp) = self.services[&number];
        let service = Service::new(&service_name(number)).cluster_ip(&address_text(address));
        api.apply(&service.named_port("p", protocol(is_udp), 80))
    }

    fn apply_slice(&self, key: (usize, bool), api: &ApiServer) -> Result<()> {
        let (service, endpoints) = &self.slices[&key];
        let slice = Slice::of(&service_name(*service)).name(&slice_name(key));
        let slice = [false, true].iter().fold(slice, |slice, is_udp| {
            if *is_udp == (*service % 5 == 4) { slice.named_port("p", protocol(*is_udp), 8080) } else { slice }
        });
        api.apply(&endpoints.iter().fold(slice, |slice, host| slice.ready(&endpoint(*service, *host))))
    }

    fn change(&mut self, api: &ApiServer) -> Result<()> {
        let Some(number) = self.any() else { return self.make(STEADY, api) };
        match self.random.u32(0..100) {
            0..45 => {
                let endpoints = self.endpoints();
                self.slices.insert((number, false), (number, endpoints));
                self.apply_slice((number, false), api)
            }
            45..60 => {
                self.remove_slice((number, false), api)?;
                self.remove_service(number, api)
            }
            60..78 => match (STEADY..SERVICES).find(|number| !self.services.contains_key(number)) {
                Some(number) => self.make(number, api),
                None => Ok(()),
            },
            // The same name with another address.
            78..86 => {
                self.remove_service(number, api)?;
                self.make(number, api)
            }
            // A second slice with the same endpoints and others.
            86..93 => {
                let mut endpoints = self.endpoints();
                endpoints.extend(self.slices.get(&(number, false)).into_iter().flat_map(|(_, first)| first));
                self.slices.insert((number, true), (number, endpoints));
                self.apply_slice((number, true), api)
            }
            93..97 => self.remove_slice((number, true), api),
            _ => {
                let Some(other) = self.any() else { return Ok(()) };
                let Some((_, endpoints)) = self.slices.get(&(number, true)).cloned() else { return Ok(()) };
                self.slices.insert((number, true), (other, endpoints));
                self.apply_slice((number, true), api)
            }
        }
    }

    fn wanted(&self) -> BTreeMap<String, Vec<String>> {
        let reals = |number: &usize| -> Vec<String> {
            let of_service = self.slices.values().filter(|(service, _)| service == number);
            let hosts: BTreeSet<u8> = of_service.flat_map(|(_, hosts)| hosts).copied().collect();
            let mut reals: Vec<String> =
                hosts.iter().map(|host| format!("{}:8080 1", endpoint(*number, *host))).collect();
            reals.sort();
            reals
        };
        self.services
            .iter()
            .map(|(number, (address, is_udp))| {
                (format!("{} {}:80", protocol(*is_udp), address_text(*address)), reals(number))
            })
            .collect()
    }
}

fn protocol(is_udp: bool) -> &'static str {
    if is_udp { "UDP" } else { "TCP" }
}

fn service_name(number: usize) -> String {
    format!("s{number}")
}

fn slice_name((number, is_second): (usize, bool)) -> String {
    format!("s{number}-{}", if is_second { "b" } else { "a" })
}

fn address_text(address: usize) -> String {
    format!("10.97.{}.{}", address / 250, address % 250 + 1)
}

fn endpoint(service: usize, host: u8) -> String {
    format!("10.{}.{}.{host}", 245 + service / 250, service % 250)
}

/// Injects a random failure. Returns its description.
fn disturb(random: &mut fastrand::Rng, api: &mut ApiServer, away_until: &mut Option<Instant>) -> String {
    let refusals = [Fault::Status(500), Fault::Status(429), Fault::Status(410), Fault::Close, Fault::EmptyWatch];
    match random.u32(0..10) {
        0 | 1 => {
            api.cut();
            "cut".into()
        }
        2 => {
            api.half_events(random.u32(1..4));
            "half events".into()
        }
        3 => {
            api.compact();
            api.cut();
            "410 Gone".into()
        }
        4 => {
            api.fall_silent();
            "silence".into()
        }
        5 | 6 => {
            let faults: Vec<Fault> = (0..4).filter_map(|_| random.choice(refusals)).collect();
            api.fault(&faults);
            api.cut();
            format!("{faults:?}")
        }
        7 => {
            api.double(random.bool());
            "doubled events".into()
        }
        8 => {
            let pause = Duration::from_millis(random.u64(0..30));
            api.slow(pause);
            format!("slow by {pause:?}")
        }
        _ => {
            api.away();
            let time = Duration::from_millis(random.u64(100..4000));
            *away_until = Some(Instant::now() + time);
            format!("away for {time:?}")
        }
    }
}

/// Reads IPVS repeatedly. The Services that the test never changes must be complete every time.
struct Witness {
    stop: Arc<AtomicBool>,
    looks: Arc<AtomicUsize>,
    thread: thread::JoinHandle<Result<()>>,
}

impl Witness {
    fn start(node: &Arc<Namespace>, steady: BTreeMap<String, Vec<String>>) -> Self {
        let (stop, node) = (Arc::new(AtomicBool::new(false)), Arc::clone(node));
        let looks = Arc::new(AtomicUsize::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&looks));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                let looks = counted.load(Ordering::SeqCst);
                let table = node.ipvsadm()?;
                for (key, reals) in &steady {
                    let mut found = table.weights(key);
                    if found.as_ref() != Some(reals) {
                        // All namespaces share the kernel's list. A deletion in another namespace can hide entries of
                        // this one.
                        found = node.ipvsadm_of(key)?.weights(key);
                    }
                    ensure!(found.as_ref() == Some(reals), "look {looks}: {key} is {found:?} instead of {reals:?}");
                }
                counted.fetch_add(1, Ordering::SeqCst);
                // Reading must leave the daemon time to do the wrong thing.
                thread::sleep(Duration::from_millis(200));
            }
            Ok(())
        });
        Self { stop, looks, thread }
    }

    fn stop(self) -> Result<()> {
        eventually(|| {
            let looks = self.looks.load(Ordering::SeqCst);
            ensure!(looks > 10 || self.thread.is_finished(), "only {looks} looks at IPVS");
            Ok(())
        })?;
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| anyhow::anyhow!("the witness panicked"))?
    }
}

fn ensure_exactly(table: &Table, wanted: &BTreeMap<String, Vec<String>>) -> Result<()> {
    let found: BTreeMap<String, Vec<String>> =
        table.0.iter().map(|service| (service.key(), service.weights())).collect();
    let mut differences = String::new();
    let keys: BTreeSet<&String> = found.keys().chain(wanted.keys()).collect();
    let different = keys.into_iter().filter(|key| found.get(*key) != wanted.get(*key));
    for (count, key) in different.enumerate() {
        if count < 10 {
            let _ = writeln!(differences, "{key}: {:?} instead of {:?}", found.get(key), wanted.get(key));
        }
    }
    if differences.is_empty() { Ok(()) } else { bail!("IPVS differs:\n{differences}") }
}

pub(crate) fn await_exactly(node: &Namespace, wanted: &BTreeMap<String, Vec<String>>) -> Result<()> {
    eventually(|| ensure_exactly(&node.ipvsadm()?, wanted))
}

#[test]
fn thousand_changing_services_stay_in_sync_despite_watch_failures() -> TestResult {
    let duration = duration()?;
    scenario(web_cluster(), move |cluster| churn(cluster, duration))
}

fn churn(cluster: &Cluster, duration: Duration) -> TestResult {
    let seed = std::env::var("KUBE_IPVS_CHURN_SEED").map_or_else(|_| Ok(fastrand::u64(..)), |seed| seed.parse())?;
    println!("KUBE_IPVS_CHURN_SEED={seed} makes the same changes again");
    let mut objects = Objects::new(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut api, kubeconfig) = api_server(cluster, None)?;
    let _servers = WEB_PODS.iter().map(|(name, ..)| cluster.http(name, 8080)).collect::<Result<Vec<_>>>()?;
    api.apply(&web_service())?;
    api.apply(&web_slice(&all_web()))?;
    for number in 0..STEADY {
        objects.make(number, &api)?;
    }
    let mut steady = objects.wanted();
    let web: Vec<String> = WEB_PODS.iter().map(|(_, _, address)| format!("{address}:8080 1")).collect();
    steady.insert("TCP 10.96.0.80:80".into(), web.clone());

    // The daemon detects a dead connection after 5 s plus its tolerance.
    let extra = ["--watch-timeout", "5s", "--kube-api-qps", "50", "--kube-api-burst", "100"];
    let mut proxy = cluster.kube_ipvs(NODE)?.start_with_kubeconfig(&kubeconfig, &extra)?;
    let node = cluster.at(NODE)?;
    await_web(cluster, NODE)?;
    await_exactly(node, &steady)?;
    let load = Load::start(cluster.at("visitor")?, WEB_ADDRESS, Duration::from_millis(20))?;
    let witness = Witness::start(node, steady);
    for number in STEADY..SERVICES {
        objects.make(number, &api)?;
    }
    let (end, mut away_until, mut disturbed) = (Instant::now() + duration, None, Instant::now());
    let (mut changes, mut mishaps) = (0, BTreeMap::<String, usize>::new());
    while Instant::now() < end {
        objects.change(&api)?;
        changes += 1;
        if away_until.is_some_and(|until| Instant::now() >= until) {
            api.back()?;
            away_until = None;
        }
        // The pauses are usually long enough to recover, and sometimes not.
        if away_until.is_none() && disturbed.elapsed() > Duration::from_secs(2) {
            let what = disturb(&mut random, &mut api, &mut away_until);
            let kind = what.split([' ', '(']).next().unwrap_or_default().to_owned();
            *mishaps.entry(kind).or_default() += 1;
            disturbed = Instant::now();
        }
        proxy.check_alive()?;
        thread::sleep(Duration::from_millis(random.u64(0..30)));
    }
    println!("{changes} changes, and what went wrong: {mishaps:?}");
    if away_until.is_some() {
        api.back()?;
    }
    api.fault(&[]);
    api.double(false);
    api.slow(Duration::ZERO);
    api.half_events(0);

    let mut wanted = objects.wanted();
    wanted.insert("TCP 10.96.0.80:80".into(), web);
    await_exactly(node, &wanted).with_context(|| format!("the daemon said\n{}", proxy.log_text()))?;
    witness.stop()?;
    load.stop(100, "a pod")?;

    let addresses: Vec<String> =
        wanted.keys().filter_map(|key| key.split([' ', ':']).nth(1)).map(str::to_owned).collect();
    node.await_vips(&addresses.iter().map(String::as_str).collect::<Vec<_>>())?;
    // A new daemon on another node produces the same nftables content.
    let other = cluster.at("node-1")?;
    let _fresh = cluster.kube_ipvs("node-1")?.start_with_kubeconfig(&kubeconfig, &extra)?;
    await_exactly(other, &wanted)?;
    other.await_vips(&addresses.iter().map(String::as_str).collect::<Vec<_>>())?;
    eventually(|| {
        let (sets, fresh) = (node.nft_sets()?, other.nft_sets()?);
        ensure!(sets.get("ip served").is_some_and(|served| served.len() == wanted.len()), "served: {sets:?}");
        // The set `hairpin` holds a node's own pods, so it differs between nodes.
        for (name, elements) in fresh.iter().filter(|(name, _)| *name != "ip hairpin") {
            let found = sets.get(name);
            ensure!(found == Some(elements), "nft set {name}: {found:?} instead of {elements:?}");
        }
        Ok(())
    })?;
    proxy.check_alive()
}
