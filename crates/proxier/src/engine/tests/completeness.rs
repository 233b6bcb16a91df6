//! State in the kernel while not all objects are known: before the first list, and while objects are unreadable.

use expect_test::expect;

use super::{super::*, check, myapp};
use crate::{fake::FakeKernel, model::*, testing::*};

#[test]
fn leftovers_stay_until_all_objects_are_known() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, myapp());
    let mut restarted = Engine::new(Config::new("node-1"), BTreeSet::new());
    assert!(sync(&mut restarted, &mut kernel, 1, []).plan.is_empty());
    restarted.set_complete(Completeness::Complete);
    assert_eq!(restarted.next_sync(), Duration::ZERO);
    assert!(!sync(&mut restarted, &mut kernel, 2, []).plan.is_empty());
    assert_eq!(kernel.state(), State::default());
}

/// A leftover range goes early only if the set cannot hold both. An engine always removes its own outdated ranges.
#[test]
fn leftover_ranges_stay_until_all_objects_are_known() {
    let service_cidr = |ranges: &[&str]| {
        let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        Event::ServiceCidrApplied(ServiceCidr { name: "kubernetes".into(), ranges })
    };
    let config = |pods: &[&str]| {
        let pods = pods.iter().map(|range| range.parse().unwrap()).collect();
        Config { pod_sources: crate::PodSources::Ranges(pods), ..Config::new("node-1") }
    };
    let (mut engine, mut kernel) = (engine_with(config(&["10.244.0.0/16"])), FakeKernel::default());
    sync(&mut engine, &mut kernel, 0, [service_cidr(&["10.96.0.0/16", "fd00:96::/108"])]);
    let mut restarted = Engine::new(config(&[]), BTreeSet::new());
    check(
        &sync(&mut restarted, &mut kernel, 1, [service_cidr(&["10.96.0.0/12"])]),
        expect![[r#"
            - element service-ranges { 10.96.0.0/16 }
            + element service-ranges { 10.96.0.0/12 }
        "#]],
    );
    restarted.set_complete(Completeness::Complete);
    check(
        &sync(&mut restarted, &mut kernel, 2, []),
        expect![[r#"
            - element service-ranges { fd00:96::/108 }
            - element pod-sources { 10.244.0.0/16 }
            - element outside { 0.0.0.0/0 }
        "#]],
    );
    restarted.set_complete(Completeness::Unknown);
    check(
        &sync(&mut restarted, &mut kernel, 3, [service_cidr(&[])]),
        expect![[r#"
            - element service-ranges { 10.96.0.0/12 }
        "#]],
    );
}

/// Until then an engine serves the known Services, and removes state that it made itself.
#[test]
fn incomplete_engine_serves_known_services_and_removes_own_state() {
    let (mut engine, mut kernel) = start();
    let web = |node_port| Event::ServiceApplied(service("web", &["10.0.0.1"], &[(80, node_port)]));
    let events = [addresses(&["192.168.128.1"]), web(Some(30080))];
    sync(&mut engine, &mut kernel, 0, events.into_iter().chain(myapp()));
    let host = NodeAddress { address: "192.168.128.1".parse().unwrap(), global: true };
    let mut restarted = Engine::new(Config::new("node-1"), [host].into());
    assert!(sync(&mut restarted, &mut kernel, 1, [web(Some(30080))]).plan.is_empty());
    check(
        &sync(&mut restarted, &mut kernel, 2, [web(None)]),
        expect![[r#"
            - virtual server TCP 192.168.128.1:30080
            - element served { 192.168.128.1 . tcp . 30080 }
            - element masquerade-always { 192.168.128.1 . tcp . 30080 }
            - element no-endpoints { 192.168.128.1 . tcp . 30080 }
        "#]],
    );
    assert!(!restarted.is_converged());
    assert!(kernel.virtual_servers.contains_key(&key("TCP 10.111.98.163:80")));
}

/// An unreadable Service keeps its state without limit. All other state goes at once.
#[test]
fn leftovers_stay_only_for_the_unreadable_service() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, myapp());
    let all_but = |name: &str| Completeness::Except([ServiceId::new("default", name)].into());
    const DAY: u64 = 24 * 3600;
    let mut restarted = engine_with(Config::new("node-1"));
    restarted.set_complete(all_but("myapp"));
    for now in [0, DAY + 1, 2 * DAY] {
        let plan = sync(&mut restarted, &mut kernel, now, []).plan.to_string();
        assert!(!plan.contains("- virtual server") && !plan.contains("- address"), "{plan}");
    }
    let mut restarted = engine_with(Config::new("node-1"));
    restarted.set_complete(all_but("other"));
    sync(&mut restarted, &mut kernel, 0, []);
    assert_eq!(kernel.state(), State::default());
}

/// State without a recorded Service, such as kube-proxy's, stays for a day. The takeover waits as long.
#[test]
fn unreadable_object_delays_removal_for_at_most_a_day() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, myapp());
    kernel.elements.as_mut().unwrap().values_mut().for_each(|comment| *comment = None);
    let mut restarted = engine_with(Config::new("node-1"));
    restarted.set_complete(Completeness::Except(Default::default()));
    sync(&mut restarted, &mut kernel, 10, []);
    sync(&mut restarted, &mut kernel, 24 * 3600, []);
    assert!(!kernel.virtual_servers.is_empty() && !restarted.is_converged());
    sync(&mut restarted, &mut kernel, 24 * 3600 + 60, []);
    assert_eq!(kernel.state(), State::default());
    assert!(restarted.is_converged());
    // If objects cannot even be listed, the engine never knows which exist.
    restarted.set_complete(Completeness::Unknown);
    sync(&mut restarted, &mut kernel, 48 * 3600, []);
    assert!(!restarted.is_converged());
}
