//! The addresses of the other Nodes. If an external or load-balancer IP is one of them, this node must not bind it.

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

const CACHE_TTL: Duration = Duration::from_secs(600);
const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// How much each known Node adds to the longest delay of a list. Every node lists all Nodes, so the load on the API
/// server grows with the square of their number.
const DELAY_PER_NODE: Duration = Duration::from_millis(10);
/// The number of Nodes that kube-ipvs assumes before the first list.
const ASSUMED_NODES: u32 = 500;

type Listed = Result<Vec<Node>, Failure>;

/// Clusters have many Nodes, and each changes every few minutes, so kube-ipvs never watches them. It lists them when a
/// Service gets a new external or load-balancer IP, which is rare. Until then it holds back that Service only.
pub(super) struct OtherNodes {
    client: Client,
    own: Box<str>,
    limits: Limits,
    known: BTreeSet<Box<str>>,
    /// The external and load-balancer IPs of delivered Services.
    outer: HashMap<ServiceId, BTreeSet<IpAddr>>,
    /// Services that wait for the list.
    held: BTreeMap<ServiceId, Event>,
    listing: Option<JoinHandle<Listed>>,
    /// Until when the last list stays valid.
    fresh: Option<Instant>,
    /// Whether the last list failed. kube-ipvs holds back no Service until a list succeeds.
    is_failing: bool,
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

    /// Puts the Nodes before the Services. The first delivery is atomic, so all of it waits for the list, with a limit.
    pub(super) async fn first(&mut self, events: Vec<Event>) -> Vec<Event> {
        let mut events = self.pass(events);
        if !self.held.is_empty() {
            self.list_after(Duration::ZERO);
            match timeout(self.limits.nodes, self.listed()).await {
                Ok(listed) => events.extend(self.learn(listed)),
                // The list continues: another one would only add load to a slow API server.
                Err(_) => {
                    self.is_failing = true;
                    events.extend(self.release());
                }
            }
        }
        events
    }

    /// Returns the events that need not wait for a list.
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

    /// Waits for the running list. Cancel safe.
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

    /// Returns the Nodes, and then the Services that waited for them.
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
                        "cannot list the Nodes: {failure}. kube-ipvs retries. Until then, an external IP that is the \
                         address of another Node cuts that Node off from this one"
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

/// Without the random part, which can double it.
fn pause(failures: u32) -> Duration {
    RETRY_INTERVAL.saturating_mul(2_u32.saturating_pow(failures)).min(CACHE_TTL)
}

async fn list(mut nodes: Collection, own: &str) -> Listed {
    let listed = nodes.list(&Age::Any).await?;
    let read = listed.objects.into_iter().filter_map(|object| match object.content {
        Ok(Some(Event::NodeApplied(node))) => Some(node),
        Ok(_) => None,
        Err(reason) => {
            tracing::debug!("kube-ipvs ignores an invalid Node: {}", reason.message);
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

    fn names(events: Vec<Event>) -> Vec<String> {
        let name = |event: Event| match event {
            Event::ServiceApplied(service) => format!("+{}", service.id.name),
            Event::ServiceRemoved(id) => format!("-{}", id.name),
            Event::NodeApplied(node) => format!("+{}", node.name),
            other => format!("{other:?}"),
        };
        events.into_iter().map(name).collect()
    }

    fn nodes() -> OtherNodes {
        let silent = service_fn(|_: Request<Body>| pending::<Result<Response<Body>, BoxError>>());
        OtherNodes::new(Client::new(silent, "default"), "node-1", Limits::default())
    }

    #[tokio::test]
    async fn only_service_with_a_new_external_ip_waits_for_the_nodes() {
        let mut nodes = nodes();
        let mut check = |events: Vec<Event>| names(nodes.pass(events));
        assert_eq!(check(vec![service("web", &[]), service("outer", &["192.0.2.1"])]), ["+web"]);
        // A held Service waits on in its new version. A deleted Service no longer waits.
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
        // A list stays valid for a while. Known addresses need no other list.
        assert_eq!(check(vec![service("late", &["192.0.2.4"])]), ["+late"]);
        nodes.fresh = None;
        let mut check = |events: Vec<Event>| names(nodes.pass(events));
        assert_eq!(check(vec![service("late", &["192.0.2.4"])]), ["+late"]);
        assert!(check(vec![service("late", &["192.0.2.4", "192.0.2.5"])]).is_empty());
    }

    #[tokio::test]
    async fn failed_node_list_holds_back_no_service() {
        let mut nodes = nodes();
        assert!(nodes.pass(vec![service("outer", &["192.0.2.1"])]).is_empty());
        assert_eq!(names(nodes.learn(Err(Failure::Closed))), ["+outer"]);
        assert_eq!(names(nodes.pass(vec![service("other", &["192.0.2.2"])])), ["+other"]);
        assert!(nodes.listing.is_some());
    }
}
