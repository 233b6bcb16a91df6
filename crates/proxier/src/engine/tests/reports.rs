use super::{super::*, myapp};
use crate::{
    desired::HealthCheck,
    model::*,
    set::{Element, KeySet},
    testing::*,
};

/// A dual-stack Service with the policy `Local` and a health check.
fn lb() -> Service {
    let mut service = service("lb", &["10.96.0.7", "fd00:96::7"], &[(80, Some(30080)), (443, None)]);
    service.ports[1].name = "tls".into();
    service.external_policy = TrafficPolicy::Local;
    service.health_check_port = Some(port(32000));
    service
}

/// A slice with both ports, whose endpoints are on this node.
fn here(name: &str, endpoints: &[&str]) -> EndpointSlice {
    let mut slice = slice(name, "lb", 8080, endpoints);
    slice.endpoints.iter_mut().for_each(|endpoint| endpoint.node = Some("node-1".into()));
    slice.ports.push(EndpointPort { name: "tls".into(), port: port(8443), ..slice.ports[0].clone() });
    slice
}

#[test]
fn sync_report_has_health_checks_only_when_they_change() {
    let (mut engine, mut kernel) = start();
    let id = || ServiceId::new("default", "lb");
    let answer = |count| vec![(id(), Some(HealthCheck { port: port(32000), local_endpoints: count }))];
    let mut seconds = 0;
    let mut check = |events: Vec<Event>, expected: Vec<(ServiceId, Option<HealthCheck>)>| {
        let report = sync(&mut engine, &mut kernel, seconds, events.clone());
        assert_eq!(report.health_checks, expected, "{events:?}");
        seconds += 40;
    };
    check(myapp().into(), vec![]);
    check(vec![Event::ServiceApplied(lb())], answer(0));
    // A pod with an address of each family and two ports counts once.
    let v4 = here("lb-4", &["10.244.1.1", "10.244.1.2"]);
    check(vec![Event::SliceApplied(v4), Event::SliceApplied(here("lb-6", &["fd00::1"]))], answer(2));
    check(vec![], vec![]);
    check(vec![Event::SliceApplied(slice("lb-4b", "lb", 8080, &["10.244.2.1"]))], vec![]);
    check(vec![Event::SliceApplied(here("lb-4", &["10.244.1.1", "10.244.1.2!", "10.244.1.3~"]))], answer(1));
    // A terminating endpoint that still serves is no reason to send clients to this node.
    let v4 = here("lb-4", &["10.244.1.3~"]);
    check(vec![Event::SliceApplied(v4), Event::SliceRemoved(SliceId::new("default", "lb-6"))], answer(0));
    let cluster = Service { external_policy: TrafficPolicy::Cluster, ..lb() };
    check(vec![Event::ServiceApplied(cluster)], vec![(id(), None)]);
    check(vec![Event::ServiceApplied(lb())], answer(0));
    check(vec![Event::ServiceRemoved(id())], vec![(id(), None)]);
}

#[test]
fn services_without_local_endpoints_are_counted() {
    let (mut engine, mut kernel) = start();
    let counts = |internal, external| NoLocalEndpoints { internal, external };
    let elsewhere = Event::SliceApplied(slice("lb-4", "lb", 8080, &["10.244.2.1"]));
    let nodes = addresses(&["192.168.0.1", "fd00::1"]);
    let events = [nodes, Event::ServiceApplied(lb()), elsewhere];
    sync(&mut engine, &mut kernel, 0, events);
    assert_eq!(engine.without_local_endpoints(), counts([0, 0], [1, 0]));
    let both = Service { internal_policy: TrafficPolicy::Local, ..lb() };
    sync(&mut engine, &mut kernel, 1, [Event::ServiceApplied(both)]);
    assert_eq!(engine.without_local_endpoints(), counts([1, 0], [1, 0]));
    sync(&mut engine, &mut kernel, 2, [Event::SliceApplied(here("lb-4", &["10.244.1.1"]))]);
    assert_eq!(engine.without_local_endpoints(), counts([0, 0], [0, 0]));
    sync(&mut engine, &mut kernel, 3, [Event::ServiceRemoved(ServiceId::new("default", "lb"))]);
    assert_eq!(engine.without_local_endpoints(), counts([0, 0], [0, 0]));
}

#[test]
fn sync_report_counts_drift_without_new_changes() {
    let (mut engine, mut kernel) = start();
    assert_eq!(sync(&mut engine, &mut kernel, 0, myapp()).drifted, 0, "nothing was there before");
    let at = key("TCP 10.111.98.163:80");
    kernel.addresses = Some(BTreeSet::new());
    let server = kernel.virtual_servers.get_mut(&at).unwrap();
    remove_first(server);
    server.real_servers.iter_mut().for_each(|(_, destination)| destination.weight = 7);
    let element = Element::Key(KeySet::ClusterIps, at);
    kernel.elements.as_mut().unwrap().remove(&element).unwrap();
    let more = slice("myapp-1", "myapp", 80, &["10.244.1.57", "10.244.1.58", "10.244.1.59"]);
    engine.verify_at(Duration::ZERO);
    let report = sync(&mut engine, &mut kernel, 31, [Event::SliceApplied(more)]);
    assert_eq!((report.plan.changes().len(), report.drifted), (6, 4), "{}", report.plan);
    assert_eq!(engine.counts(), Counts { virtual_servers: 1, real_servers: 3, draining: 0 });
}

#[test]
fn sync_report_names_affected_services() {
    let (mut engine, mut kernel) = start();
    let names = |engine: &Engine, report: &SyncReport| {
        engine.services_of(report).into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let both = |engine: &Engine, report: &SyncReport| Family::ALL.map(|family| engine.concerns_family(report, family));
    let first = sync(&mut engine, &mut kernel, 0, myapp().into_iter().chain([Event::ServiceApplied(lb())]));
    assert_eq!(names(&engine, &first), "default/lb, default/myapp");
    assert_eq!(both(&engine, &first), [true, true]);
    let endpoint = sync(&mut engine, &mut kernel, 1, [Event::SliceApplied(slice("a", "myapp", 80, &["10.9.9.9"]))]);
    assert_eq!(names(&engine, &endpoint), "default/myapp");
    assert_eq!(both(&engine, &endpoint), [true, false]);
    let gone = sync(&mut engine, &mut kernel, 2, [Event::ServiceRemoved(ServiceId::new("default", "lb"))]);
    assert_eq!(names(&engine, &gone), "default/lb");
    // If another program unbinds an address, the sync names the Services of that address. A comparison is about the
    // families in which the kernel has virtual servers.
    kernel.addresses = Some(BTreeSet::new());
    let drift = sync(&mut engine, &mut kernel, 40, []);
    assert_eq!(names(&engine, &drift), "default/myapp");
    assert_eq!(both(&engine, &drift), [true, false]);
}
