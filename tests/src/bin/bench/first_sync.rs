use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    sync::mpsc::channel,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use proxier::{
    Completeness, Config, Engine,
    linux::{LinuxKernel, Settings},
};
use scenarios::Namespace;

use crate::{
    replay::{Datagram, replay},
    world,
};

const SERVICES: u32 = 1_000;
/// Each measurement runs this often, each time in a new network namespace. The median counts.
const ROUNDS: usize = 9;
/// Discarded rounds: the kernel loads modules, and an emulator translates each instruction at its first use.
const WARM_UP: usize = 2;
/// How often an endpoint leaves and returns.
const CHANGES: u32 = 200;

/// Prints the figures. Returns whether every ratio keeps its bound.
pub(crate) fn run() -> Result<bool> {
    // Each round measures every load once, so that a slow or fast minute affects all loads alike.
    let (mut ours, mut raw, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut few, mut many) = (Vec::new(), Vec::new());
    let datagrams = in_namespace("recorded", datagrams)?;
    for round in 0..WARM_UP + ROUNDS {
        ours.push(in_namespace(&format!("ours-{round}"), first_sync)?);
        raw.push(in_namespace(&format!("raw-{round}"), || replay(&datagrams))?);
        theirs.push(in_namespace(&format!("ipvsadm-{round}"), ipvsadm)?);
        few.push(in_namespace(&format!("few-{round}"), || endpoint_change(10))?);
        many.push(in_namespace(&format!("many-{round}"), || endpoint_change(SERVICES))?);
    }
    let [ours, raw, theirs, few, many] =
        [ours, raw, theirs, few, many].map(|mut times| median(times.split_off(WARM_UP)));

    println!("first sync, {SERVICES} Services x {} endpoints", world::ENDPOINTS);
    print_time("kube-ipvs, from the events to the last reply", ours);
    print_time("the same netlink messages, replayed in raw sends", raw);
    print_time("ipvsadm -R of the same virtual and real servers", theirs);
    println!("one endpoint taken away or brought back");
    print_time("with 10 Services", few);
    print_time(&format!("with {SERVICES} Services"), many);
    println!("ratios");
    let floor = check("first sync / raw sends", ratio(ours, raw), 2.0);
    let rival = check("first sync / ipvsadm -R", ratio(ours, theirs), 0.1);
    let larger = ratio(few.max(many), few.min(many));
    let flat = check("one change, 10 against 1,000 Services", larger, 1.5);
    Ok(floor && rival && flat)
}

/// An engine with a complete, empty view of the cluster.
fn new_engine(config: Config) -> Engine {
    let mut engine = Engine::new(config, BTreeSet::new());
    engine.set_complete(Completeness::Complete);
    engine
}

fn first_sync() -> Result<Duration> {
    let events = world::events(SERVICES);
    let start = Instant::now();
    let mut engine = new_engine(Config::new("node"));
    let mut kernel = LinuxKernel::open(engine.config(), Settings::default())?;
    sync(&mut engine, &mut kernel, events, Duration::ZERO)?;
    Ok(start.elapsed())
}

/// Records every datagram of a first sync. The measured syncs do not record, because copying takes time.
fn datagrams() -> Result<Vec<Datagram>> {
    let (sender, sent) = channel();
    let mut engine = new_engine(Config::new("node"));
    let mut kernel = LinuxKernel::open(engine.config(), Settings::default())?;
    kernel.observe_sends(move |protocol, bytes| {
        let _ = sender.send((protocol, bytes.to_vec()));
    });
    sync(&mut engine, &mut kernel, world::events(SERVICES), Duration::ZERO)?;
    drop(kernel);
    Ok(sent.into_iter().collect())
}

/// The median time to sync one changed endpoint among this many Services.
fn endpoint_change(services: u32) -> Result<Duration> {
    let mut engine = new_engine(Config { sync_period: Duration::from_secs(3600), ..Config::new("node") });
    let mut kernel = LinuxKernel::open(engine.config(), Settings::default())?;
    sync(&mut engine, &mut kernel, world::events(services), Duration::ZERO)?;
    let mut times = Vec::new();
    for number in 0..CHANGES {
        let event = world::slice(0, world::ENDPOINTS - (number + 1) % 2);
        let start = Instant::now();
        // One second apart: the time includes the bookkeeping of draining endpoints, as on a real node.
        sync(&mut engine, &mut kernel, [event], Duration::from_secs(number.into()))?;
        times.push(start.elapsed());
    }
    Ok(median(times))
}

fn sync(
    engine: &mut Engine,
    kernel: &mut LinuxKernel,
    events: impl IntoIterator<Item = proxier::model::Event>,
    now: Duration,
) -> Result<()> {
    events.into_iter().for_each(|event| engine.apply(event));
    let report = engine.sync(kernel, now);
    ensure!(report.unavailable.is_none(), "{:?}", report.unavailable);
    ensure!(report.failures.is_empty(), "{}", report.failures[0]);
    ensure!(!report.plan.is_empty(), "there was nothing to do");
    Ok(())
}

fn ipvsadm() -> Result<Duration> {
    let file = std::env::temp_dir().join("ipvsadm-rules");
    std::fs::write(&file, world::ipvsadm_rules(SERVICES))?;
    let start = Instant::now();
    let status = Command::new("ipvsadm").arg("-R").stdin(std::fs::File::open(&file)?).stderr(Stdio::inherit()).status();
    ensure!(status.context("cannot run ipvsadm")?.success(), "ipvsadm -R failed");
    Ok(start.elapsed())
}

fn in_namespace<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let namespace = Namespace::create(&format!("bench-{name}"))?;
    // If no address has ever been local, the kernel takes every real server for a broadcast address.
    namespace.ip("link set lo up")?;
    let outcome = namespace.enter(work);
    Namespace::delete_all([&*namespace])?;
    outcome
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

fn print_time(what: &str, time: Duration) {
    println!("  {what:<52} {:>9.3} ms", time.as_secs_f64() * 1000.0);
}

fn check(what: &str, value: f64, bound: f64) -> bool {
    let holds = value <= bound;
    let verdict = if holds { "holds" } else { "DOES NOT HOLD" };
    println!("  {what:<52} {value:>9.3}    at most {bound}: {verdict}");
    holds
}
