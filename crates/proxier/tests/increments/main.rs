//! Incremental syncs, in any order, end in the state of one full sync of the same objects. Whatever the kernel answers,
//! the engine knows the kernel's state.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod faults;
mod world;

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    slice,
    time::Duration,
};

use faults::{Faults, Others};
use proptest::prelude::*;
use proxier::{Completeness, Config, Engine, PodSources, State, SyncReport, fake::FakeKernel, model::Event};

fn config() -> Config {
    Config {
        sync_period: Duration::MAX / 4,
        pod_sources: PodSources::OwnNode,
        scoped_arp: true,
        localhost_node_ports: true,
        reserved_ports: vec![443..=443],
        ..Config::new("node-1")
    }
}

/// An engine with complete caches.
fn new_engine() -> Engine {
    let mut engine = Engine::new(config(), BTreeSet::new());
    engine.set_complete(Completeness::Complete);
    engine
}

struct Node {
    engine: Engine,
    kernel: FakeKernel,
    now: Duration,
    /// Whether the engine cannot know the kernel's state. Since the last complete read, a dump had gaps, an answer was
    /// lost, or another program changed the state.
    is_misled: bool,
}

impl Node {
    fn new() -> Self {
        let (engine, kernel) = (new_engine(), FakeKernel::default());
        Self { engine, kernel, now: Duration::ZERO, is_misled: false }
    }

    /// Applies events and syncs, a second after the last sync.
    fn sync(&mut self, events: &[Event]) -> Result<SyncReport, TestCaseError> {
        events.iter().cloned().for_each(|event| self.engine.apply(event));
        let has_gaps = !self.kernel.unlisted.is_empty();
        self.now += Duration::from_secs(1);
        let report = self.engine.sync(&mut self.kernel, self.now);
        if report.is_full {
            self.is_misled = has_gaps;
        }
        let has_unknown = !self.kernel.unconfirmed.is_empty() || !self.kernel.unanswered.is_empty();
        self.is_misled |= !report.failures.is_empty() && has_unknown;
        if let Some(known) = self.engine.known().filter(|_| !self.is_misled) {
            // Dumps do not show ownership that only the engine remembers.
            let known = State { owned: [].into(), owned_vips: [].into(), ..known.clone() };
            prop_assert_eq!(known, self.kernel.state(), "after\n{}", report.plan);
        }
        Ok(report)
    }

    /// The kernel's state without draining real servers, which depend on the history.
    fn settled(&self) -> State {
        let mut state = self.kernel.state();
        for server in state.virtual_servers.values_mut() {
            server.real_servers.retain(|_, real_server| real_server.weight > 0);
        }
        state
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(world::event(), 1..4)
}

fn last_events(syncs: impl IntoIterator<Item = Vec<Event>>) -> Vec<Event> {
    let mut last: Vec<Event> = Vec::new();
    for event in syncs.into_iter().flatten() {
        last.retain(|old| old.object() != event.object());
        last.push(event);
    }
    last
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn incremental_syncs_end_in_the_state_of_a_full_sync(
        syncs in prop::collection::vec(events(), 1..20),
        order in any::<u64>(),
        compares in any::<bool>(),
    ) {
        let mut node = Node::new();
        for events in &syncs {
            let report = node.sync(events)?;
            prop_assert_eq!(&report.failures, &[]);
            if compares {
                // The sync skipped no Service that the events affect.
                let (left, _) = node.engine.plan(node.kernel.state(), node.now);
                prop_assert!(left.is_empty(), "{}", left);
            }
        }
        prop_assert_eq!(node.kernel.reads, 1);
        // The engine makes no object twice, and changes or removes no missing object.
        prop_assert_eq!(&node.kernel.repeated, &[]);

        // One full sync of the same objects in another order.
        let mut last = last_events(syncs);
        let hasher = BuildHasherDefault::<DefaultHasher>::new();
        last.sort_by_cached_key(|event| hasher.hash_one((order, event.object())));
        let mut full = Node::new();
        full.sync(&last)?;
        prop_assert_eq!(node.settled(), full.settled());

        // One sync for each object.
        let mut single = Node::new();
        for event in &last {
            single.sync(slice::from_ref(event))?;
        }
        prop_assert_eq!(single.settled(), full.settled());

        // A restarted engine changes nothing, except for draining real servers.
        let mut restarted = new_engine();
        last.into_iter().for_each(|event| restarted.apply(event));
        let (plan, _) = restarted.plan(full.kernel.state(), Duration::ZERO);
        prop_assert!(plan.is_empty(), "{}", plan);
    }

    #[test]
    fn failed_changes_are_repaired_once_the_kernel_works(
        steps in prop::collection::vec((events(), faults::faults(3), Just(None)), 1..12),
    ) {
        ends_well(steps)?;
    }

    /// Dumps have no gaps here. Only the record's file can repair gaps together with changes by other programs.
    #[test]
    fn changes_by_other_programs_are_repaired(
        steps in prop::collection::vec((events(), faults::faults(0), faults::others()), 1..12),
    ) {
        ends_well(steps)?;
    }
}

/// Events, the faults during their sync, and another program's change before it.
type Step = (Vec<Event>, Faults, Option<Others>);

/// After all steps, a kernel without faults ends in the state of one full sync of the same objects.
fn ends_well(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut node = Node::new();
    for (events, faults, others) in &steps {
        faults.clone().inject(&mut node.kernel);
        if let Some(others) = others {
            others.act(&mut node.kernel);
            node.engine.verify_at(node.now);
            node.is_misled = true;
        }
        node.sync(events)?;
    }
    Faults::default().inject(&mut node.kernel);
    while !node.engine.is_healthy() {
        node.now = node.now.max(node.engine.next_sync());
        let report = node.sync(&[])?;
        prop_assert!(report.failures.is_empty() || node.is_misled, "{:?}", report.failures);
    }
    node.engine.verify_at(node.now);
    let audit = node.sync(&[])?;
    prop_assert!(audit.is_full && audit.failures.is_empty(), "{:?}", audit.failures);
    let mut full = Node::new();
    full.sync(&last_events(steps.into_iter().map(|(events, ..)| events)))?;
    prop_assert_eq!(node.settled(), full.settled());
    Ok(())
}
