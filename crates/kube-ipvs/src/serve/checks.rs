//! `healthCheckNodePort`: a load balancer asks each node about one Service, at a port that only this Service has
//! (`externalTrafficPolicy: Local`).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{HeaderValue, request::Parts};
use proxier::{
    desired::HealthCheck,
    model::{PortNumber, ServiceId},
};
use serde_json::json;
use tokio::task::JoinHandle;

use super::{
    BIND_RETRY_INTERVAL, Call, Limits,
    callers::Callers,
    http::{Response, Site, listen, serve, verdict},
    status::Status,
};
use crate::events::{About, EventNote, PORT_UNAVAILABLE};

#[derive(Debug, Default)]
pub(super) struct News {
    /// The new check of each changed Service. None closes its port.
    pub(super) checks: BTreeMap<ServiceId, Option<HealthCheck>>,
    /// The node addresses to listen at, if they changed.
    pub(super) addresses: Option<Vec<IpAddr>>,
}

struct Checks {
    status: Arc<Status>,
    addresses: Vec<IpAddr>,
    open: BTreeMap<ServiceId, Check>,
    /// All ports share these places.
    callers: Arc<Callers>,
}

struct Check {
    port: PortNumber,
    local_endpoints: Arc<AtomicUsize>,
    listeners: BTreeMap<IpAddr, JoinHandle<()>>,
    /// Whether kube-ipvs has recorded that it cannot listen at an address.
    is_told: bool,
}

pub(super) async fn run(status: Arc<Status>, limits: Limits, owner: &(impl Fn(Call) + ?Sized)) {
    let mut checks = Checks {
        addresses: Vec::new(),
        open: BTreeMap::new(),
        callers: Callers::new(limits.caller, status.end.subscribe()),
        status: Arc::clone(&status),
    };
    loop {
        checks.take(status.take_check_news()).await;
        let unavailable = checks.open_all(owner);
        status.own.unavailable(unavailable);
        tokio::select! {
            () = status.check_news() => {}
            () = tokio::time::sleep(BIND_RETRY_INTERVAL), if unavailable > 0 => {}
            () = checks.callers.end() => return,
        }
    }
}

impl Checks {
    async fn take(&mut self, news: News) {
        // kube-ipvs closes ports before it opens others: another Service can take over a port at once.
        let mut closing = Vec::new();
        for (id, check) in news.checks {
            match (self.open.get_mut(&id), check) {
                (Some(open), Some(check)) if open.port == check.port => {
                    open.local_endpoints.store(check.local_endpoints, Ordering::Relaxed);
                    continue;
                }
                _ => closing.extend(self.open.remove(&id).map(|check| check.listeners).unwrap_or_default()),
            }
            if let Some(HealthCheck { port, local_endpoints, .. }) = check {
                let local_endpoints = Arc::new(AtomicUsize::new(local_endpoints));
                let check = Check { port, local_endpoints, listeners: BTreeMap::new(), is_told: false };
                self.open.insert(id, check);
            }
        }
        if let Some(addresses) = news.addresses {
            self.addresses = addresses;
            for check in self.open.values_mut() {
                closing.extend(check.listeners.extract_if(.., |at, _| !self.addresses.contains(at)));
            }
        }
        for (_, listener) in closing {
            listener.abort();
            // The error only reports that the task was aborted.
            let _ = listener.await;
        }
    }

    /// Returns the number of ports that could not be opened everywhere.
    fn open_all(&mut self, owner: &(impl Fn(Call) + ?Sized)) -> usize {
        let mut unavailable = 0;
        for (id, check) in &mut self.open {
            let before = check.is_told;
            let failure = check.open(id, &self.addresses, &self.status, &self.callers);
            check.is_told = failure.is_some();
            unavailable += usize::from(failure.is_some());
            if let Some(failure) = failure.filter(|_| !before) {
                let about = About::Service(id.clone());
                owner(Call::Record(EventNote { about, reason: PORT_UNAVAILABLE, note: failure }));
            }
        }
        unavailable
    }
}

impl Check {
    /// Returns the reason if the port cannot be opened at an address.
    fn open(
        &mut self,
        service: &ServiceId,
        addresses: &[IpAddr],
        status: &Arc<Status>,
        callers: &Arc<Callers>,
    ) -> Option<String> {
        let mut failure = None;
        for address in addresses {
            if self.listeners.contains_key(address) {
                continue;
            }
            let at = SocketAddr::new(*address, self.port.get());
            match listen(at) {
                Ok(listener) => {
                    let local_endpoints = Arc::clone(&self.local_endpoints);
                    let site = CheckSite { service: service.clone(), local_endpoints, status: Arc::clone(status) };
                    let serve = serve(listener, Arc::new(site), Arc::clone(callers));
                    self.listeners.insert(*address, tokio::spawn(serve));
                }
                Err(error) => failure = Some((at, error)),
            }
        }
        failure.map(|(at, error)| {
            format!(
                "cannot listen on {at}, its healthCheckNodePort: {error}. Its load balancer does not choose this node. \
                 kube-ipvs retries every {} s",
                BIND_RETRY_INTERVAL.as_secs()
            )
        })
    }
}

pub(super) const EVERYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Answers at every path.
struct CheckSite {
    service: ServiceId,
    local_endpoints: Arc<AtomicUsize>,
    status: Arc<Status>,
}

impl Site for CheckSite {
    async fn answer(&self, _: &Parts) -> Response {
        let local_endpoints = self.local_endpoints.load(Ordering::Relaxed);
        // If the kernel rejects a part of this Service, the other Services of the node stay healthy.
        let healthy = self.status.report().healthy && !self.status.lacks_something(&self.service);
        let body = json!({
            "service": { "namespace": &*self.service.namespace, "name": &*self.service.name },
            "localEndpoints": local_endpoints,
            "serviceProxyHealthy": healthy,
        });
        let mut response = verdict(local_endpoints > 0 && healthy, &body);
        let weight = HeaderValue::from(local_endpoints);
        response.headers_mut().insert("x-load-balancing-endpoint-weight", weight);
        response
    }
}
