//! What becomes of a virtual server that the kernel refuses, and of what stands on it.

use super::{
    orders::{local, outer},
    *,
};

/// On an address that another port needs, a port whose virtual server the kernel refuses would lead to what listens on
/// this node: its SSH server. It is refused, also while it is tried again.
#[test]
fn a_port_that_the_kernel_refuses_does_not_lead_to_the_node() {
    let (mut engine, mut kernel) = start();
    kernel.refuse = vec!["+ virtual server TCP 10.0.0.1:22".into()];
    let mut web = service("web", &["10.0.0.1"], &[(80, None), (22, None)]);
    web.ports[1].name = "ssh".into();
    let endpoints = Event::SliceApplied(two_ports());
    [Event::ServiceApplied(web), endpoints].into_iter().for_each(|event| engine.event(event));
    let refused = key("TCP 10.0.0.1:22");
    for second in [0, 1, 3] {
        assert!(!engine.turn(&mut kernel, Duration::from_secs(second)).failures.is_empty());
        assert_eq!(kernel.state.bound_vips.len(), 1);
        let sets = kernel.state.elements[&refused].sets;
        assert!(sets.contains(KeySet::NoEndpoints), "{sets:?}");
        assert!(!sets.contains(KeySet::Served), "it is not there, and so not ours");
    }
    kernel.refuse.clear();
    turn(&mut engine, &mut kernel, 7, []);
    let sets: Vec<KeySet> = kernel.state.elements[&refused].sets.iter().collect();
    assert_eq!(sets, [KeySet::Served, KeySet::ClusterIps]);

    // Where not even that can be said, the address is not bound.
    let (mut engine, mut kernel) = start();
    kernel.refuse = vec!["+ virtual server".into(), "+ element no-endpoints".into()];
    myapp().into_iter().for_each(|event| engine.event(event));
    assert!(!engine.turn(&mut kernel, Duration::ZERO).failures.is_empty());
    assert_eq!(kernel.state.bound_vips, [].into());
}

/// Clients would be led to a port where nothing is.
#[test]
fn no_short_cut_leads_to_what_the_kernel_refuses() {
    let (mut engine, mut kernel) = start();
    kernel.refuse = vec!["+ virtual server TCP 10.0.0.1:80".into()];
    let endpoints = Event::SliceApplied(slice("web-1", "web", 8080, &["10.1.0.2"]));
    let web = Event::ServiceApplied(local(outer(&["203.0.113.1"])));
    [web, endpoints].into_iter().for_each(|event| engine.event(event));
    assert!(!engine.turn(&mut kernel, Duration::ZERO).failures.is_empty());
    assert!(kernel.state.short_cuts.is_empty(), "{:?}", kernel.state.short_cuts);
    kernel.refuse.clear();
    turn(&mut engine, &mut kernel, 1, []);
    assert_eq!(kernel.state.short_cuts.len(), 1);
}

/// Whoever is killed right after a clash must not find somebody else's virtual server recorded as ours.
#[test]
fn somebody_elses_virtual_server_is_not_recorded_beyond_the_plan_that_met_it() {
    let (mut engine, mut kernel) = start();
    turn(&mut engine, &mut kernel, 0, []);
    let config = ipvs_netlink::VirtualServer::new(ipvs_netlink::Scheduler::WLC);
    let theirs = crate::ServerState { config, real_servers: Default::default() };
    kernel.state.virtual_servers.insert(key("TCP 10.111.98.163:80"), theirs.clone());
    myapp().into_iter().for_each(|event| engine.event(event));
    assert!(!engine.turn(&mut kernel, Duration::from_secs(1)).failures.is_empty());
    // Killed now.
    let restarted = turn(&mut Engine::new(Config::new("node-1")), &mut kernel, 0, myapp());
    assert!(matches!(restarted.skipped[..], [Skipped::Foreign { .. }]), "{:?}", restarted.skipped);
    assert_eq!(kernel.state.virtual_servers[&key("TCP 10.111.98.163:80")], theirs);
}

fn two_ports() -> EndpointSlice {
    let mut slice = slice("web-1", "web", 8080, &["10.1.0.2"]);
    slice.ports.push(EndpointPort { name: "ssh".into(), ..slice.ports[0].clone() });
    slice
}
