mod addresses;
mod completeness;
mod health;
mod node;
mod ordering;
mod ownership;
mod rejected;
mod reports;
mod spread;
mod udp;
mod verify;

use std::{collections::BTreeMap, time::Duration};

use expect_test::{Expect, expect};
use ipvs_netlink::VirtualServer;

use super::*;
use crate::{
    fake::FakeKernel,
    kernel::{ConnectionCounts, KernelUnavailable, Report},
    model::*,
    set::KeySet,
    testing::*,
};

fn myapp() -> [Event; 2] {
    [
        Event::ServiceApplied(service("myapp", &["10.111.98.163"], &[(80, None)])),
        Event::SliceApplied(slice("myapp-1", "myapp", 80, &["10.244.1.57", "10.244.1.58"])),
    ]
}

fn check(report: &SyncReport, expected: Expect) {
    let lines: String = report.skipped.iter().map(|reason| format!("! {reason}\n")).collect();
    expected.assert_eq(&format!("{}{lines}", report.plan));
}

/// A kernel whose lists omit all virtual servers, and that does not ask for them one by one.
struct Forgetful<'a>(&'a mut FakeKernel);

impl Kernel for Forgetful<'_> {
    fn prepare(&mut self) -> Result<(), KernelUnavailable> {
        self.0.prepare()
    }

    fn virtual_servers(
        &mut self,
        keys: &[VirtualServerKey],
    ) -> Result<BTreeMap<VirtualServerKey, VirtualServer>, KernelUnavailable> {
        self.0.virtual_servers(keys)
    }

    fn read_state(&mut self, believed: &State) -> Result<State, KernelUnavailable> {
        Ok(State { virtual_servers: BTreeMap::new(), ..self.0.read_state(believed)? })
    }

    fn connections(&mut self, servers: &[VirtualServerKey]) -> Result<ConnectionCounts, KernelUnavailable> {
        self.0.connections(servers)
    }

    fn apply(&mut self, plan: &Plan) -> Report {
        self.0.apply(plan)
    }
}

#[test]
fn service_lifecycle_creates_updates_and_removes_state() {
    let (mut engine, mut kernel) = start();
    check(
        &sync(&mut engine, &mut kernel, 0, myapp()),
        expect![[r#"
            + element served { 10.111.98.163 . tcp . 80 } comment "default/myapp"
            + element cluster-ips { 10.111.98.163 . tcp . 80 }
            + element vips { 10.111.98.163 }
            + element hairpin { 10.244.1.57 . 10.244.1.57 . tcp . 80 }
            + element hairpin { 10.244.1.58 . 10.244.1.58 . tcp . 80 }
            + virtual server TCP 10.111.98.163:80 rr
            + real server TCP 10.111.98.163:80 -> 10.244.1.57:80 Masq 1
            + real server TCP 10.111.98.163:80 -> 10.244.1.58:80 Masq 1
            + address 10.111.98.163
        "#]],
    );
    let moved = slice("myapp-1", "myapp", 80, &["10.244.1.58", "10.244.2.50"]);
    check(
        &sync(&mut engine, &mut kernel, 1, [Event::SliceApplied(moved)]),
        expect![[r#"
            + element hairpin { 10.244.2.50 . 10.244.2.50 . tcp . 80 }
            ~ real server TCP 10.111.98.163:80 -> 10.244.1.57:80 Masq 0
            + real server TCP 10.111.98.163:80 -> 10.244.2.50:80 Masq 1
            - element hairpin { 10.244.1.57 . 10.244.1.57 . tcp . 80 }
        "#]],
    );
    check(
        &sync(&mut engine, &mut kernel, 2, [Event::ServiceRemoved(ServiceId::new("default", "myapp"))]),
        expect![[r#"
            - address 10.111.98.163
            - virtual server TCP 10.111.98.163:80
            - element served { 10.111.98.163 . tcp . 80 }
            - element cluster-ips { 10.111.98.163 . tcp . 80 }
            - element vips { 10.111.98.163 }
            - element hairpin { 10.244.1.58 . 10.244.1.58 . tcp . 80 }
            - element hairpin { 10.244.2.50 . 10.244.2.50 . tcp . 80 }
        "#]],
    );
    assert_eq!(kernel.state(), State::default());
    assert_eq!(kernel.reads, 1);
}

#[test]
fn repeated_event_plans_no_changes() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, myapp());
    check(&sync(&mut engine, &mut kernel, 1, myapp()), expect![""]);
    check(&sync(&mut engine, &mut kernel, 31, []), expect![""]);
    assert_eq!(kernel.reads, 2);
}

#[test]
fn serving_terminating_endpoints_take_traffic_only_if_none_is_ready() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, myapp());
    let half = slice("myapp-1", "myapp", 80, &["10.244.1.57~", "10.244.1.58"]);
    check(
        &sync(&mut engine, &mut kernel, 1, [Event::SliceApplied(half)]),
        expect![[r#"
            ~ real server TCP 10.111.98.163:80 -> 10.244.1.57:80 Masq 0
        "#]],
    );
    let all = slice("myapp-1", "myapp", 80, &["10.244.1.57~", "10.244.1.58!"]);
    check(
        &sync(&mut engine, &mut kernel, 2, [Event::SliceApplied(all)]),
        expect![[r#"
            ~ real server TCP 10.111.98.163:80 -> 10.244.1.57:80 Masq 1
            ~ real server TCP 10.111.98.163:80 -> 10.244.1.58:80 Masq 0
        "#]],
    );
}

#[test]
fn unlisted_real_server_is_removed_when_idle() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, myapp());
    let one = slice("myapp-1", "myapp", 80, &["10.244.1.58"]);
    sync(&mut engine, &mut kernel, 1, [Event::SliceApplied(one)]);
    let at = (key("TCP 10.111.98.163:80"), key("TCP 10.244.1.57:80"));
    let at = (at.0, crate::cluster::EndpointAddress { address: at.1.address, port: at.1.port });
    kernel.connections.insert(at, 3);
    check(&sync(&mut engine, &mut kernel, 5, []), expect![""]);
    assert_eq!(engine.next_sync(), Duration::from_secs(6));
    check(&sync(&mut engine, &mut kernel, 6, []), expect![""]);
    kernel.connections.clear();
    check(
        &sync(&mut engine, &mut kernel, 11, []),
        expect![[r#"
            - real server TCP 10.111.98.163:80 -> 10.244.1.57:80
        "#]],
    );
    assert_eq!(engine.draining(), 0);
    assert_eq!(kernel.reads, 1);
}

#[test]
fn node_ports_follow_the_addresses_of_the_node() {
    let (mut engine, mut kernel) = start();
    let web = Event::ServiceApplied(service("web", &["10.109.102.59"], &[(80, Some(30080))]));
    check(
        &sync(&mut engine, &mut kernel, 0, [web]),
        expect![[r#"
            + element served { 10.109.102.59 . tcp . 80 } comment "default/web"
            + element cluster-ips { 10.109.102.59 . tcp . 80 }
            + element no-endpoints { 10.109.102.59 . tcp . 80 }
            + element vips { 10.109.102.59 }
            + virtual server TCP 10.109.102.59:80 rr
            + address 10.109.102.59
            ! Service default/web has a node port, and no IPv4 address of this node serves node ports
        "#]],
    );
    check(
        &sync(&mut engine, &mut kernel, 1, [addresses(&["192.168.128.1", "fd00::1"])]),
        expect![[r#"
            + element served { 192.168.128.1 . tcp . 30080 } comment "default/web"
            + element masquerade-always { 192.168.128.1 . tcp . 30080 }
            + element no-endpoints { 192.168.128.1 . tcp . 30080 }
            + virtual server TCP 192.168.128.1:30080 rr
        "#]],
    );
    check(
        &sync(&mut engine, &mut kernel, 2, [addresses(&["192.168.128.2"])]),
        expect![[r#"
            + element served { 192.168.128.2 . tcp . 30080 } comment "default/web"
            + element masquerade-always { 192.168.128.2 . tcp . 30080 }
            + element no-endpoints { 192.168.128.2 . tcp . 30080 }
            + virtual server TCP 192.168.128.2:30080 rr
            - virtual server TCP 192.168.128.1:30080
            - element served { 192.168.128.1 . tcp . 30080 }
            - element masquerade-always { 192.168.128.1 . tcp . 30080 }
            - element no-endpoints { 192.168.128.1 . tcp . 30080 }
        "#]],
    );
}

#[test]
fn older_service_has_a_shared_key_until_it_is_removed() {
    let (mut engine, mut kernel) = start();
    let young = Service { created: 20, ..service("a-young", &["10.0.0.1"], &[(80, Some(30080))]) };
    let old = Service { created: 10, ..service("old", &["10.0.0.1"], &[(80, Some(30080))]) };
    let host = addresses(&["192.168.128.1"]);
    sync(&mut engine, &mut kernel, 0, [host, Event::ServiceApplied(young)]);
    check(
        &sync(&mut engine, &mut kernel, 1, [Event::ServiceApplied(old)]),
        expect![[r#"
            ~ element served { 10.0.0.1 . tcp . 80 } comment "default/old"
            ~ element served { 192.168.128.1 . tcp . 30080 } comment "default/old"
            ! Service default/a-young does not get TCP 10.0.0.1:80: Service default/old has priority by kind of address, age or name
            ! Service default/a-young does not get node port TCP 30080: Service default/old has priority by kind of address, age or name
        "#]],
    );
    check(
        &sync(&mut engine, &mut kernel, 2, [Event::ServiceRemoved(ServiceId::new("default", "old"))]),
        expect![[r#"
            ~ element served { 10.0.0.1 . tcp . 80 } comment "default/a-young"
            ~ element served { 192.168.128.1 . tcp . 30080 } comment "default/a-young"
        "#]],
    );
}

#[test]
fn shared_vip_stays_bound_while_any_service_uses_it() {
    let (mut engine, mut kernel) = start();
    let tcp = service("tcp", &["10.96.0.10"], &[(53, None)]);
    let mut udp = service("udp", &["10.96.0.10"], &[(53, None)]);
    udp.ports[0].protocol = Protocol::Udp;
    sync(&mut engine, &mut kernel, 0, [Event::ServiceApplied(tcp), Event::ServiceApplied(udp)]);
    sync(&mut engine, &mut kernel, 1, [Event::ServiceRemoved(ServiceId::new("default", "tcp"))]);
    assert_eq!(kernel.state().bound_vips.len(), 1);
    sync(&mut engine, &mut kernel, 2, [Event::ServiceRemoved(ServiceId::new("default", "udp"))]);
    assert_eq!(kernel.state(), State::default());
}

#[test]
fn failed_change_is_retried_and_the_others_are_made() {
    let (mut engine, mut kernel) = start();
    kernel.reject.push("+ real server TCP 10.111.98.163:80 -> 10.244.1.57:80 Masq 1".into());
    myapp().into_iter().for_each(|event| engine.apply(event));
    let failed = engine.sync(&mut kernel, Duration::ZERO);
    assert_eq!(failed.failures.len(), 1);
    assert!(!engine.is_healthy());
    assert!(kernel.state().bound_vips.len() == 1);
    assert_eq!(engine.next_sync(), Duration::from_secs(1));
    kernel.reject.clear();
    check(
        &sync(&mut engine, &mut kernel, 1, []),
        expect![[r#"
            + real server TCP 10.111.98.163:80 -> 10.244.1.57:80 Masq 1
        "#]],
    );
    assert!(engine.is_healthy());
}

#[test]
fn unreadable_kernel_is_not_treated_as_empty() {
    let (mut engine, mut kernel) = start();
    kernel.unreadable = true;
    myapp().into_iter().for_each(|event| engine.apply(event));
    let failed = engine.sync(&mut kernel, Duration::ZERO);
    assert!(failed.unavailable.is_some() && failed.plan.is_empty() && !engine.is_healthy());
    // The engine backs off: it does not retry at once, and an event does not change that.
    assert_eq!(engine.next_sync(), Duration::from_secs(1));
    let waiting = sync(&mut engine, &mut kernel, 0, []);
    assert!(waiting.unavailable.is_none() && waiting.plan.is_empty());
    assert_eq!(kernel.reads, 1);
    kernel.unreadable = false;
    assert!(!sync(&mut engine, &mut kernel, 1, []).plan.is_empty());
}

/// The only endpoint serves while it terminates. Once it is gone, clients would hang on it.
#[test]
fn last_terminating_endpoint_is_removed_when_it_leaves_the_list() {
    let (mut engine, mut kernel) = start();
    let [service, Event::SliceApplied(mut slice)] = myapp() else { panic!() };
    slice.endpoints.truncate(1);
    sync(&mut engine, &mut kernel, 0, [service, Event::SliceApplied(slice.clone())]);
    slice.endpoints[0].conditions = Conditions::SERVING_TERMINATING;
    assert!(sync(&mut engine, &mut kernel, 1, [Event::SliceApplied(slice.clone())]).plan.is_empty());
    slice.endpoints.clear();
    check(
        &sync(&mut engine, &mut kernel, 2, [Event::SliceApplied(slice)]),
        expect![[r#"
            + element no-endpoints { 10.111.98.163 . tcp . 80 }
            - real server TCP 10.111.98.163:80 -> 10.244.1.57:80
            - element hairpin { 10.244.1.57 . 10.244.1.57 . tcp . 80 }
        "#]],
    );
}

#[test]
fn address_is_unbound_after_a_failed_unbind_and_a_restart() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, myapp());
    kernel.reject.push("- address".into());
    engine.apply(Event::ServiceRemoved(ServiceId::new("default", "myapp")));
    assert!(!engine.sync(&mut kernel, Duration::from_secs(1)).failures.is_empty());
    kernel.reject.clear();
    // A restarted engine unbinds it too.
    sync(&mut engine_with(Config::new("node-1")), &mut kernel, 2, []);
    assert_eq!(kernel.state(), State::default());
}
