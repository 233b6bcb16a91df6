use ipvs_netlink::{
    Family, Netmask, Persistence, PersistenceEngine, Protocol, Scheduler, ServiceFlags, VirtualServer, VirtualServerKey,
};

use crate::{Namespace, tcp, udp};

/// Adds it, reads it back alone and in the list, and returns the new rules that ipvsadm shows.
fn added(namespace: &mut Namespace, key: VirtualServerKey, service: VirtualServer) -> Vec<String> {
    let before = namespace.rules();
    namespace.client.add_service(key, service).unwrap();
    assert_same(namespace, key, service);
    namespace.rules().into_iter().filter(|rule| !before.contains(rule)).collect()
}

fn assert_same(namespace: &mut Namespace, key: VirtualServerKey, service: VirtualServer) {
    let entry = namespace.client.service(key).unwrap().unwrap();
    assert_eq!((entry.key, entry.service), (key, service));
    let list = namespace.client.services().unwrap();
    assert_eq!(list.iter().filter(|listed| **listed == entry).count(), 1, "{list:?}");
}

#[test]
fn services_of_all_families_and_protocols_match_ipvsadm() {
    let mut n = Namespace::new();
    let rr = VirtualServer::new(Scheduler::RR);
    assert_eq!(added(&mut n, tcp("10.0.0.1:80"), rr), ["-A -t 10.0.0.1:80 -s rr"]);
    assert_eq!(added(&mut n, udp("10.0.0.1:80"), rr), ["-A -u 10.0.0.1:80 -s rr"]);
    assert_eq!(added(&mut n, tcp("[fd00::1]:80"), rr), ["-A -t [fd00::1]:80 -s rr"]);
    assert_eq!(added(&mut n, udp("[fd00::1]:80"), rr), ["-A -u [fd00::1]:80 -s rr"]);
    for address in ["10.0.0.1:80", "[fd00::1]:80"] {
        let key = VirtualServerKey::new(Protocol::Sctp, address.parse().unwrap());
        assert_eq!(added(&mut n, key, rr), [format!("-A --sctp-service {address} -s rr")]);
    }
    assert_eq!(n.client.services().unwrap().len(), 6);
}

#[test]
fn firewall_mark_services_of_both_families_match_ipvsadm() {
    let mut n = Namespace::new();
    let key = |mark, family| VirtualServerKey::FirewallMark { mark, family };
    let wrr = VirtualServer::new(Scheduler::WRR);
    assert_eq!(added(&mut n, key(1, Family::V4), wrr), ["-A -f 1 -s wrr"]);
    added(&mut n, key(1, Family::V6), wrr);
    added(&mut n, key(i32::MAX as u32, Family::V4), wrr);
    let list = n.ipvsadm(&["-Ln"]);
    for line in ["FWM  1 wrr\n", "FWM  1 IPv6 wrr\n", "FWM  2147483647 wrr\n"] {
        assert!(list.contains(line), "{list}");
    }
    n.client.delete_service(key(1, Family::V6)).unwrap();
    assert_eq!(n.client.service(key(1, Family::V6)).unwrap(), None);
    assert!(n.client.service(key(1, Family::V4)).unwrap().is_some());
}

#[test]
fn persistence_netmasks_of_both_families_match_ipvsadm() {
    let mut n = Namespace::new();
    let sticky = |netmask| VirtualServer {
        persistence: Some(Persistence { timeout: 10_800, netmask }),
        ..VirtualServer::new(Scheduler::RR)
    };
    assert_eq!(added(&mut n, tcp("10.0.0.1:80"), sticky(Netmask::HOST)), ["-A -t 10.0.0.1:80 -s rr -p 10800"]);
    assert_eq!(
        added(&mut n, tcp("10.0.0.2:80"), sticky(Netmask::v4_prefix(24))),
        ["-A -t 10.0.0.2:80 -s rr -p 10800 -M 255.255.255.0"]
    );
    assert_eq!(added(&mut n, tcp("[fd00::1]:80"), sticky(Netmask::HOST)), ["-A -t [fd00::1]:80 -s rr -p 10800"]);
    let prefix = added(&mut n, tcp("[fd00::2]:80"), sticky(Netmask::v6_prefix(64)));
    assert_eq!(prefix.len(), 1);
    assert!(n.ipvsadm(&["-Ln"]).contains("[fd00::2]:80 rr persistent 10800 mask 64\n"));
    // Port 0 (every port) is for persistent services only.
    added(&mut n, tcp("10.0.0.3:0"), sticky(Netmask::HOST));
}

#[test]
fn service_and_scheduler_flags_match_ipvsadm() {
    let mut n = Namespace::new();
    let flags = |scheduler, flags| VirtualServer { flags, ..VirtualServer::new(scheduler) };
    let sh = flags(Scheduler::SH, ServiceFlags::SH_FALLBACK | ServiceFlags::SH_PORT);
    assert_eq!(added(&mut n, tcp("10.0.0.1:80"), sh), ["-A -t 10.0.0.1:80 -s sh -b sh-fallback,sh-port"]);
    let mh = flags(Scheduler::MH, ServiceFlags::MH_PORT);
    assert_eq!(added(&mut n, tcp("10.0.0.2:80"), mh), ["-A -t 10.0.0.2:80 -s mh -b mh-port"]);
    let third = flags(Scheduler::RR, ServiceFlags::SCHEDULER_3);
    assert_eq!(added(&mut n, tcp("10.0.0.3:80"), third), ["-A -t 10.0.0.3:80 -s rr -b flag-3"]);
    let one_packet = flags(Scheduler::RR, ServiceFlags::ONE_PACKET);
    assert_eq!(added(&mut n, udp("10.0.0.4:53"), one_packet), ["-A -u 10.0.0.4:53 -s rr -o"]);
}

#[test]
fn persistence_engine_of_a_service_is_read_back() {
    let mut n = Namespace::new();
    let sip = VirtualServer {
        persistence: Some(Persistence::seconds(60)),
        persistence_engine: Some(PersistenceEngine::SIP),
        ..VirtualServer::new(Scheduler::RR)
    };
    let key = udp("10.0.0.1:5060");
    assert_eq!(added(&mut n, key, sip), ["-A -u 10.0.0.1:5060 -s rr -p 60 --pe sip"]);
    let without = VirtualServer { persistence_engine: None, ..sip };
    n.client.update_service(key, without).unwrap();
    assert_same(&mut n, key, without);
}

#[test]
fn every_scheduler_of_the_kernel_is_accepted() {
    let mut n = Namespace::new();
    let schedulers = [
        Scheduler::RR,
        Scheduler::WRR,
        Scheduler::LC,
        Scheduler::WLC,
        Scheduler::LBLC,
        Scheduler::LBLCR,
        Scheduler::DH,
        Scheduler::SH,
        Scheduler::SED,
        Scheduler::NQ,
        Scheduler::FO,
        Scheduler::OVF,
        Scheduler::MH,
        Scheduler::NONE,
    ];
    let key = tcp("10.0.0.1:80");
    n.client.add_service(key, VirtualServer::new(Scheduler::RR)).unwrap();
    for scheduler in schedulers {
        n.client.update_service(key, VirtualServer::new(scheduler)).unwrap();
        assert_same(&mut n, key, VirtualServer::new(scheduler));
    }
}

#[test]
fn service_update_replaces_the_whole_configuration() {
    let mut n = Namespace::new();
    let key = udp("[fd00::1]:53");
    let full = VirtualServer {
        scheduler: Scheduler::SH,
        flags: ServiceFlags::SH_PORT | ServiceFlags::ONE_PACKET,
        persistence: Some(Persistence { timeout: 77, netmask: Netmask::v6_prefix(56) }),
        persistence_engine: None,
    };
    let bare = VirtualServer::new(Scheduler::RR);
    for service in [full, bare, full, full, bare] {
        if n.client.service(key).unwrap().is_some() {
            n.client.update_service(key, service).unwrap();
        } else {
            n.client.add_service(key, service).unwrap();
        }
        assert_same(&mut n, key, service);
    }
    assert_eq!(n.rules(), ["-A -u [fd00::1]:53 -s rr"]);
}
