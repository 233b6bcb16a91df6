use std::collections::{BTreeMap, HashMap};

use ipvs_netlink::Stats;
use proxier::model::{ServiceId, Timestamp, VirtualServerKey};

/// Adds up the counters of virtual servers by Service.
///
/// If a virtual server is created again, the kernel counts from 0 again. If one is removed, its counts are lost. The
/// counters that kube-ipvs reports for a Service never decrease because of that.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// The counters of the last dump.
    servers: HashMap<VirtualServerKey, Stats>,
    services: BTreeMap<ServiceId, Stats>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct OfServices {
    /// The oldest Services, sorted by name.
    pub(super) told: Vec<(ServiceId, Stats)>,
    pub(super) left_out: usize,
}

impl Traffic {
    /// Adds the counters of a dump.
    ///
    /// `owner` returns the Service of a virtual server. A dump of IPVS can miss an existing virtual server.
    pub(super) fn take(
        &mut self,
        read: Vec<(VirtualServerKey, Stats)>,
        owner: impl Fn(&VirtualServerKey) -> Option<ServiceId>,
    ) {
        for (key, now) in read {
            let Some(service) = owner(&key) else { continue };
            let before = self.servers.insert(key, now).unwrap_or_default();
            add(self.services.entry(service).or_default(), &now, &before);
        }
        self.servers.retain(|key, _| owner(key).is_some());
    }

    /// Returns the counters of the `limit` oldest Services. `created` returns when a Service was created. If it returns
    /// None, the Service is gone, and its counters are forgotten.
    pub(super) fn tell(&mut self, limit: usize, created: impl Fn(&ServiceId) -> Option<Timestamp>) -> OfServices {
        self.services.retain(|service, _| created(service).is_some());
        let mut oldest: Vec<_> = self.services.keys().map(|service| (created(service), service)).collect();
        oldest.sort_unstable();
        let left_out = oldest.len().saturating_sub(limit);
        oldest.truncate(limit);
        let mut told: Vec<_> =
            oldest.into_iter().map(|(_, service)| (service.clone(), self.services[service])).collect();
        told.sort_unstable();
        OfServices { told, left_out }
    }
}

fn add(sum: &mut Stats, now: &Stats, before: &Stats) {
    // All counters of a virtual server start at 0 together, so a decrease of one means a new virtual server.
    let counters = |stats: &Stats| {
        let Stats { connections, packets_in, packets_out, bytes_in, bytes_out, rates: _ } = *stats;
        [connections, packets_in, packets_out, bytes_in, bytes_out]
    };
    let is_new = counters(now).iter().zip(counters(before)).any(|(now, before)| *now < before);
    let before = if is_new { [0; 5] } else { counters(before) };
    let Stats { connections, packets_in, packets_out, bytes_in, bytes_out, rates: _ } = sum;
    let sums = [connections, packets_in, packets_out, bytes_in, bytes_out];
    for ((sum, now), before) in sums.into_iter().zip(counters(now)).zip(before) {
        *sum += now - before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> VirtualServerKey {
        let protocol = proxier::model::Protocol::Tcp;
        VirtualServerKey { address: "10.96.0.1".parse().unwrap(), protocol, port: port.try_into().unwrap() }
    }

    fn stats(connections: u64, bytes_in: u64) -> Stats {
        Stats { connections, bytes_in, ..Stats::default() }
    }

    fn service(name: &str) -> ServiceId {
        ServiceId::new("default", name)
    }

    /// Virtual servers below port 100 belong to `a`, below 200 to `b`, and the others to another program.
    fn owner(key: &VirtualServerKey) -> Option<ServiceId> {
        ["a", "b"].get(usize::from(key.port.get() / 100)).map(|name| service(name))
    }

    #[test]
    fn service_counters_sum_virtual_servers_and_never_decrease() {
        let mut traffic = Traffic::default();
        let mut check = |read: &[(u16, Stats)], expected: (u64, u64)| {
            traffic.take(read.iter().map(|(port, stats)| (key(*port), *stats)).collect(), owner);
            let told = traffic.tell(10, |_| Some(0)).told;
            let (id, Stats { connections, bytes_in, .. }) = told[0].clone();
            assert_eq!((id, (connections, bytes_in)), (service("a"), expected), "{read:?}");
        };
        check(&[(1, stats(3, 30)), (2, stats(4, 40)), (200, stats(9, 9))], (7, 70));
        check(&[(1, stats(3, 30)), (2, stats(5, 50))], (8, 80));
        // A dump can miss a virtual server.
        check(&[(2, stats(5, 50))], (8, 80));
        check(&[(1, stats(4, 40)), (2, stats(5, 50))], (9, 90));
        // A virtual server was created again.
        check(&[(1, stats(2, 90)), (2, stats(5, 50))], (11, 180));
    }

    #[test]
    fn traffic_reports_the_oldest_services_up_to_the_limit() {
        let mut traffic = Traffic::default();
        traffic.take(vec![(key(1), stats(1, 0)), (key(100), stats(2, 0))], owner);
        let created = |age: [Option<i64>; 2]| move |id: &ServiceId| age[usize::from(*id.name == *"b")];
        let mut check = |limit, ages, expected: &[&str], left_out| {
            let OfServices { told, left_out: found } = traffic.tell(limit, created(ages));
            let names: Vec<_> = told.iter().map(|(id, _)| &*id.name).collect();
            assert_eq!((&*names, found), (expected, left_out));
        };
        check(2, [Some(5), Some(4)], &["a", "b"], 0);
        check(1, [Some(5), Some(4)], &["b"], 1);
        check(1, [Some(4), Some(4)], &["a"], 1);
        check(2, [None, Some(4)], &["b"], 0);
        check(2, [Some(5), Some(4)], &["b"], 0);
    }
}
