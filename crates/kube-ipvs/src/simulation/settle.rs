//! The end of a run: some time after the last fault, the kernel must have the state that a new daemon would make.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proxier::{State, cluster::EndpointAddress, fake::FakeKernel, set::Element};

use super::{
    Violation,
    daemon::Daemon,
    known::Place,
    objects::Which,
    world::{Simulation, empty_kernel},
};

impl Simulation<'_> {
    /// Ends all faults, lets time pass, and checks the state of the daemon and the kernel.
    pub(super) fn settle(&mut self) -> Result<(), Violation> {
        self.statistics.settled += 1;
        self.calm_down();
        self.cluster.api.is_down = false;
        self.cluster.repair();
        self.daemon.distrust();
        Which::ALL.iter().for_each(|which| self.deliver(*which, usize::MAX));
        // The engine finds drift within the sync period. After that, it waits up to a minute between retries.
        let period = Duration::from_secs(self.world.period.max(1));
        self.advance(2 * period + Duration::from_secs(self.world.drain + 150))?;
        self.check_settled()?;
        self.is_idle = true;
        let idle = self.advance(period + Duration::from_secs(5));
        self.is_idle = false;
        idle
    }

    fn check_settled(&mut self) -> Result<(), Violation> {
        if !self.daemon.report(self.moment()).healthy {
            return Err(Violation::new("health", "unhealthy at rest".into()));
        }
        if !self.daemon.looper.engine().is_converged() {
            return Err(Violation::new("converged", "the engine is not converged".into()));
        }
        self.check_endpoints()?;
        let expected = settled(self.fresh());
        let mut actual = settled(self.kernel().state());
        // If another program has changed a comment and a list lacked the element, the comment stays.
        for (key, membership) in &mut actual.elements {
            let theirs = membership.comment.take_if(|comment| **comment == *"theirs");
            let wanted = || expected.elements.get(key)?.comment.clone();
            membership.comment = membership.comment.take().or_else(|| wanted().filter(|_| theirs.is_some()));
        }
        if actual != expected {
            let text = format!("a new daemon makes another state:\n{}", difference(&expected, &actual));
            return Err(Violation::new("converged", text));
        }
        let Self { clients, daemon, .. } = self;
        clients.check_flows(daemon.looper.kernel())
    }

    /// Checks that new connections go to the serving endpoints, and that each real server with weight 0 has to drain.
    fn check_endpoints(&mut self) -> Result<(), Violation> {
        let Self { daemon, foreign, .. } = self;
        let Daemon { looper, known, .. } = daemon;
        let kernel = looper.kernel();
        for (key, server) in kernel.virtual_servers.iter().filter(|(key, _)| !foreign.servers.contains_key(key)) {
            let (able, quiet): (BTreeMap<_, _>, BTreeMap<_, _>) =
                server.real_servers.iter().partition(|(_, destination)| destination.weight > 0);
            let (able, serving): (BTreeSet<_>, _) = (able.into_keys().copied().collect(), known.serving(key));
            if able != serving {
                return Err(Violation::new("converged", format!("{key} leads to {able:?}, and {serving:?} serve")));
            }
            let is_left = |address: &&EndpointAddress| !matches!(known.place(key, **address), Place::Draining { .. });
            if let Some(address) = quiet.into_keys().find(is_left) {
                return Err(Violation::new("converged", format!("{key} still has {address}")));
            }
        }
        let unserved = kernel.elements.iter().flat_map(|all| all.keys()).find(|element| match element {
            Element::ShortCircuit(key, to) => key.address.is_loopback() && !known.serving(key).contains(to),
            _ => false,
        });
        match unserved {
            Some(element) => {
                Err(Violation::new("converged", format!("{element} leads to an endpoint that does not serve")))
            }
            None => Ok(()),
        }
    }

    /// The state that a new daemon makes on a kernel that has only the objects of other programs.
    fn fresh(&mut self) -> State {
        let kernel = FakeKernel {
            virtual_servers: self.foreign.servers.clone(),
            addresses: Some(self.foreign.addresses.clone()),
            ..empty_kernel(self.world)
        };
        let mut daemon = Daemon::start(self.world, kernel, self.status, None);
        for which in Which::ALL {
            daemon.hear(&self.cluster.api, which, 0, self.now);
        }
        // If the kernel lacks a scheduler, the daemon needs a second sync, after the longest `--ipvs-min-sync-period`.
        for second in 0..12 {
            daemon.turn(self.now + Duration::from_secs(second));
        }
        daemon.looper.kernel().state()
    }
}

/// The state without draining real servers, which depend on the history.
fn settled(mut state: State) -> State {
    for server in state.virtual_servers.values_mut() {
        server.real_servers.retain(|_, destination| destination.weight > 0);
    }
    state
}

/// The lines that only one of two states has: `-` for the first state, `+` for the second.
pub(super) fn difference(one: &State, other: &State) -> String {
    let lines = |state: &State| {
        let State { virtual_servers, elements, allowed, .. } = state;
        let servers = virtual_servers.iter().flat_map(|(key, server)| {
            let endpoints = server.real_servers.iter().map(move |(at, to)| format!("{key} -> {at} {}", to.weight));
            endpoints.chain([format!("{key} {}", server.config)])
        });
        let elements = elements.iter().map(|(key, membership)| format!("{key} {membership:?}"));
        let allowed = allowed.iter().map(|(key, ranges)| format!("{key} {ranges:?}"));
        let rest = State { virtual_servers: [].into(), elements: [].into(), allowed: [].into(), ..state.clone() };
        let rest = format!("{rest:?}").replace("}, ", "},\n");
        let rest: Vec<String> = rest.lines().map(str::to_owned).collect();
        servers.chain(elements).chain(allowed).chain(rest).collect::<Vec<String>>()
    };
    let (one, other) = (lines(one), lines(other));
    let missing = one.iter().filter(|line| !other.contains(line)).map(|line| format!("- {line}\n"));
    let added = other.iter().filter(|line| !one.contains(line)).map(|line| format!("+ {line}\n"));
    missing.chain(added).collect()
}
