//! The engine repairs changes of other programs when its caller reports that they are possible.

use std::{collections::BTreeSet, time::Duration};

use expect_test::expect;

use super::{check, myapp};
use crate::{state::ServerState, testing::*};
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
fn verification_repairs_a_changed_real_server_without_a_report() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, myapp());
    let key = key("TCP 10.111.98.163:80");
    kernel.virtual_servers.get_mut(&key).unwrap().real_servers.pop_first();
    check(&sync(&mut engine, &mut kernel, 1, []), expect![""]);
    let report = sync(&mut engine, &mut kernel, 2, []);
    assert_eq!((report.whole, report.drifted), (true, 1));
    check(
        &report,
        expect![[r#"
            + real server TCP 10.111.98.163:80 -> 10.244.1.57:80 Masq 1
        "#]],
    );
}

/// Another program removes its virtual server from the key of a Service.
#[test]
fn verification_serves_a_key_that_another_program_gave_up() {
    let (mut engine, mut kernel) = start();
    let key = key("TCP 10.111.98.163:80");
    let foreign = ServerState { config: VirtualServer::new(Scheduler::WLC), real_servers: [].into() };
    kernel.virtual_servers.insert(key, foreign);
    sync(&mut engine, &mut kernel, 0, myapp());
    sync(&mut engine, &mut kernel, 2, []);
    kernel.virtual_servers.clear();
    check(&sync(&mut engine, &mut kernel, 29, []), expect![""]);
    assert!(sync(&mut engine, &mut kernel, 31, []).plan.to_string().contains("+ virtual server TCP 10.111.98.163:80"));
}
