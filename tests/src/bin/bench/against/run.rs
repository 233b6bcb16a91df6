//! The life of one proxy on a new node: cold start, changes, rest, and a restart.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Result;
use scenarios::ApiServer;

use super::{
    daemon::{Daemon, Program},
    probe::{Pings, await_answers},
};
use crate::{
    clock::milliseconds,
    network::{BEHIND, Host, Network},
    node::Place,
    shape::Shape,
};

const LEAST_CHANGES: usize = 5;
const MOST_CHANGES: usize = 100;
/// After this time there are no more changes than the least.
const CHANGING: Duration = Duration::from_secs(60);
const REST: Duration = Duration::from_secs(60);
/// How long the pings go through the node before the proxy starts.
const BEFORE: Duration = Duration::from_secs(5);

/// Times are in seconds, stalls in milliseconds, memory in MiB.
pub(super) struct Sample {
    pub(super) first: f64,
    pub(super) all: f64,
    pub(super) cold_processor: f64,
    pub(super) changes: Vec<f64>,
    pub(super) change_processor: f64,
    pub(super) rest_processor: f64,
    pub(super) resident: f64,
    pub(super) most_resident: f64,
    pub(super) warm: f64,
    pub(super) warm_processor: f64,
    /// The longest stall without a proxy.
    pub(super) floor: f64,
    pub(super) cold_stall: f64,
    pub(super) change_stall: f64,
    pub(super) warm_stall: f64,
}

pub(super) struct Run<'a> {
    network: &'a Network,
    api: &'a ApiServer,
    shape: Shape,
    program: &'a Program,
    node: Place,
    /// Where the endpoint of the probed Service is.
    host: Host,
}

impl<'a> Run<'a> {
    pub(super) fn new(network: &'a Network, api: &'a ApiServer, shape: Shape, program: &'a Program) -> Result<Self> {
        let mut run = Self { network, api, shape, program, node: network.add_node()?, host: Host::New };
        run.move_endpoint()?;
        Ok(run)
    }

    pub(super) fn sample(mut self) -> Result<Sample> {
        let ((), floor) = self.with_pings(|_| {
            sleep(BEFORE);
            Ok(())
        })?;
        let ((mut daemon, [first, all], cold_processor), cold_stall) = self.with_pings(|run| {
            let mut daemon = run.program.start(run.node.namespace(), true)?;
            let answered = run.await_answers(&run.shape.sample(), &mut daemon)?;
            let times = answered.map(|answered| (answered - daemon.start).as_secs_f64());
            let processor = daemon.processor_time()?;
            daemon.settle()?;
            Ok((daemon, times, processor))
        })?;
        let before = daemon.processor_time()?;
        let (changes, change_stall) = self.with_pings(|run| run.changes(&mut daemon))?;
        daemon.settle()?;
        let change_processor = (daemon.processor_time()? - before) / changes.len() as f64;
        let before = daemon.processor_time()?;
        sleep(REST);
        let rest_processor = daemon.processor_time()? - before;
        let (resident, most_resident) = (daemon.memory("VmRSS")?, daemon.memory("VmHWM")?);

        drop(daemon);
        self.move_endpoint()?;
        let ((warm, warm_processor), warm_stall) = self.with_pings(|run| {
            let mut daemon = run.program.start(run.node.namespace(), false)?;
            let [answered, _] = run.await_answers(&run.shape.sample()[..1], &mut daemon)?;
            let processor = daemon.processor_time()?;
            daemon.settle()?;
            Ok(((answered - daemon.start).as_secs_f64(), processor))
        })?;
        Ok(Sample {
            first,
            all,
            cold_processor,
            changes,
            change_processor,
            rest_processor,
            resident,
            most_resident,
            warm,
            warm_processor,
            floor,
            cold_stall,
            change_stall,
            warm_stall,
        })
    }

    /// Moves the endpoint again and again, and returns the times until it answers at its new place.
    fn changes(&mut self, daemon: &mut Daemon) -> Result<Vec<f64>> {
        let (mut changes, mut random) = (Vec::new(), fastrand::Rng::with_seed(1));
        let (start, probed) = (Instant::now(), self.shape.sample()[0]);
        while changes.len() < LEAST_CHANGES || changes.len() < MOST_CHANGES && start.elapsed() < CHANGING {
            // kube-proxy syncs once a second at most. A change comes at any time in such a second.
            sleep(Duration::from_secs_f64(random.f64()));
            let moved = Instant::now();
            self.move_endpoint()?;
            let [answered, _] = self.await_answers(&[probed], daemon)?;
            changes.push((answered - moved).as_secs_f64());
        }
        Ok(changes)
    }

    fn move_endpoint(&mut self) -> Result<()> {
        self.host = self.host.other();
        self.api.put(vec![self.shape.probed_slice(self.host)])
    }

    fn await_answers(&self, services: &[std::net::SocketAddr], daemon: &mut Daemon) -> Result<[Instant; 2]> {
        await_answers(self.network.client(), services, self.host, || daemon.check())
    }

    /// Pings through the node while `work` goes on. Returns the longest time from a ping to its answer too.
    fn with_pings<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<(T, f64)> {
        let pings = Pings::start(self.network.client(), BEHIND)?;
        let outcome = work(self);
        let longest = pings.longest()?;
        Ok((outcome?, milliseconds(longest)))
    }
}
