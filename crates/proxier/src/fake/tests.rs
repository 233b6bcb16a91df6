//! The fake kernel rejects the changes that Linux rejects.

use std::net::IpAddr;

use ipvs_netlink::{Destination, Forwarding, Scheduler, VirtualServer};

use super::*;
use crate::{
    cluster::EndpointAddress,
    set::{Element, KeySet},
    testing::key,
};

fn ready() -> FakeKernel {
    let mut kernel = FakeKernel::default();
    kernel.prepare().unwrap();
    kernel
}

fn add(element: Element) -> Change {
    Change::AddElement { element, comment: None, replace: false }
}

fn served(comment: &str, replace: bool) -> Change {
    let element = Element::Key(KeySet::Served, key("TCP 10.0.0.1:80"));
    Change::AddElement { element, comment: Some(comment.into()), replace }
}

fn remove(element: Element) -> Change {
    Change::RemoveElement { element, with_server: false }
}

fn endpoint(text: &str) -> EndpointAddress {
    let at = key(text);
    EndpointAddress { address: at.address, port: at.port }
}

/// Applies changes one by one, and returns the failure of the last one. The others must succeed.
fn last(kernel: &mut FakeKernel, changes: &[Change]) -> Option<(Cause, String)> {
    let mut outcome = None;
    for change in changes {
        assert_eq!(outcome, None, "before {change}");
        let report = kernel.apply(&Plan::new(vec![change.clone()]));
        outcome = report.failures.into_iter().next().map(|failure| (failure.cause, failure.reason.to_string()));
    }
    outcome
}

fn rejected(reason: &str) -> Option<(Cause, String)> {
    Some((Cause::Rejected, reason.into()))
}

#[test]
fn overlapping_ranges_in_a_set_are_rejected() {
    let range = |text: &str| add(Element::PodSource(text.parse().unwrap()));
    let allowed =
        |port: u16, text: &str| add(Element::Allowed(key(&format!("TCP 203.0.113.1:{port}")), text.parse().unwrap()));
    let exists = rejected("File exists (os error 17)");
    let large = "10.0.0.0/8";
    for small in ["10.0.0.0/16", "10.1.0.0/16", "10.255.255.255/32"] {
        for [one, other] in [[large, small], [small, large]] {
            assert_eq!(last(&mut ready(), &[range(one), range(other)]), exists);
            assert_eq!(last(&mut ready(), &[allowed(80, one), allowed(80, other)]), exists);
            assert_eq!(last(&mut ready(), &[allowed(80, one), allowed(443, other)]), None);
        }
    }
    for free in ["9.255.255.255/32", "11.0.0.0/8", large] {
        assert_eq!(last(&mut ready(), &[range(large), range(free)]), None);
    }
    let part = remove(Element::PodSource("10.0.0.0/16".parse().unwrap()));
    let mut kernel = ready();
    assert_eq!(last(&mut kernel, &[range(large), part]), None, "it is not there, and so nothing is to be done");
    assert_eq!(kernel.state().pod_sources.len(), 1);
}

#[test]
fn second_value_for_a_map_key_is_rejected() {
    let to = |target| Element::ShortCircuit(key("TCP 203.0.113.1:80"), endpoint(target));
    let (one, other) = (to("TCP 10.0.0.1:80"), to("TCP 10.0.0.2:80"));
    assert_eq!(last(&mut ready(), &[add(one), add(other)]), rejected("File exists (os error 17)"));
    assert_eq!(last(&mut ready(), &[add(one), add(one), remove(other), add(other)]), None);
    let replace = Change::AddElement { element: other, comment: None, replace: true };
    assert_eq!(last(&mut ready(), &[add(one), replace.clone()]), None);
    assert_eq!(last(&mut ready(), &[replace]), rejected("No such file or directory (os error 2)"));
}

#[test]
fn existing_element_keeps_its_comment_until_replaced() {
    let mut kernel = ready();
    let comment =
        |kernel: &FakeKernel| kernel.state().elements[&key("TCP 10.0.0.1:80")].comment.as_deref().map(str::to_owned);
    assert_eq!(last(&mut kernel, &[served("default/a", false), served("default/b", false)]), None);
    assert_eq!(comment(&kernel).as_deref(), Some("default/a"));
    assert_eq!(kernel.repeated, [served("default/b", false)]);
    assert_eq!(last(&mut kernel, &[served("default/b", true)]), None);
    assert_eq!(comment(&kernel).as_deref(), Some("default/b"));
}

#[test]
fn additions_fail_without_tables_or_device() {
    let address: IpAddr = "10.0.0.1".parse().unwrap();
    let missing = rejected("No such file or directory (os error 2)");
    let mut kernel = FakeKernel::default();
    assert_eq!(last(&mut kernel, &[served("default/a", false)]), missing);
    assert_eq!(last(&mut kernel, &[remove(Element::Vip(address))]), None);
    assert_eq!(last(&mut kernel, &[Change::Bind(address)]), rejected("No such device (os error 19)"));
    assert_eq!(last(&mut kernel, &[Change::Unbind(address)]), None);
    kernel.prepare().unwrap();
    assert_eq!(last(&mut kernel, &[served("default/a", false), Change::Bind(address)]), None);
    assert_eq!(last(&mut kernel, &[Change::Bind(address)]), None, "it is bound already");
    kernel.elements = None;
    assert_eq!(last(&mut kernel, &[served("default/b", true)]), missing);
}

#[test]
fn ipvs_rejects_missing_and_duplicate_servers_with_linux_errnos() {
    let key = key("TCP 10.0.0.1:80");
    let address = endpoint("TCP 10.1.0.2:8080");
    let destination = Destination::new(Forwarding::Masq, 1);
    let add = Change::AddRealServer { key, address, destination };
    let update = Change::UpdateRealServer { key, address, destination };
    let config = VirtualServer::new(Scheduler::RR);
    let (no_process, no_entry) =
        (rejected("No such process (os error 3)"), rejected("No such file or directory (os error 2)"));
    let exists = Some((Cause::Exists, "File exists (os error 17)".into()));
    let mut kernel = ready();
    for change in [&add, &update, &Change::UpdateVirtualServer { key, config }] {
        assert_eq!(last(&mut kernel, std::slice::from_ref(change)), no_process);
    }
    assert_eq!(last(&mut kernel, &[Change::RemoveVirtualServer(key)]), None);
    assert_eq!(last(&mut kernel, &[Change::RemoveRealServer { key, address }]), no_process);
    let server = Change::AddVirtualServer { key, config };
    assert_eq!(last(&mut kernel, &[server.clone(), server.clone()]), exists);
    assert_eq!(last(&mut kernel, std::slice::from_ref(&update)), no_entry);
    assert_eq!(last(&mut kernel, &[Change::RemoveRealServer { key, address }]), None);
    assert_eq!(last(&mut kernel, &[add.clone(), update, add]), exists);
    kernel.missing_schedulers.push(Scheduler::SH);
    let config = VirtualServer::new(Scheduler::SH);
    let (cause, _) = last(&mut kernel, &[Change::UpdateVirtualServer { key, config }]).unwrap();
    assert_eq!(cause, Cause::NoScheduler);
    assert_eq!(last(&mut kernel, &[Change::AddVirtualServer { key, config }]), exists);
    assert_eq!(kernel.state().virtual_servers[&key].config.scheduler, Scheduler::RR);
}

#[test]
fn dump_gap_lasts_one_read_and_named_servers_are_queried() {
    let at = key("TCP 10.0.0.1:80");
    let mut kernel = ready();
    let config = VirtualServer::new(Scheduler::RR);
    let vip = add(Element::Vip(at.address));
    last(&mut kernel, &[served("default/a", false), vip, Change::AddVirtualServer { key: at, config }]);
    let whole = kernel.state();
    let nothing = State::default();
    kernel.unlisted = vec!["virtual server TCP 10.0.0.1".into(), "element vips".into()];
    let listed = kernel.read_state(&nothing).unwrap();
    assert_eq!(listed, State { recorded_vips: [].into(), ..whole.clone() }, "served names the virtual server");
    kernel.unlisted = vec!["virtual server".into(), "element served".into()];
    let (empty, expected) = (State::default().virtual_servers, whole.virtual_servers.clone());
    assert_eq!(kernel.clone().read_state(&nothing).unwrap().virtual_servers, empty);
    assert_eq!(kernel.read_state(&whole).unwrap().virtual_servers, expected);
    assert_eq!(kernel.read_state(&nothing).unwrap(), whole);
}

/// A kernel without virtual servers, and a plan that makes three.
fn three() -> (FakeKernel, Plan) {
    let servers = [1, 2, 3].map(|number| {
        let key = key(&format!("TCP 10.0.0.{number}:80"));
        Change::AddVirtualServer { key, config: VirtualServer::new(Scheduler::RR) }
    });
    (FakeKernel { made: Some(Vec::new()), ..ready() }, Plan::new(servers.to_vec()))
}

/// The numbers of the failed changes, and the number of virtual servers.
fn outcome(kernel: &mut FakeKernel, plan: &Plan) -> (Vec<usize>, usize) {
    let report = kernel.apply(plan);
    (report.failures.iter().map(|failure| failure.change).collect(), kernel.virtual_servers.len())
}

#[test]
fn fault_at_one_change_affects_one_plan() {
    let (mut kernel, plan) = three();
    kernel.faults = vec![(4, Fault::Reject(12))];
    assert_eq!(outcome(&mut kernel, &Plan::default()), (vec![], 0));
    assert_eq!(outcome(&mut kernel, &plan), (vec![1], 2), "the numbers count round the plan");
    for (fault, expected) in [
        (Fault::Unanswered, (vec![1], 2)),
        (Fault::AnswerLost, (vec![1], 3)),
        (Fault::AnswersLost, (vec![1, 2], 3)),
        (Fault::Kill, (vec![1, 2], 1)),
    ] {
        let (mut kernel, plan) = three();
        kernel.faults = vec![(1, fault.clone())];
        assert_eq!(outcome(&mut kernel, &plan), expected, "{fault:?}");
        assert_eq!(kernel.is_killed, fault == Fault::Kill);
        let made = kernel.made.unwrap();
        let servers = made.iter().filter(|made| matches!(made.change, Change::AddVirtualServer { .. }));
        assert_eq!(servers.count(), expected.1, "{fault:?}");
    }
}

#[test]
fn change_by_another_program_precedes_the_planned_change() {
    let (mut kernel, plan) = three();
    kernel.faults = vec![(0, Fault::OtherProgram(vec![plan.changes()[1].clone()]))];
    let report = kernel.apply(&plan);
    assert_eq!(report.failures.iter().map(|failure| failure.cause).collect::<Vec<_>>(), [Cause::Exists]);
    let by_other_program: Vec<bool> = kernel.made.unwrap().into_iter().map(|made| made.by_other_program).collect();
    assert_eq!(by_other_program, [true, false, false]);
}

#[test]
fn copy_of_the_record_outlives_a_flushed_ruleset() {
    let at = key("TCP 10.0.0.1:80");
    let config = VirtualServer::new(Scheduler::RR);
    let mut kernel = FakeKernel { record_copy: Some(RecordCopy::default()), ..ready() };
    last(&mut kernel, &[served("default/a", false), Change::AddVirtualServer { key: at, config }]);
    kernel.elements = None;
    kernel.unlisted = vec!["virtual server".into()];
    assert_eq!(kernel.read_state(&State::default()).unwrap().owned, [at].into());
    assert_eq!(last(&mut kernel, &[Change::RemoveVirtualServer(at)]), None);
    assert!(!kernel.is_recorded(at));
}
