//! Virtual servers that the kernel rejects, and the state that depends on them.

use super::{
    ordering::{local, outer},
    *,
};

/// If the kernel rejects one port's virtual server on an address that another port needs, clients could reach a
/// listener of the node, such as its SSH server. kube-ipvs rejects these clients, also between retries.
#[test]
fn port_with_a_rejected_virtual_server_does_not_reach_the_node() {
    let (mut engine, mut kernel) = start();
    kernel.reject = vec!["+ virtual server TCP 10.0.0.1:22".into()];
    let mut web = service("web", &["10.0.0.1"], &[(80, None), (22, None)]);
    web.ports[1].name = "ssh".into();
    let endpoints = Event::SliceApplied(two_ports());
    [Event::ServiceApplied(web), endpoints].into_iter().for_each(|event| engine.apply(event));
    let rejected = key("TCP 10.0.0.1:22");
    for second in [0, 1, 3] {
        assert!(!engine.sync(&mut kernel, Duration::from_secs(second)).failures.is_empty());
        assert_eq!(kernel.state().bound_vips.len(), 1);
        let sets = kernel.state().elements[&rejected].sets;
        assert!(sets.contains(KeySet::NoEndpoints), "{sets:?}");
        assert!(!sets.contains(KeySet::Served), "it is not there, and so not ours");
    }
    kernel.reject.clear();
    sync(&mut engine, &mut kernel, 7, []);
    let sets: Vec<KeySet> = kernel.state().elements[&rejected].sets.iter().collect();
    assert_eq!(sets, [KeySet::Served, KeySet::ClusterIps]);

    // If kube-ipvs cannot reject them, it does not bind the address.
    let (mut engine, mut kernel) = start();
    kernel.reject = vec!["+ virtual server".into(), "+ element no-endpoints".into()];
    myapp().into_iter().for_each(|event| engine.apply(event));
    assert!(!engine.sync(&mut kernel, Duration::ZERO).failures.is_empty());
    assert_eq!(kernel.state().bound_vips, [].into());
}

#[test]
fn port_with_an_unanswered_virtual_server_does_not_reach_the_node() {
    let (mut engine, mut kernel) = start();
    kernel.unanswered = vec!["+ virtual server TCP 10.0.0.1:80".into()];
    let web = Event::ServiceApplied(service("web", &["10.0.0.1"], &[(80, None)]));
    let endpoints = Event::SliceApplied(slice("web-1", "web", 8080, &["10.1.0.2"]));
    [web, endpoints].into_iter().for_each(|event| engine.apply(event));
    assert!(!engine.sync(&mut kernel, Duration::ZERO).failures.is_empty());
    let sets = kernel.state().elements[&key("TCP 10.0.0.1:80")].sets;
    assert!(sets.contains(KeySet::NoEndpoints) && sets.contains(KeySet::Served), "{sets:?}");
    kernel.unanswered.clear();
    sync(&mut engine, &mut kernel, 1, []);
    let sets = kernel.state().elements[&key("TCP 10.0.0.1:80")].sets;
    assert!(!sets.contains(KeySet::NoEndpoints) && sets.contains(KeySet::Served), "{sets:?}");
}

/// Otherwise clients would reach a port without a virtual server.
#[test]
fn short_circuit_to_a_rejected_virtual_server_is_not_made() {
    let (mut engine, mut kernel) = start();
    kernel.reject = vec!["+ virtual server TCP 10.0.0.1:80".into()];
    let endpoints = Event::SliceApplied(slice("web-1", "web", 8080, &["10.1.0.2"]));
    let web = Event::ServiceApplied(local(outer(&["203.0.113.1"])));
    [web, endpoints].into_iter().for_each(|event| engine.apply(event));
    assert!(!engine.sync(&mut kernel, Duration::ZERO).failures.is_empty());
    assert!(kernel.state().short_circuits.is_empty(), "{:?}", kernel.state().short_circuits);
    kernel.reject.clear();
    sync(&mut engine, &mut kernel, 1, []);
    assert_eq!(kernel.state().short_circuits.len(), 1);
}

/// If kube-ipvs is killed right after a clash, it must not find another program's virtual server in its record.
#[test]
fn foreign_virtual_server_is_not_recorded_after_the_plan_that_met_it() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, []);
    let config = ipvs_netlink::VirtualServer::new(ipvs_netlink::Scheduler::WLC);
    let theirs = crate::VirtualServerState { config, real_servers: Default::default() };
    kernel.virtual_servers.insert(key("TCP 10.111.98.163:80"), theirs.clone());
    myapp().into_iter().for_each(|event| engine.apply(event));
    assert!(!engine.sync(&mut kernel, Duration::from_secs(1)).failures.is_empty());
    // kube-ipvs is killed here.
    let restarted = sync(&mut engine_with(Config::new("node-1")), &mut kernel, 0, myapp());
    assert!(matches!(restarted.skipped[..], [Skipped::ForeignVirtualServer { .. }]), "{:?}", restarted.skipped);
    assert_eq!(kernel.virtual_servers[&key("TCP 10.111.98.163:80")], theirs);
}

fn two_ports() -> EndpointSlice {
    let mut slice = slice("web-1", "web", 8080, &["10.1.0.2"]);
    slice.ports.push(EndpointPort { name: "ssh".into(), ..slice.ports[0].clone() });
    slice
}

/// A permanent cause, such as replies larger than a small buffer, must not cause a read at every event.
#[test]
fn kernel_reads_back_off_after_any_failure() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, []);
    kernel.unanswered = vec!["+ real server".into(), "- flows".into()];
    let read = kernel.reads;
    let udp = |endpoints: &[&str]| {
        let slice = slice("dns-1", "dns", 53, endpoints);
        with_protocol(service("dns", &["10.96.0.10"], &[(53, None)]), slice, Protocol::Udp)
    };
    for number in 1..=90 {
        let endpoints = [format!("10.1.0.{number}")];
        udp(&endpoints.each_ref().map(String::as_str)).into_iter().for_each(|event| engine.apply(event));
        let report = engine.sync(&mut kernel, Duration::from_millis(100 * number));
        let flows = report.plan.to_string().matches("- flows").count();
        assert!(number == 1 || report.is_full || flows == 0, "looked for at every event:\n{}", report.plan);
    }
    // Reads after 1, 2, and 4 seconds.
    assert_eq!(kernel.reads - read, 3);
    kernel.unanswered.clear();
    while !engine.is_healthy() {
        let due = engine.next_sync();
        engine.sync(&mut kernel, due);
    }
    assert_eq!(kernel.virtual_servers[&key("UDP 10.96.0.10:53")].real_servers.len(), 1);
}

/// Another program empties nftables, and at that moment the kernel's list omits a virtual server of ours.
#[test]
fn virtual_server_stays_ours_without_record_and_list_entry() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, myapp());
    let before = kernel.state();
    kernel.elements = None;
    let misled = engine.sync(&mut Forgetful(&mut kernel), Duration::from_secs(30));
    assert!(misled.failures.is_empty(), "{:?}", misled.failures);
    let again = sync(&mut engine, &mut kernel, 31, []);
    assert_eq!(again.skipped, []);
    assert_eq!(kernel.state(), before);
}

/// Another program empties nftables while the kernel rejects the unbind.
#[test]
fn address_without_a_record_is_unbound_after_a_failed_unbind() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, myapp());
    kernel.elements = None;
    kernel.reject = vec!["- address".into()];
    engine.apply(Event::ServiceRemoved(ServiceId::new("default", "myapp")));
    engine.verify_at(Duration::ZERO);
    for second in [30, 31, 33] {
        let report = engine.sync(&mut kernel, Duration::from_secs(second));
        assert_eq!((report.is_full, report.failures.len()), (true, 1), "after {second} seconds");
    }
    kernel.reject.clear();
    sync(&mut engine, &mut kernel, 37, []);
    assert_eq!(kernel.state(), State::default());
}

/// The kernel confirms neither the virtual server nor its address, and the Service goes before the next read.
#[test]
fn unconfirmed_virtual_server_is_removed_with_its_service() {
    let (mut engine, mut kernel) = start();
    kernel.unconfirmed = vec!["+ virtual server".into(), "+ address".into()];
    myapp().into_iter().for_each(|event| engine.apply(event));
    assert_eq!(engine.sync(&mut kernel, Duration::ZERO).failures.len(), 4, "and two real servers");
    kernel.unconfirmed.clear();
    sync(&mut engine, &mut kernel, 0, [Event::ServiceRemoved(ServiceId::new("default", "myapp"))]);
    assert_eq!((kernel.virtual_servers.len(), kernel.state().bound_vips.len()), (1, 0));
    assert_eq!(sync(&mut engine, &mut kernel, 1, []).skipped, []);
    assert_eq!(kernel.state(), State::default());
}

#[test]
fn sync_period_of_zero_or_max_schedules_a_later_sync() {
    for period in [Duration::ZERO, Duration::MAX] {
        let config = Config { sync_period: period, ..Config::new("node-1") };
        let (mut engine, mut kernel) = (engine_with(config), FakeKernel::default());
        sync(&mut engine, &mut kernel, 5, myapp());
        assert!(engine.next_sync() > Duration::from_secs(5), "{:?}", engine.next_sync());
    }
}

#[test]
fn drains_of_real_servers_removed_by_others_are_forgotten() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, myapp());
    sync(&mut engine, &mut kernel, 1, [Event::SliceApplied(slice("myapp-1", "myapp", 80, &["10.244.1.57"]))]);
    assert_eq!(engine.draining(), 1);
    let server = kernel.virtual_servers.get_mut(&key("TCP 10.111.98.163:80")).unwrap();
    server.real_servers.retain(|_, destination| destination.weight > 0);
    sync(&mut engine, &mut kernel, 31, []);
    assert_eq!(engine.draining(), 0);
}
