use super::{super::holds, *};
use crate::testing::key;

fn kube_proxy(entries: &[(&str, &str)]) -> KubeProxyState {
    let mut kube_proxy = KubeProxyState::default();
    for (set, entry) in entries {
        let entry = match entry.split_once(',') {
            Some((address, rest)) => {
                let (protocol, port) = rest.split_once(':').unwrap();
                Entry {
                    address: Some(address.parse().unwrap()),
                    protocol: Some(protocol.to_uppercase().parse().unwrap()),
                    port: Some(port.parse().unwrap()),
                }
            }
            None => Entry { address: entry.parse().ok(), protocol: None, port: entry.parse().ok() },
        };
        kube_proxy.add(holds(set).unwrap(), entry);
    }
    kube_proxy
}

const SERVERS: [&str; 8] = [
    "TCP 10.96.0.1:443",
    "UDP 10.96.0.10:53",
    "TCP 192.168.0.1:30080",
    "SCTP 192.168.0.1:30080",
    "TCP 192.168.0.99:30080",
    "TCP 192.168.0.99:80",
    "TCP 203.0.113.5:80",
    "TCP 203.0.113.5:9999",
];

/// Those of `SERVERS` that kube-proxy made, on a node with the address 192.168.0.1 and these addresses on kube-ipvs0.
fn inherited(entries: &[(&str, &str)], exclude: &[&str]) -> (Vec<String>, Vec<String>) {
    let config = ipvs_netlink::VirtualServer::new(ipvs_netlink::Scheduler::RR);
    let server = VirtualServerState { config, real_servers: Default::default() };
    let servers = SERVERS.iter().map(|text| (key(text), server.clone())).collect();
    let bound = BTreeSet::from(["10.96.0.1", "10.96.0.10", "203.0.113.5", "fe80::1"].map(|ip| ip.parse().unwrap()));
    let host = BTreeSet::from(["192.168.0.1".parse().unwrap(), "127.0.0.1".parse().unwrap()]);
    let exclude_cidrs = exclude.iter().map(|range| range.parse().unwrap()).collect();
    let config = Config { exclude_cidrs, ..Config::new("node-1") };
    let AdoptedState { servers, vips } = kube_proxy(entries).leaves(&servers, &bound, &host, &config);
    (servers.iter().map(ToString::to_string).collect(), vips.iter().map(ToString::to_string).collect())
}

#[test]
fn takeover_adopts_servers_named_by_ipsets_or_on_the_device() {
    let entries = [("KUBE-CLUSTER-IP", "10.96.0.1,tcp:443"), ("KUBE-NODE-PORT-TCP", "30080")];
    let (servers, vips) = inherited(&entries, &[]);
    // The virtual server of DNS is in no set yet: kube-proxy was killed during a sync. 192.168.0.99 is keepalived's.
    assert_eq!(
        servers,
        [
            "TCP 10.96.0.1:443",
            "UDP 10.96.0.10:53",
            "TCP 192.168.0.1:30080",
            "TCP 203.0.113.5:80",
            "TCP 203.0.113.5:9999"
        ]
    );
    assert_eq!(vips, ["10.96.0.1", "10.96.0.10", "203.0.113.5"]);
}

#[test]
fn takeover_adopts_only_ipset_entries_in_excluded_ranges() {
    let entries = [("KUBE-LOAD-BALANCER-LOCAL", "203.0.113.5,tcp:80")];
    let (servers, vips) = inherited(&entries, &["203.0.113.0/24"]);
    assert_eq!(servers, ["TCP 10.96.0.1:443", "UDP 10.96.0.10:53", "TCP 203.0.113.5:80"]);
    assert_eq!(vips.len(), 3);
}

#[test]
fn takeover_adopts_nothing_without_kube_proxy_ipsets() {
    assert_eq!(inherited(&[], &[]), (vec![], vec![]));
    // These sets can stay on a node after a takeover.
    let stays = [("KUBE-HEALTH-CHECK-NODE-PORT", "32000"), ("KUBE-LOOP-BACK", "10.244.0.5")];
    assert_eq!(inherited(&stays, &[]), (vec![], vec![]));
}
