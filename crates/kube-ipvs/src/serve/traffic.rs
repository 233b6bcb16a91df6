use std::{
    collections::{BTreeMap, HashMap},
    mem::take,
};

use ipvs_netlink::Stats;
use proxier::model::{ServiceId, VirtualServerKey};

/// Adds up the counters of virtual servers by Service.
///
/// If a virtual server is created again, the kernel counts from 0 again. If one is removed, its counts are lost.
/// Neither decreases the counters that kube-ipvs reports for a Service.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// The counters of the last read.
    servers: HashMap<VirtualServerKey, Stats>,
    services: BTreeMap<ServiceId, Stats>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct OfServices {
    /// The oldest Services, sorted by name.
    pub(super) sums: Vec<(ServiceId, Stats)>,
    pub(super) left_out: usize,
}

impl Traffic {
    /// Adds the counters of the virtual servers that exist, and forgets all other Services. Returns the sums, sorted by
    /// name.
    pub(super) fn take(
        &mut self,
        services: &[(ServiceId, Vec<VirtualServerKey>)],
        read: Vec<(VirtualServerKey, Stats)>,
    ) -> Vec<(ServiceId, Stats)> {
        let before = std::mem::replace(&mut self.servers, read.into_iter().collect());
        let mut sums = take(&mut self.services);
        for (service, keys) in services {
            let mut sum = sums.remove(service).unwrap_or_default();
            for (key, now) in keys.iter().filter_map(|key| self.servers.get_key_value(key)) {
                add(&mut sum, now, before.get(key).unwrap_or(&Stats::default()));
            }
            self.services.insert(service.clone(), sum);
        }
        self.services.iter().map(|(service, sum)| (service.clone(), *sum)).collect()
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

    /// The virtual servers of `a` and `b`.
    const KEYS: [(&str, &[u16]); 2] = [("a", &[1, 2]), ("b", &[101])];

    fn services(names: &[&str]) -> Vec<(ServiceId, Vec<VirtualServerKey>)> {
        let services = KEYS.into_iter().filter(|(name, _)| names.contains(name));
        services.map(|(name, ports)| (service(name), ports.iter().copied().map(key).collect())).collect()
    }

    fn take(traffic: &mut Traffic, names: &[&str], read: &[(u16, Stats)]) -> Vec<(ServiceId, (u64, u64))> {
        let read = read.iter().map(|(port, stats)| (key(*port), *stats)).collect();
        let sums = traffic.take(&services(names), read).into_iter();
        sums.map(|(id, Stats { connections, bytes_in, .. })| (id, (connections, bytes_in))).collect()
    }

    #[test]
    fn service_counters_sum_virtual_servers_and_never_decrease() {
        let mut traffic = Traffic::default();
        let mut check = |read: &[(u16, Stats)], expected: (u64, u64)| {
            assert_eq!(take(&mut traffic, &["a"], read), [(service("a"), expected)], "{read:?}");
        };
        check(&[], (0, 0));
        check(&[(1, stats(3, 30)), (2, stats(4, 40))], (7, 70));
        check(&[(1, stats(3, 30)), (2, stats(5, 50))], (8, 80));
        // A virtual server was created again.
        check(&[(1, stats(2, 90)), (2, stats(5, 50))], (10, 170));
        // It was removed, and was created again with higher counters.
        check(&[(2, stats(5, 50))], (10, 170));
        check(&[(1, stats(3, 100)), (2, stats(6, 60))], (14, 280));
    }

    #[test]
    fn removed_service_is_forgotten() {
        let mut traffic = Traffic::default();
        let (a, b) = ((1, stats(1, 10)), (101, stats(2, 20)));
        let (of_a, of_b) = ((service("a"), (1, 10)), (service("b"), (2, 20)));
        assert_eq!(take(&mut traffic, &["a", "b"], &[a, b]), [of_a.clone(), of_b.clone()]);
        assert_eq!(take(&mut traffic, &["b"], &[b]), [of_b]);
        assert_eq!(take(&mut traffic, &["a"], &[a]), [of_a]);
    }

    #[test]
    fn virtual_server_adds_only_later_counts_to_its_new_service() {
        let mut traffic = Traffic::default();
        let of = |name: &str, port| (service(name), vec![key(port)]);
        traffic.take(&[of("a", 1), of("b", 2)], vec![(key(1), stats(7, 70))]);
        let sums = traffic.take(&[of("b", 1)], vec![(key(1), stats(8, 80))]);
        assert_eq!(sums, [(service("b"), stats(1, 10))]);
    }
}
