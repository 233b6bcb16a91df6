//! What kube-ipvs owns, and what belongs to other programs.

use super::*;

#[test]
fn restart_repairs_drift_and_removes_only_own_state() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, myapp());
    let gone = Event::ServiceApplied(service("gone", &["10.0.0.9"], &[(80, None)]));
    sync(&mut engine, &mut kernel, 1, [gone]);
    // An operator changes virtual servers and addresses with ipvsadm and ip.
    let config = ipvs_netlink::VirtualServer::new(ipvs_netlink::Scheduler::WRR);
    let theirs = crate::VirtualServerState { config, real_servers: Default::default() };
    kernel.virtual_servers.insert(key("TCP 10.9.9.9:80"), theirs);
    kernel.addresses.as_mut().unwrap().insert("10.9.9.9".parse().unwrap());
    let ours = kernel.virtual_servers.get_mut(&key("TCP 10.111.98.163:80")).unwrap();
    ours.config = config;
    remove_first(ours);
    ours.real_servers.iter_mut().for_each(|(_, real_server)| real_server.weight = 0);

    let mut engine = engine_with(Config::new("node-1"));
    check(
        &sync(&mut engine, &mut kernel, 0, myapp()),
        expect![[r#"
            + element foreign { 10.9.9.9 . tcp . 80 }
            ~ virtual server TCP 10.111.98.163:80 rr
            ~ real server TCP 10.111.98.163:80 -> 10.244.1.58:80 Masq 1
            + real server TCP 10.111.98.163:80 -> 10.244.1.57:80 Masq 1
            - address 10.0.0.9
            - virtual server TCP 10.0.0.9:80
            - element served { 10.0.0.9 . tcp . 80 }
            - element cluster-ips { 10.0.0.9 . tcp . 80 }
            - element no-endpoints { 10.0.0.9 . tcp . 80 }
            - element vips { 10.0.0.9 }
        "#]],
    );
    check(&sync(&mut engine, &mut kernel, 30, []), expect![""]);
}

#[test]
fn running_engine_knows_its_state_after_the_record_is_lost() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, myapp());
    kernel.elements = None;
    let removed = Event::ServiceRemoved(ServiceId::new("default", "myapp"));
    sync(&mut engine, &mut kernel, 30, []);
    sync(&mut engine, &mut kernel, 31, [removed]);
    assert_eq!(kernel.state(), State::default());
}

#[test]
fn foreign_virtual_server_is_reported_and_left_alone() {
    let (mut engine, mut kernel) = start();
    let config = ipvs_netlink::VirtualServer::new(ipvs_netlink::Scheduler::WLC);
    let theirs = crate::VirtualServerState { config, real_servers: Default::default() };
    kernel.virtual_servers.insert(key("TCP 10.111.98.163:80"), theirs.clone());
    let first = sync(&mut engine, &mut kernel, 0, myapp());
    assert_eq!(first.skipped.len(), 1);
    assert_eq!(kernel.virtual_servers[&key("TCP 10.111.98.163:80")], theirs);
    // The rules accept its traffic, also on a VIP of kube-ipvs.
    assert_eq!(sets_of_myapp(&kernel), [KeySet::Foreign]);
    // The engine does not report it again, and serves once it is gone.
    assert_eq!(sync(&mut engine, &mut kernel, 30, []).skipped, []);
    kernel.virtual_servers.clear();
    sync(&mut engine, &mut kernel, 60, []);
    assert_eq!(kernel.virtual_servers[&key("TCP 10.111.98.163:80")].real_servers.len(), 2);
    assert_eq!(sets_of_myapp(&kernel), [KeySet::Served, KeySet::ClusterIps]);
}

fn sets_of_myapp(kernel: &FakeKernel) -> Vec<KeySet> {
    kernel.state().elements[&key("TCP 10.111.98.163:80")].sets.iter().collect()
}

#[test]
fn foreign_virtual_server_made_between_two_reads_is_not_adopted() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, []);
    let config = ipvs_netlink::VirtualServer::new(ipvs_netlink::Scheduler::WLC);
    let theirs = crate::VirtualServerState { config, real_servers: Default::default() };
    kernel.virtual_servers.insert(key("TCP 10.111.98.163:80"), theirs);
    myapp().into_iter().for_each(|event| engine.apply(event));
    let failed = engine.sync(&mut kernel, Duration::from_secs(1));
    assert!(failed.failures[0].to_string().starts_with("Service default/myapp: + virtual server TCP"));
    let again = sync(&mut engine, &mut kernel, 2, []);
    assert!(matches!(again.skipped[..], [Skipped::ForeignVirtualServer { .. }]));
    assert_eq!(sets_of_myapp(&kernel), [KeySet::Foreign]);
}

#[test]
fn virtual_servers_in_excluded_cidrs_are_never_removed() {
    let mut config = Config::new("node-1");
    config.exclude_cidrs = vec!["10.111.0.0/16".parse().unwrap()];
    let (mut engine, mut kernel) = (engine_with(config), FakeKernel::default());
    sync(&mut engine, &mut kernel, 0, myapp());
    sync(&mut engine, &mut kernel, 1, [Event::ServiceRemoved(ServiceId::new("default", "myapp"))]);
    assert_eq!(kernel.virtual_servers.len(), 1);
}

/// A missing module or a lost reply says nothing about the owner of a virtual server.
#[test]
fn virtual_server_is_ours_after_its_creation_failed_at_first() {
    let (mut engine, mut kernel) = start();
    kernel.reject.push("+ virtual server".into());
    myapp().into_iter().for_each(|event| engine.apply(event));
    assert!(!engine.sync(&mut kernel, Duration::ZERO).failures.is_empty());
    kernel.reject.clear();
    sync(&mut engine, &mut kernel, 1, []);
    sync(&mut engine, &mut kernel, 60, []);
    let ours = &kernel.virtual_servers[&key("TCP 10.111.98.163:80")];
    assert_eq!(ours.real_servers.len(), 2);
}
