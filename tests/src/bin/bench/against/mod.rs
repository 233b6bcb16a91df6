//! kube-ipvs and a peer as daemons, on the same objects of one API server: their speed for the users of a node, and
//! their cost.

mod daemon;
mod objects;
mod probe;
mod run;

use std::{env, fs, time::Duration};

use anyhow::{Result, ensure};
use scenarios::ApiServer;

use self::{
    daemon::Program,
    probe::await_answers,
    run::{Run, Sample},
};
use crate::{
    network::{API_SERVER, Host, Network},
    report::{Report, quantile},
    rounds::rounds,
    shape::Shape,
};

/// A round takes minutes.
const MOST_ROUNDS: usize = 3;
/// As a real API server sends them.
const BOOKMARKS: Duration = Duration::from_secs(60);

type Figure = (&'static str, &'static str, fn(&Sample) -> f64);

const FIGURES: [Figure; 15] = [
    ("cold start: first answer of a Service", "s", |sample| sample.first),
    ("cold start: all Services answer", "s", |sample| sample.all),
    ("cold start: processor time until then", "s", |sample| sample.cold_processor),
    ("warm start: an endpoint that moved meanwhile answers", "s", |sample| sample.warm),
    ("warm start: processor time until then", "s", |sample| sample.warm_processor),
    ("change: the moved endpoint answers, median", "s", |sample| quantile(&sample.changes, 0.5)),
    ("change: the moved endpoint answers, p99", "s", |sample| quantile(&sample.changes, 0.99)),
    ("change: processor time", "s", |sample| sample.change_processor),
    ("at rest: processor time in 60 s", "s", |sample| sample.rest_processor),
    ("at rest: resident memory", "MiB", |sample| sample.resident),
    ("until then: most resident memory", "MiB", |sample| sample.most_resident),
    ("longest stall of forwarding: before the start", "ms", |sample| sample.floor),
    ("longest stall of forwarding: cold start", "ms", |sample| sample.cold_stall),
    ("longest stall of forwarding: changes", "ms", |sample| sample.change_stall),
    ("longest stall of forwarding: warm start", "ms", |sample| sample.warm_stall),
];

/// Compares with kube-proxy in this mode.
pub(crate) fn run(shape: Shape, mode: &str, report: &Report) -> Result<()> {
    ensure!(shape.services > 1, "a comparison needs several Services, because one of them has only one endpoint");
    let shape = Shape { rounds: shape.rounds.min(MOST_ROUNDS), warm_up: 0, ..shape };
    let network = Network::create()?;
    let api = ApiServer::start_in(network.api(), API_SERVER.parse()?)?;
    api.bookmark_every(BOOKMARKS);
    let kubeconfig = env::temp_dir().join("bench-kubeconfig");
    fs::write(&kubeconfig, api.kubeconfig(None))?;
    let kubeconfig = kubeconfig.to_string_lossy();
    let [ours, theirs] = [Program::ours(&kubeconfig), Program::kube_proxy(mode, &kubeconfig)?];

    api.put(shape.few().objects())?;
    warm_up(&network, &ours, shape.few())?;
    warm_up(&network, &theirs, shape.few())?;
    api.put(shape.objects())?;
    // One copy of each object is enough.
    api.forget(0);
    let sample = |program: &Program| {
        let sample = Run::new(&network, &api, shape, program)?.sample()?;
        eprintln!("bench: {}, {}: cold {:.2} s, warm {:.2} s", shape.name, program.name, sample.all, sample.warm);
        Ok(sample)
    };
    let [our_samples, their_samples] = rounds(shape, [&mut || sample(&ours), &mut || sample(&theirs)])?;

    let all = [our_samples, their_samples];
    let changes = all.iter().flatten().map(|sample| sample.changes.len()).min().unwrap_or_default();
    let heading = format!("{shape}, at least {changes} changes each");
    let table = report.comparison(shape, &heading, [&ours.name, &theirs.name]);
    for (name, unit, figure) in FIGURES {
        let [our, their] = all.each_ref().map(|samples| samples.iter().map(figure).collect::<Vec<f64>>());
        table.figure(name, unit, [&our, &their]);
    }
    Ok(())
}

/// Runs a program once, uncounted: the kernel reads it and loads modules, and an emulator translates it.
fn warm_up(network: &Network, program: &Program, shape: Shape) -> Result<()> {
    let node = network.add_node()?;
    let mut daemon = program.start(node.namespace(), true)?;
    await_answers(network.client(), &shape.sample(), Host::Old, || daemon.check())?;
    Ok(())
}
