use ipvs_netlink::{
    Destination, Family, Netmask, Persistence, PersistenceEngine, Scheduler, VirtualServer, VirtualServerKey,
};

use crate::{Namespace, destination, tcp};

#[test]
fn unknown_scheduler_or_engine_is_reported_as_a_missing_module() {
    let mut n = Namespace::new();
    let nosuch = VirtualServer::new("nosuch".parse().unwrap());
    let error = n.client.add_service(tcp("10.0.0.1:80"), nosuch).unwrap_err();
    assert!(error.lacks_module() && !error.is_not_found(), "{error}");
    assert_eq!(
        error.to_string(),
        "add service TCP 10.0.0.1:80 (nosuch): No such file or directory (os error 2): the kernel has no \
         scheduler nosuch (module ip_vs_nosuch)"
    );

    let engine = PersistenceEngine::new("nosuch").unwrap();
    let service = VirtualServer { persistence_engine: Some(engine), ..VirtualServer::new(Scheduler::RR) };
    let error = n.client.add_service(tcp("10.0.0.1:80"), service).unwrap_err();
    assert!(error.lacks_module() && error.to_string().ends_with("engine nosuch (module ip_vs_pe_nosuch)"), "{error}");
    assert_eq!(n.client.services().unwrap(), []);
}

#[test]
fn missing_and_existing_objects_cause_distinct_errors() {
    let mut n = Namespace::with_interface();
    let (key, rr) = (tcp("10.0.0.1:80"), VirtualServer::new(Scheduler::RR));
    let (real, masq) = (destination("10.1.1.1:80"), Destination::default());

    assert_eq!(n.client.service(key).unwrap(), None);
    assert_eq!(n.client.destinations(key).unwrap(), [], "an unknown virtual server has no destinations either");
    assert!(n.client.update_service(key, rr).unwrap_err().is_not_found());
    assert!(n.client.delete_service(key).unwrap_err().is_not_found());
    assert!(n.client.zero(Some(key)).unwrap_err().is_not_found());
    assert!(n.client.add_destination(key, real, masq).unwrap_err().is_not_found());

    n.client.add_service(key, rr).unwrap();
    assert!(n.client.add_service(key, rr).unwrap_err().already_exists());
    assert!(n.client.update_destination(key, real, masq).unwrap_err().is_not_found());
    assert!(n.client.delete_destination(key, real).unwrap_err().is_not_found());

    n.client.add_destination(key, real, masq).unwrap();
    let error = n.client.add_destination(key, real, masq).unwrap_err();
    assert!(error.already_exists() && !error.is_not_found() && !error.is_permission_denied());
    assert_eq!(error.to_string(), "add destination 10.1.1.1:80 to TCP 10.0.0.1:80: File exists (os error 17)");
    n.client.delete_destination(key, real).unwrap();
    n.client.delete_service(key).unwrap();
    assert_eq!(n.rules(), Vec::<String>::new());
}

#[test]
fn firewall_mark_0_never_touches_another_service() {
    let mut n = Namespace::new();
    let rr = VirtualServer::new(Scheduler::RR);
    let sticky = VirtualServer { persistence: Some(Persistence::seconds(1)), ..rr };
    n.client.add_service(tcp("0.0.0.0:0"), sticky).unwrap();
    let key = VirtualServerKey::FirewallMark { mark: 0, family: Family::V4 };
    for error in [
        n.client.add_service(key, rr).unwrap_err(),
        n.client.delete_service(key).unwrap_err(),
        n.client.service(key).unwrap_err(),
    ] {
        assert_eq!(error.kernel().unwrap().errno(), 22, "{error}");
    }
    assert_eq!(n.client.services().unwrap().len(), 1);
}

#[test]
fn invalid_netmasks_are_rejected() {
    let mut n = Namespace::new();
    for netmask in [Netmask::v6_prefix(0), Netmask::v6_prefix(129), Netmask::v4_prefix(24)] {
        let persistence = Some(Persistence { timeout: 1, netmask });
        let service = VirtualServer { persistence, ..VirtualServer::new(Scheduler::RR) };
        let error = n.client.add_service(tcp("[fd00::1]:80"), service).unwrap_err();
        assert_eq!(error.kernel().unwrap().errno(), 22, "{error}");
    }
}

#[test]
fn destinations_with_unusable_addresses_are_rejected() {
    let mut n = Namespace::with_interface();
    let key = tcp("10.0.0.1:80");
    n.client.add_service(key, VirtualServer::new(Scheduler::RR)).unwrap();
    for address in ["224.0.0.1:80", "255.255.255.255:80"] {
        let error = n.client.add_destination(key, destination(address), Destination::default()).unwrap_err();
        assert_eq!(error.kernel().unwrap().errno(), 22, "{error}");
    }
}
