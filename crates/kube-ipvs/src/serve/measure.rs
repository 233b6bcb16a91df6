//! Measurements for scrapes.
//!
//! The sync loop only lists the virtual servers of the Services with metrics. The counters come from the kernel, over a
//! separate socket, so a scrape delays no sync.

use std::{collections::BinaryHeap, fs, sync::Arc, time::Instant};

use ipvs_netlink::Stats;
use proxier::{
    Counts, Engine,
    kernel::KernelUnavailable,
    linux::{Operation, Subsystem},
    model::{Service, ServiceId, VirtualServerKey},
};
use tokio::{
    sync::{Mutex, oneshot},
    task::spawn_blocking,
    time::timeout,
};

use super::{
    Call, Limits,
    status::Status,
    traffic::{OfServices, Traffic},
};

/// The counters of virtual servers.
pub type Counters = Vec<(VirtualServerKey, Stats)>;

/// The sync loop's answer, which needs no call to the kernel.
#[derive(Debug, Default)]
struct Facts {
    counts: Counts,
    /// The oldest Services, with the keys of their virtual servers.
    services: Vec<(ServiceId, Vec<VirtualServerKey>)>,
    /// The number of Services beyond the limit.
    left_out: usize,
}

impl Facts {
    fn of(engine: &Engine, limit: usize) -> Self {
        let mut facts = Self { counts: engine.counts(), ..Self::default() };
        if limit == 0 {
            return facts;
        }
        // Headless Services have no virtual servers.
        let served = |service: &&Service| !service.cluster_ips.is_empty() && !service.ports.is_empty();
        let services = engine.cluster().services().filter(served);
        let mut oldest = BinaryHeap::new();
        for service in services.map(|service| (service.created, &service.id)) {
            if oldest.len() < limit {
                oldest.push(service);
                continue;
            }
            facts.left_out += 1;
            if let Some(mut newest) = oldest.peek_mut()
                && service < *newest
            {
                *newest = service;
            }
        }
        // Before its first sync, the keys of a Service are unknown. Counters of 0 would be wrong, because the kernel
        // can already have higher ones.
        let known = oldest.into_iter().map(|(_, id)| (id.clone(), engine.keys_of(id).to_vec()));
        facts.services = known.filter(|(_, keys)| !keys.is_empty()).collect();
        facts
    }
}

/// A scrape's question to the sync loop. If the sync loop drops it, the scrape uses the last answer.
#[derive(Debug)]
pub struct Ask {
    /// The maximum number of Services with metrics.
    limit: usize,
    answer: oneshot::Sender<Facts>,
}

impl Ask {
    /// Answers from the engine's state, without a call to the kernel. The cost is linear in the number of Services and
    /// virtual servers.
    pub fn answer(self, engine: &Engine) {
        // If the sync loop was busy for too long, the scrape does not wait any more.
        if !self.answer.is_closed() {
            let _ = self.answer.send(Facts::of(engine, self.limit));
        }
    }
}

pub(super) struct Measuring {
    limit: usize,
    owner: Arc<dyn Fn(Call) + Send + Sync>,
    status: Arc<Status>,
    limits: Limits,
    last: Arc<Mutex<Last>>,
}

impl Measuring {
    /// `owner` calls the sync loop. `read` reads the counters of those virtual servers that exist.
    pub(super) fn new(
        limit: usize,
        owner: Arc<dyn Fn(Call) + Send + Sync>,
        read: impl FnMut(&[VirtualServerKey]) -> Result<Counters, KernelUnavailable> + Send + 'static,
        status: Arc<Status>,
        limits: Limits,
    ) -> Self {
        let last = Arc::new(Mutex::new(Last::new(Box::new(read))));
        Self { limit, owner, status, limits, last }
    }

    /// Measures and publishes the result, unless the last measurement is still valid.
    pub(super) async fn measure(&self) {
        // One limit for the sync loop, and one for the kernel. If the kernel takes longer, the next scrape gets its
        // answer.
        let _ = timeout(self.limits.owner * 2, self.measure_once()).await;
    }

    async fn measure_once(&self) {
        // Scrapes queue for this lock. The reading thread holds it until it ends, so only one thread reads.
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if last.at.is_some_and(|at| at.elapsed() < self.limits.measurement) {
            return;
        }
        let (answer, facts) = oneshot::channel();
        (self.owner)(Call::Measure(Ask { limit: self.limit, answer }));
        // A busy or ending sync loop does not answer. Its last answer still names most of the virtual servers.
        if let Ok(Ok(facts)) = timeout(self.limits.owner, facts).await {
            last.facts = facts;
        }
        let status = Arc::clone(&self.status);
        // A query can block on a lock of the kernel, and must not block the other callers of this thread.
        let _ = spawn_blocking(move || last.measure(&status)).await;
    }
}

/// The number of conntrack entries in this network namespace, and the limit.
fn conntrack() -> Option<(i64, i64)> {
    let number =
        |name| fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}")).ok()?.trim().parse().ok();
    Some((number("count")?, number("max")?))
}

type Read = Box<dyn FnMut(&[VirtualServerKey]) -> Result<Counters, KernelUnavailable> + Send>;

/// The last measurement, and the inputs of the next one.
struct Last {
    at: Option<Instant>,
    facts: Facts,
    traffic: Traffic,
    read: Read,
    is_unreadable: bool,
}

impl Last {
    fn new(read: Read) -> Self {
        Self { at: None, facts: Facts::default(), traffic: Traffic::default(), read, is_unreadable: false }
    }

    fn measure(&mut self, status: &Status) {
        let Facts { counts, services, left_out } = &self.facts;
        status.own.counts(*counts);
        status.own.conntrack(conntrack());
        let keys: Vec<VirtualServerKey> = services.iter().flat_map(|(_, keys)| keys).copied().collect();
        let start = Instant::now();
        let read = (self.read)(&keys);
        status.own.spent(Subsystem::Ipvs, Operation::Read, start.elapsed());
        match &read {
            Err(error) if !self.is_unreadable => {
                tracing::warn!("cannot read the counters of Services, so their metrics stay as they are: {error}");
            }
            Ok(_) if self.is_unreadable => tracing::info!("the counters of Services can be read again"),
            _ => {}
        }
        self.is_unreadable = read.is_err();
        if let Ok(counters) = read {
            let sums = self.traffic.take(services, counters);
            status.services.set(OfServices { sums, left_out: *left_out });
        }
        self.at = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        io::{self, Write},
        time::Duration,
    };

    use parking_lot::Mutex;
    use proxier::{
        Completeness, Config,
        fake::FakeKernel,
        model::{Event, Protocol, ServicePort},
    };

    use super::*;

    fn service(name: &str, created: i64, ports: &[u16]) -> Event {
        let port = |number: &u16| ServicePort::new(number.to_string(), Protocol::Tcp, (*number).try_into().unwrap());
        Event::ServiceApplied(Service {
            created,
            cluster_ips: vec![format!("10.96.0.{}", name.len()).parse().unwrap()],
            ports: ports.iter().map(port).collect(),
            ..Service::new(ServiceId::new("default", name))
        })
    }

    #[test]
    fn oldest_services_up_to_the_limit_are_chosen_with_their_keys() {
        let mut engine = Engine::new(Config::new("node-1"), BTreeSet::new());
        engine.set_complete(Completeness::Complete);
        let headless = Service::new(ServiceId::new("default", "headless"));
        let services = [service("a", 5, &[80]), service("bb", 4, &[80, 81]), service("ccc", 5, &[80])];
        services.into_iter().chain([Event::ServiceApplied(headless)]).for_each(|event| engine.apply(event));
        let check = |engine: &Engine, limit, expected: &[&str], left_out| {
            let Facts { mut services, left_out: found, .. } = Facts::of(engine, limit);
            services.sort_unstable();
            let text = |(id, keys): &(ServiceId, Vec<VirtualServerKey>)| {
                keys.iter().fold(id.name.to_string(), |text, key| format!("{text} {key}"))
            };
            let services: Vec<String> = services.iter().map(text).collect();
            assert_eq!((&*services, found), (&*expected.iter().map(ToString::to_string).collect::<Vec<_>>(), left_out));
        };
        check(&engine, 2, &[], 1);
        engine.sync(&mut FakeKernel::default(), Duration::ZERO);
        let (a, b, c) = ("a TCP 10.96.0.1:80", "bb TCP 10.96.0.2:80 TCP 10.96.0.2:81", "ccc TCP 10.96.0.3:80");
        check(&engine, 3, &[a, b, c], 0);
        check(&engine, 2, &[a, b], 1);
        check(&engine, 1, &[b], 2);
        check(&engine, 0, &[], 0);
        engine.apply(Event::ServiceRemoved(ServiceId::new("default", "bb")));
        check(&engine, 1, &[a], 1);
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn unreadable_counters_are_logged_once_and_again_when_they_recover() {
        let mut outcomes = [true, false, false, true, true, false].into_iter();
        let mut last = Last::new(Box::new(move |_| match outcomes.next() {
            Some(true) => Ok(Vec::new()),
            _ => Err(KernelUnavailable::new("IPVS", "gone")),
        }));
        let status = Status::new(&crate::config::Configuration::default());
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).without_time().with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, || (0..6).for_each(|_| last.measure(&status)));
        let log = String::from_utf8(log.0.lock().clone()).unwrap();
        let levels: Vec<_> = log.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(levels, ["WARN", "INFO", "WARN"], "{log}");
        assert!(log.contains("IPVS: gone"), "{log}");
    }
}
