//! The engine repairs changes of other programs when its caller reports that they are possible.

use std::{collections::BTreeSet, time::Duration};

use expect_test::expect;

use super::{check, myapp};
use crate::{
    model::{Event, ServiceId},
    state::VirtualServerState,
    testing::*,
};
use ipvs_netlink::{Scheduler, VirtualServer};

#[test]
fn requested_verification_reads_the_kernel_once_when_due() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, myapp());
    assert!(engine.has_bound("10.111.98.163".parse().unwrap()));
    kernel.addresses = Some(BTreeSet::new());
    engine.verify_at(Duration::from_secs(5));
    engine.verify_at(Duration::from_secs(9));
    check(&sync(&mut engine, &mut kernel, 4, []), expect![""]);
    assert_eq!(engine.next_sync(), Duration::from_secs(5));
    check(
        &sync(&mut engine, &mut kernel, 5, []),
        expect![[r#"
            + address 10.111.98.163
        "#]],
    );
    assert_eq!(engine.next_sync(), Duration::from_secs(7));
}

/// IPVS reports no changes.
#[test]
fn spot_check_leads_to_the_repair_of_a_removed_virtual_server() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, myapp());
    let key = key("TCP 10.111.98.163:80");
    kernel.virtual_servers.remove(&key);
    check(&sync(&mut engine, &mut kernel, 1, []), expect![""]);
    let report = sync(&mut engine, &mut kernel, 2, []);
    assert_eq!((report.is_full, report.drifted), (true, 3));
    check(
        &report,
        expect![[r#"
            + virtual server TCP 10.111.98.163:80 rr
            + real server TCP 10.111.98.163:80 -> 10.244.1.57:80 Masq 1
            + real server TCP 10.111.98.163:80 -> 10.244.1.58:80 Masq 1
        "#]],
    );
}

/// Another program removes its virtual server from the key of a Service.
#[test]
fn next_audit_serves_a_key_that_another_program_gave_up() {
    let (mut engine, mut kernel) = start();
    let key = key("TCP 10.111.98.163:80");
    let foreign = VirtualServerState { config: VirtualServer::new(Scheduler::WLC), real_servers: Default::default() };
    kernel.virtual_servers.insert(key, foreign);
    sync(&mut engine, &mut kernel, 0, myapp());
    sync(&mut engine, &mut kernel, 2, []);
    kernel.virtual_servers.clear();
    check(&sync(&mut engine, &mut kernel, 29, []), expect![""]);
    assert!(sync(&mut engine, &mut kernel, 31, []).plan.to_string().contains("+ virtual server TCP 10.111.98.163:80"));
}

/// A read of a large state takes long. The kernel does not report changes of sysctls.
#[test]
fn large_state_is_read_rarely_and_settings_are_corrected_every_period() {
    let (mut engine, mut kernel) = start();
    let endpoints: Vec<_> = (0..600).map(|number| format!("10.244.{}.{}", number / 250, number % 250)).collect();
    let endpoints: Vec<_> = endpoints.iter().map(String::as_str).collect();
    let events = [
        Event::ServiceApplied(service("web", &["10.96.0.1"], &[(80, None)])),
        Event::SliceApplied(slice("web-1", "web", 80, &endpoints)),
    ];
    assert!(sync(&mut engine, &mut kernel, 0, events).is_full);
    sync(&mut engine, &mut kernel, 1, []);
    let is_whole = |second| sync(&mut engine, &mut kernel, second, []).is_full;
    assert_eq!([29, 31, 59, 61, 92, 119, 121].map(is_whole), [false, false, false, true, false, false, true]);
    assert_eq!(kernel.corrections, 2, "at 31 and at 92");
}

/// While the engine reads the kernel, changes wait.
#[test]
fn changes_come_before_a_periodic_read_unless_it_is_a_period_late() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, myapp());
    let report =
        sync(&mut engine, &mut kernel, 31, [Event::ServiceApplied(service("web", &["10.96.0.1"], &[(80, None)]))]);
    assert!(!report.plan.is_empty() && !report.is_full);
    assert!(engine.next_sync() <= Duration::from_secs(31));
    assert!(sync(&mut engine, &mut kernel, 31, []).is_full);
    let report = sync(&mut engine, &mut kernel, 91, [Event::ServiceRemoved(ServiceId::new("default", "web"))]);
    assert!(!report.plan.is_empty() && report.is_full);
}
