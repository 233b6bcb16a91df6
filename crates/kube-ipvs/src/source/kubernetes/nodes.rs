//! The addresses of the other Nodes: an external or load-balancer IP that is one of them must not be bound here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::pending,
    net::IpAddr,
    time::Duration,
};

use kube::Client;
use proxier::model::{Event, Node, Service, ServiceId};
use tokio::{
    task::{JoinError, JoinHandle},
    time::{Instant, sleep, timeout},
};

use super::{
    failure::Failure,
    limits::Limits,
    list::{Age, Collection},
    resource::Resource,
};

/// How long what is known of other Nodes is good for.
const CACHE_TTL: Duration = Duration::from_secs(600);
/// When a list that failed is asked for again.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// How much each known Node adds to the time by which a list is put off: what all nodes of a cluster ask for together
/// grows with the square of their number.
const DELAY_PER_NODE: Duration = Duration::from_millis(10);
/// How many Nodes there may be as long as none are known.
const ASSUMED_NODES: u32 = 500;

type Listed = Result<Vec<Node>, Failure>;

/// Nodes are many, and each changes every few minutes: they are never watched. They are listed when a Service has an
/// address from outside that it did not have before, which in most clusters is seldom or never. Until then that Service
/// is held back, and nothing else is.
pub(super) struct OtherNodes {
    client: Client,
    own: Box<str>,
    limits: Limits,
    known: BTreeSet<Box<str>>,
    /// The addresses from outside of Services that went on.
    outer: HashMap<ServiceId, BTreeSet<IpAddr>>,
    /// Services that wait for the list.
    held: BTreeMap<ServiceId, Event>,
    /// The list that is under way or put off.
    listing: Option<JoinHandle<Listed>>,
    /// Until when what is known is good enough.
    fresh: Option<Instant>,
    /// Whether the last list failed: until one succeeds, Services are not held back.
    is_failing: bool,
    /// How many lists have failed since one succeeded.
    failures: u32,
}

impl OtherNodes {
    pub(super) fn new(client: Client, own: &str, limits: Limits) -> Self {
        Self {
            client,
            own: own.into(),
            limits,
            known: BTreeSet::new(),
            outer: HashMap::new(),
            held: BTreeMap::new(),
            listing: None,
            fresh: None,
            is_failing: false,
            failures: 0,
        }
    }

    /// The first delivery, with the Nodes before the Services: all is delivered at once, so that it waits for the list,
    /// but not for long.
    pub(super) async fn first(&mut self, events: Vec<Event>) -> Vec<Event> {
        let mut events = self.pass(events);
        if !self.held.is_empty() {
            self.list_after(Duration::ZERO);
            match timeout(self.limits.nodes, self.listed()).await {
                Ok(listed) => events.extend(self.learn(listed)),
                // The list goes on: an API server that is slow would only get more to do by another one.
                Err(_) => {
                    self.is_failing = true;
                    events.extend(self.release());
                }
            }
        }
        events
    }

    /// Which events go on now.
    pub(super) fn pass(&mut self, events: Vec<Event>) -> Vec<Event> {
        let events = events.into_iter().filter_map(|event| self.pass_one(event)).collect();
        if !self.held.is_empty() && self.listing.is_none() {
            let nodes = u32::try_from(self.known.len()).ok().filter(|count| *count > 0).unwrap_or(ASSUMED_NODES);
            self.list_after(DELAY_PER_NODE.saturating_mul(nodes).min(self.limits.spread).mul_f64(fastrand::f64()));
        }
        events
    }

    fn pass_one(&mut self, event: Event) -> Option<Event> {
        match &event {
            Event::ServiceApplied(service) => {
                let id = service.id.clone();
                self.held.remove(&id);
                let outer = outer_addresses(service);
                let known = self.outer.get(&id);
                let is_new = outer.iter().any(|address| !known.is_some_and(|known| known.contains(address)));
                let is_fresh = self.fresh.is_some_and(|until| Instant::now() < until);
                if is_new && !is_fresh && !self.is_failing {
                    self.held.insert(id, event);
                    return None;
                }
                self.note(id, outer);
            }
            Event::ServiceRemoved(id) => {
                self.held.remove(id);
                self.outer.remove(id);
            }
            _ => {}
        }
        Some(event)
    }

    fn note(&mut self, id: ServiceId, outer: BTreeSet<IpAddr>) {
        if outer.is_empty() {
            self.outer.remove(&id);
        } else {
            self.outer.insert(id, outer);
        }
    }

    fn list_after(&mut self, delay: Duration) {
        if let Some(listing) = self.listing.take() {
            listing.abort();
        }
        let nodes = Collection::new(self.client.clone(), Resource::OwnNode, None, self.limits);
        let own = self.own.clone();
        self.listing = Some(tokio::spawn(async move {
            sleep(delay).await;
            list(nodes, &own).await
        }));
    }

    /// The outcome of the list that is under way, when it is there. It can be waited for again and again.
    pub(super) async fn listed(&mut self) -> Listed {
        let Some(listing) = &mut self.listing else { return pending().await };
        let outcome: Result<Listed, JoinError> = listing.await;
        self.listing = None;
        match outcome {
            Ok(listed) => listed,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Failure::Closed),
        }
    }

    /// What follows from a list: the Nodes, and the Services that waited for them.
    pub(super) fn learn(&mut self, listed: Listed) -> Vec<Event> {
        self.is_failing = listed.is_err();
        let mut events = Vec::new();
        match listed {
            Ok(nodes) => {
                self.fresh = Some(Instant::now() + CACHE_TTL);
                self.failures = 0;
                let names: BTreeSet<Box<str>> = nodes.iter().map(|node| node.name.clone()).collect();
                events.extend(self.known.difference(&names).cloned().map(Event::NodeRemoved));
                events.extend(nodes.into_iter().map(Event::NodeApplied));
                self.known = names;
            }
            Err(failure) => {
                if self.failures == 0 {
                    tracing::warn!(
                        "cannot list the Nodes: {failure}; will retry. An external IP that is the address of another Node would \
                         cut that Node off from this one"
                    );
                }
                let pause = pause(self.failures).max(failure.retry_after().unwrap_or_default().min(CACHE_TTL));
                self.list_after(pause.mul_f64(1.0 + fastrand::f64()));
                self.failures += 1;
            }
        }
        events.extend(self.release());
        events
    }

    fn release(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for (id, event) in std::mem::take(&mut self.held) {
            if let Event::ServiceApplied(service) = &event {
                self.note(id, outer_addresses(service));
            }
            events.push(event);
        }
        events
    }
}

/// How long to wait after so many failures before the next list, and chance adds as much at most.
fn pause(failures: u32) -> Duration {
    RETRY_INTERVAL.saturating_mul(2_u32.saturating_pow(failures)).min(CACHE_TTL)
}

/// All Nodes but our own.
async fn list(mut nodes: Collection, own: &str) -> Listed {
    let listed = nodes.list(&Age::Any).await?;
    let read = listed.objects.into_iter().filter_map(|object| match object.content {
        Ok(Some(Event::NodeApplied(node))) => Some(node),
        Ok(_) => None,
        Err(reason) => {
            tracing::debug!("a Node that cannot be read: {}", reason.message);
            None
        }
    });
    Ok(read.filter(|node| *node.name != *own).collect())
}

fn outer_addresses(service: &Service) -> BTreeSet<IpAddr> {
    service.external_ips.iter().chain(&service.load_balancer_ips).copied().collect()
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use tower::{BoxError, service_fn};

    use super::*;

    fn service(name: &str, outer: &[&str]) -> Event {
        let mut service = Service::new(ServiceId::new("default", name));
        service.external_ips = outer.iter().map(|address| address.parse().unwrap()).collect();
        Event::ServiceApplied(service)
    }

    /// The names of Services and Nodes.
    fn names(events: Vec<Event>) -> Vec<String> {
        let name = |event: Event| match event {
            Event::ServiceApplied(service) => format!("+{}", service.id.name),
            Event::ServiceRemoved(id) => format!("-{}", id.name),
            Event::NodeApplied(node) => format!("+{}", node.name),
            other => format!("{other:?}"),
        };
        events.into_iter().map(name).collect()
    }

    /// With an API server that never answers.
    fn nodes() -> OtherNodes {
        let silent = service_fn(|_: Request<Body>| pending::<Result<Response<Body>, BoxError>>());
        OtherNodes::new(Client::new(silent, "default"), "node-1", Limits::default())
    }

    #[tokio::test]
    async fn only_a_service_with_a_new_outer_address_waits_for_the_nodes() {
        let mut nodes = nodes();
        let mut check = |events: Vec<Event>| names(nodes.pass(events));
        assert_eq!(check(vec![service("web", &[]), service("outer", &["192.0.2.1"])]), ["+web"]);
        // It waits on, as it is by then; and what is gone does not wait.
        assert!(check(vec![service("outer", &["192.0.2.2"]), service("gone", &["192.0.2.3"])]).is_empty());
        assert_eq!(check(vec![Event::ServiceRemoved(ServiceId::new("default", "gone"))]), ["-gone"]);
        let node = Node {
            name: "node-2".into(),
            internal_ips: Vec::new(),
            addresses: Vec::new(),
            zone: None,
            pod_cidrs: Vec::new(),
            leaving: false,
        };
        assert_eq!(names(nodes.learn(Ok(vec![node]))), ["+node-2", "+outer"]);
        let mut check = |events: Vec<Event>| names(nodes.pass(events));
        // What is known is good for a while, and what has not changed was looked at.
        assert_eq!(check(vec![service("late", &["192.0.2.4"])]), ["+late"]);
        nodes.fresh = None;
        let mut check = |events: Vec<Event>| names(nodes.pass(events));
        assert_eq!(check(vec![service("late", &["192.0.2.4"])]), ["+late"]);
        assert!(check(vec![service("late", &["192.0.2.4", "192.0.2.5"])]).is_empty());
    }

    #[tokio::test]
    async fn a_list_that_fails_holds_nothing_back() {
        let mut nodes = nodes();
        assert!(nodes.pass(vec![service("outer", &["192.0.2.1"])]).is_empty());
        assert_eq!(names(nodes.learn(Err(Failure::Closed))), ["+outer"]);
        assert_eq!(names(nodes.pass(vec![service("other", &["192.0.2.2"])])), ["+other"]);
        assert!(nodes.listing.is_some());
    }
}
