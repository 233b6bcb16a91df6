use expect_test::expect;

use super::*;

#[test]
fn udp_service_rejects_clients_before_its_last_real_server_goes() {
    let (mut engine, mut kernel) = start();
    sync(
        &mut engine,
        &mut kernel,
        0,
        with_protocol(
            service("dns", &["10.96.0.10"], &[(53, None)]),
            slice("dns-1", "dns", 53, &["10.244.1.2"]),
            Protocol::Udp,
        ),
    );
    check(
        &sync(&mut engine, &mut kernel, 1, [Event::SliceRemoved(SliceId::new("default", "dns-1"))]),
        expect![[r#"
            + element no-endpoints { 10.96.0.10 . udp . 53 }
            ~ real server UDP 10.96.0.10:53 -> 10.244.1.2:53 Masq 0
            - element hairpin { 10.244.1.2 . 10.244.1.2 . udp . 53 }
        "#]],
    );
    check(&sync(&mut engine, &mut kernel, 2, []), expect![""]);
    check(
        &sync(&mut engine, &mut kernel, 3, []),
        expect![[r#"
            - real server UDP 10.96.0.10:53 -> 10.244.1.2:53
            - flows UDP 10.96.0.10:53 -> 10.244.1.2:53
        "#]],
    );
}

#[test]
fn failed_flow_deletion_is_retried() {
    let (mut engine, mut kernel) = start();
    let dns = |addresses| {
        let slice = slice("dns-1", "dns", 53, addresses);
        with_protocol(service("dns", &["10.96.0.10"], &[(53, None)]), slice, Protocol::Udp)
    };
    sync(&mut engine, &mut kernel, 0, dns(&["10.244.1.2", "10.244.1.3", "10.244.1.4"]));
    sync(&mut engine, &mut kernel, 1, dns(&["10.244.1.4"]));
    kernel.reject.push("- flows".into());
    assert_eq!(engine.sync(&mut kernel, Duration::from_secs(3)).failures.len(), 2);
    kernel.reject.clear();
    // One of the endpoints has come back, and its flows are correct.
    check(
        &sync(&mut engine, &mut kernel, 4, dns(&["10.244.1.3", "10.244.1.4"])),
        expect![[r#"
            + element hairpin { 10.244.1.3 . 10.244.1.3 . udp . 53 }
            + real server UDP 10.96.0.10:53 -> 10.244.1.3:53 Masq 1
            - flows UDP 10.96.0.10:53 -> 10.244.1.2:53
        "#]],
    );
    check(&sync(&mut engine, &mut kernel, 60, []), expect![""]);
}

/// If the Service goes during the last answers of a UDP endpoint, its clients' flows must not stay.
#[test]
fn short_circuit_flows_are_deleted_with_a_udp_service() {
    let (mut engine, mut kernel) = start();
    let web = Service {
        external_policy: TrafficPolicy::Local,
        load_balancer_ips: ["203.0.113.1".parse().unwrap()].into(),
        ..service("web", &["10.0.0.1"], &[(80, None)])
    };
    let with = |addresses: &[&str]| with_protocol(web.clone(), slice("web-1", "web", 8080, addresses), Protocol::Udp);
    sync(&mut engine, &mut kernel, 0, with(&["10.1.0.2"]));
    sync(&mut engine, &mut kernel, 1, with(&[]));
    let gone = sync(&mut engine, &mut kernel, 2, [Event::ServiceRemoved(ServiceId::new("default", "web"))]);
    let to = gone.plan.to_string();
    assert!(to.contains("- flows UDP 203.0.113.1:80\n"), "{to}");
}
