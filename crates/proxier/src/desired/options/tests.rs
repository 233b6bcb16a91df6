mod forwarding;

use expect_test::{Expect, expect};
use ipvs_netlink::{Scheduler, Tunnel};

use crate::{
    config::Config,
    fake::FakeKernel,
    model::{Forwarding::*, *},
    set::KeySet,
    testing::{addresses, engine_with, port, service, slice, start, sync, with_protocol},
};

/// Endpoints listen on the Service's port, on this node (`10.1.1.…`), another (`10.1.2.…`) or an unknown one.
fn web(options: ServiceOptions, endpoints: &[&str]) -> [Event; 2] {
    let service = Service { options: Some(Box::new(options)), ..service("web", &["10.0.0.1"], &[(80, None)]) };
    let mut slice = slice("web-1", "web", 80, endpoints);
    for endpoint in &mut slice.endpoints {
        endpoint.node = match endpoint.address.to_string() {
            ip if ip.starts_with("10.1.1.") => Some("node-1".into()),
            ip if ip.starts_with("10.1.2.") => Some("node-2".into()),
            _ => None,
        };
    }
    [Event::ServiceApplied(service), Event::SliceApplied(slice)]
}

fn udp([service, slice]: [Event; 2]) -> [Event; 2] {
    let (Event::ServiceApplied(service), Event::SliceApplied(slice)) = (service, slice) else { panic!() };
    with_protocol(service, slice, Protocol::Udp)
}

/// Compares the IPVS and masquerade changes of the first plan for an empty kernel, and the skipped reasons.
fn check(events: impl IntoIterator<Item = Event>, expected: Expect) {
    let (mut engine, mut kernel) = start();
    let report = sync(&mut engine, &mut kernel, 0, events);
    expected.assert_eq(&text(&report));
}

fn text(report: &crate::SyncReport) -> String {
    let plan = report.plan.to_string();
    let of_interest = |line: &&str| !line.contains("served") && !line.contains("vips") && !line.contains("+ address");
    let plan: String = plan.lines().filter(of_interest).map(|line| format!("{line}\n")).collect();
    plan + &report.skipped.iter().map(|reason| format!("! {reason}\n")).collect::<String>()
}

fn forwarded(forwarding: Forwarding) -> ServiceOptions {
    ServiceOptions { forwarding, ..ServiceOptions::DEFAULT }
}

#[test]
fn scheduler_options_set_the_scheduler_and_its_hash_flags() {
    let options = |scheduler, hash_on, hash_fallback| ServiceOptions {
        scheduler: Some(scheduler),
        hash_on,
        hash_fallback,
        ..ServiceOptions::DEFAULT
    };
    let (address, port) = (Some(HashOn::Address), Some(HashOn::AddressAndPort));
    let all = [
        options(Scheduler::WLC, None, None),
        options(Scheduler::SH, None, None),
        options(Scheduler::SH, port, Some(true)),
        options(Scheduler::SH, address, Some(false)),
        options(Scheduler::MH, None, None),
        options(Scheduler::MH, address, None),
        options(Scheduler::MH, None, Some(false)),
        options(Scheduler::WRR, port, None),
        ServiceOptions { hash_fallback: Some(false), ..ServiceOptions::DEFAULT },
    ];
    let texts = all.map(|options| {
        let (mut engine, mut kernel) = start();
        let [service, _] = web(options, &[]);
        text(&sync(&mut engine, &mut kernel, 0, [service]))
    });
    let lines = texts.concat().lines().filter(|line| !line.contains("element")).collect::<Vec<_>>().join("\n");
    expect![[r#"
        + virtual server TCP 10.0.0.1:80 wlc
        + virtual server TCP 10.0.0.1:80 sh (sh-fallback)
        + virtual server TCP 10.0.0.1:80 sh (sh-fallback,sh-port)
        + virtual server TCP 10.0.0.1:80 sh
        + virtual server TCP 10.0.0.1:80 mh (mh-fallback,mh-port)
        + virtual server TCP 10.0.0.1:80 mh (mh-fallback)
        + virtual server TCP 10.0.0.1:80 mh (mh-port)
        + virtual server TCP 10.0.0.1:80 wrr
        ! Service default/web configures hashing, and its scheduler wrr does not hash. Only sh and mh do
        + virtual server TCP 10.0.0.1:80 rr
        ! Service default/web configures hashing, and its scheduler rr does not hash. Only sh and mh do"#]]
    .assert_eq(&lines);
}

/// Once the engine knows that the kernel lacks a scheduler, it does not ask for it again.
#[test]
fn missing_scheduler_is_replaced_by_the_node_default() {
    let (mut engine, mut kernel) = start();
    kernel.missing_schedulers.push(Scheduler::TWOS);
    let twos = ServiceOptions { scheduler: Some(Scheduler::TWOS), ..ServiceOptions::DEFAULT };
    web(twos, &["10.1.1.1"]).into_iter().for_each(|event| engine.apply(event));
    let first = engine.sync(&mut kernel, Default::default());
    assert!(!first.failures.is_empty());
    assert_eq!(engine.next_sync(), Default::default(), "at once");
    let second = sync(&mut engine, &mut kernel, 0, []);
    let [another, _] =
        web(ServiceOptions { scheduler: Some(Scheduler::TWOS), local_weight: 2, ..ServiceOptions::DEFAULT }, &[]);
    let third = sync(&mut engine, &mut kernel, 1, [another]);
    assert!(engine.is_healthy());
    expect![[r#"
        + virtual server TCP 10.0.0.1:80 rr
        + real server TCP 10.0.0.1:80 -> 10.1.1.1:80 Masq 1
        - element no-endpoints { 10.0.0.1 . tcp . 80 }
        ! Service default/web is scheduled by rr: the kernel has no scheduler twos. Load the module ip_vs_twos and restart this proxy
        -
        ~ real server TCP 10.0.0.1:80 -> 10.1.1.1:80 Masq 2
    "#]].assert_eq(&[text(&second), text(&third)].join("-\n"));
}

#[test]
fn disabled_scheduler_is_never_requested_from_the_kernel() {
    let missing_schedulers = [Scheduler::LBLC].into();
    let mut engine = engine_with(Config { missing_schedulers, ..Config::new("node-1") });
    let mut kernel = FakeKernel::default();
    let lblc = ServiceOptions { scheduler: Some(Scheduler::LBLC), ..ServiceOptions::DEFAULT };
    let report = sync(&mut engine, &mut kernel, 0, web(lblc, &["10.1.1.1"]));
    assert!(!text(&report).contains(":80 lblc"), "{}", text(&report));
    assert!(text(&report).contains("Load the module ip_vs_lblc"), "{}", text(&report));
}

#[test]
fn endpoint_weights_are_multiplied_by_node_and_local_factors() {
    let weighted = ServiceOptions {
        scheduler: Some(Scheduler::WRR),
        local_weight: 10,
        node_weights: [("node-1".into(), 2), ("node-2".into(), 3)].into(),
        ..ServiceOptions::DEFAULT
    };
    check(
        web(weighted, &["10.1.1.1", "10.1.2.1", "10.1.2.2!", "10.9.9.9"]),
        expect![[r#"
            + element cluster-ips { 10.0.0.1 . tcp . 80 }
            + element hairpin { 10.1.1.1 . 10.1.1.1 . tcp . 80 }
            + element hairpin { 10.9.9.9 . 10.9.9.9 . tcp . 80 }
            + virtual server TCP 10.0.0.1:80 wrr
            + real server TCP 10.0.0.1:80 -> 10.1.1.1:80 Masq 20
            + real server TCP 10.0.0.1:80 -> 10.1.2.1:80 Masq 3
            + real server TCP 10.0.0.1:80 -> 10.9.9.9:80 Masq 1
        "#]],
    );
    // Weight 0 has the same effect as not ready.
    let none_here = ServiceOptions { local_weight: 0, ..ServiceOptions::DEFAULT };
    check(
        web(none_here.clone(), &["10.1.1.1", "10.1.2.1"]),
        expect![[r#"
        + element cluster-ips { 10.0.0.1 . tcp . 80 }
        + element hairpin { 10.1.1.1 . 10.1.1.1 . tcp . 80 }
        + virtual server TCP 10.0.0.1:80 rr
        + real server TCP 10.0.0.1:80 -> 10.1.2.1:80 Masq 1
    "#]],
    );
    check(
        web(none_here, &["10.1.1.1"]),
        expect![[r#"
        + element cluster-ips { 10.0.0.1 . tcp . 80 }
        + element no-endpoints { 10.0.0.1 . tcp . 80 }
        + element hairpin { 10.1.1.1 . 10.1.1.1 . tcp . 80 }
        + virtual server TCP 10.0.0.1:80 rr
    "#]],
    );
    let heavy = ServiceOptions {
        node_weights: [("node-2".into(), u16::MAX)].into(),
        local_weight: 2,
        ..ServiceOptions::DEFAULT
    };
    check(
        web(heavy, &["10.1.1.1", "10.1.2.1"]),
        expect![[r#"
            + element cluster-ips { 10.0.0.1 . tcp . 80 }
            + element hairpin { 10.1.1.1 . 10.1.1.1 . tcp . 80 }
            + virtual server TCP 10.0.0.1:80 rr
            + real server TCP 10.0.0.1:80 -> 10.1.1.1:80 Masq 2
            + real server TCP 10.0.0.1:80 -> 10.1.2.1:80 Masq 65535
            ! Service default/web has weights, and its scheduler rr ignores them
        "#]],
    );
}

#[test]
fn slice_weights_apply_to_a_service_without_annotations() {
    let [service, slice] = web(ServiceOptions::DEFAULT, &["10.1.1.1", "10.1.2.1"]);
    let Event::SliceApplied(mut slice) = slice else { panic!() };
    slice.endpoints[1].weight = 5;
    check(
        [service, Event::SliceApplied(slice)],
        expect![[r#"
            + element cluster-ips { 10.0.0.1 . tcp . 80 }
            + element hairpin { 10.1.1.1 . 10.1.1.1 . tcp . 80 }
            + virtual server TCP 10.0.0.1:80 rr
            + real server TCP 10.0.0.1:80 -> 10.1.1.1:80 Masq 1
            + real server TCP 10.0.0.1:80 -> 10.1.2.1:80 Masq 5
            ! Service default/web has weights, and its scheduler rr ignores them
        "#]],
    );
}

/// The engine also recomputes only this Service.
#[test]
fn changed_service_options_update_existing_virtual_servers() {
    let (mut engine, mut kernel) = start();
    let endpoints = ["10.1.1.1", "192.168.0.7"];
    sync(&mut engine, &mut kernel, 0, web(ServiceOptions::DEFAULT, &endpoints));
    sync(&mut engine, &mut kernel, 0, [Event::ServiceApplied(service("other", &["10.0.0.2"], &[(80, None)]))]);
    let steps = [
        forwarded(Direct),
        forwarded(Gre),
        ServiceOptions { scheduler: Some(Scheduler::SH), local_weight: 3, ..forwarded(Gre) },
        ServiceOptions::DEFAULT,
    ];
    let texts: Vec<String> =
        steps.into_iter().map(|options| text(&sync(&mut engine, &mut kernel, 1, web(options, &endpoints)))).collect();
    expect![[r#"
        + element direct-return { 10.0.0.1 . tcp . 80 }
        ~ real server TCP 10.0.0.1:80 -> 10.1.1.1:80 Route 1
        ~ real server TCP 10.0.0.1:80 -> 192.168.0.7:80 Route 1
        - element cluster-ips { 10.0.0.1 . tcp . 80 }
        -
        ~ real server TCP 10.0.0.1:80 -> 10.1.1.1:80 Tunnel 1
        ~ real server TCP 10.0.0.1:80 -> 192.168.0.7:80 Tunnel 1
        -
        ~ virtual server TCP 10.0.0.1:80 sh (sh-fallback)
        ~ real server TCP 10.0.0.1:80 -> 10.1.1.1:80 Tunnel 3
        -
        + element cluster-ips { 10.0.0.1 . tcp . 80 }
        ~ virtual server TCP 10.0.0.1:80 rr
        ~ real server TCP 10.0.0.1:80 -> 10.1.1.1:80 Masq 1
        ~ real server TCP 10.0.0.1:80 -> 192.168.0.7:80 Masq 1
        - element direct-return { 10.0.0.1 . tcp . 80 }
    "#]]
    .assert_eq(&texts.join("-\n"));
}

#[test]
fn service_option_max_drain_time_limits_draining() {
    let (mut engine, mut kernel) = start();
    let within = |seconds| ServiceOptions {
        max_drain_time: Some(std::time::Duration::from_secs(seconds)),
        ..ServiceOptions::DEFAULT
    };
    let both = ["10.1.1.1", "10.1.2.1"];
    sync(&mut engine, &mut kernel, 0, web(within(3), &both));
    let (server, endpoint) = (crate::testing::key("TCP 10.0.0.1:80"), crate::testing::key("TCP 10.1.2.1:80"));
    let endpoint = crate::cluster::EndpointAddress { address: endpoint.address, port: endpoint.port };
    kernel.connections.insert((server, endpoint), 1);
    let left = text(&sync(&mut engine, &mut kernel, 1, web(within(3), &both[..1])));
    let early = text(&sync(&mut engine, &mut kernel, 3, []));
    // Sooner than the usual count of connections.
    assert_eq!(engine.next_sync().as_secs(), 4);
    let over = text(&sync(&mut engine, &mut kernel, 4, []));
    // The endpoint returns and leaves again. A shorter time takes effect at once, and 0 removes it at once.
    sync(&mut engine, &mut kernel, 5, web(within(600), &both));
    sync(&mut engine, &mut kernel, 6, web(within(600), &both[..1]));
    let shorter = text(&sync(&mut engine, &mut kernel, 10, web(within(2), &both[..1])));
    sync(&mut engine, &mut kernel, 11, web(within(0), &both));
    let none = text(&sync(&mut engine, &mut kernel, 12, web(within(0), &both[..1])));
    assert_eq!(engine.draining(), 0);
    expect![[r#"
        ~ real server TCP 10.0.0.1:80 -> 10.1.2.1:80 Masq 0
        -
        -
        - real server TCP 10.0.0.1:80 -> 10.1.2.1:80
        -
        - real server TCP 10.0.0.1:80 -> 10.1.2.1:80
        -
        - real server TCP 10.0.0.1:80 -> 10.1.2.1:80
    "#]]
    .assert_eq(&[left, early, over, shorter, none].join("-\n"));
}
