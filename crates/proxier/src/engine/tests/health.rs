use super::super::*;
use crate::{fake::FakeKernel, model::*, testing::*};

/// Ten dual-stack Services on a kernel that rejects some changes. Returns the unhealthy families.
fn failing(reject: &[&str]) -> Vec<Family> {
    let (mut engine, kernel) = start();
    let reject = reject.iter().map(|&text| text.to_owned()).collect();
    let mut kernel = FakeKernel { reject, ..kernel };
    let events = (1..=10).map(|number| {
        let (four, six) = (format!("10.96.0.{number}"), format!("fd00:96::{number}"));
        let mut service = service(&format!("s{number}"), &[&four, &six], &[(80, None), (443, None)]);
        service.ports[1].name = "tls".into();
        Event::ServiceApplied(service)
    });
    let range = ServiceCidr { name: "kubernetes".into(), ranges: vec!["10.96.0.0/16".parse().unwrap()] };
    events.chain([Event::ServiceCidrApplied(range)]).for_each(|event| engine.apply(event));
    let report = engine.sync(&mut kernel, Duration::ZERO);
    assert_eq!(report.failures.is_empty(), kernel.reject.is_empty(), "{:?}", report.failures);
    Family::ALL.into_iter().filter(|family| engine.is_family_unhealthy(&report, *family)).collect()
}

#[test]
fn family_stays_healthy_if_few_services_fail() {
    assert_eq!(failing(&[]), []);
    assert_eq!(failing(&["virtual server TCP 10.96.0.7:"]), []);
    assert_eq!(failing(&["10.96.0.7:80", "10.96.0.8:443", "+ address 10.96.0.9"]), []);
}

#[test]
fn family_is_unhealthy_if_most_of_its_services_fail() {
    assert_eq!(failing(&["+ virtual server TCP [fd00"]), [Family::V6]);
    assert_eq!(failing(&["+ virtual server TCP 10.", "+ virtual server TCP [fd00"]), Family::ALL);
    // Without their addresses, clients could not reach these Services.
    assert_eq!(failing(&["+ address 10."]), [Family::V4]);
}

#[test]
fn family_is_unhealthy_if_a_service_range_fails() {
    assert_eq!(failing(&["10.96.0.0/16"]), [Family::V4]);
}

#[test]
fn unreadable_kernel_makes_all_families_unhealthy() {
    let (mut engine, kernel) = start();
    let mut kernel = FakeKernel { unreadable: true, ..kernel };
    let report = engine.sync(&mut kernel, Duration::ZERO);
    assert!(Family::ALL.into_iter().all(|family| engine.is_family_unhealthy(&report, family)));
}
