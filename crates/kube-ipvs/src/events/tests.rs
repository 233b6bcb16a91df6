use std::time::Duration;

use expect_test::expect;
use jiff::Timestamp;
use proxier::{
    SyncReport,
    desired::Skipped,
    kernel::KernelUnavailable,
    model::{PortNumber, Protocol, ServicePortId, VirtualServerKey},
};
use tokio::sync::mpsc::{Receiver, channel};

use super::{event::event, *};
use crate::source::Problem;

fn web() -> About {
    About::Service(ServiceId::new("shop", "web"))
}

fn event_note(note: &str) -> EventNote {
    EventNote { about: web(), reason: "AddressInUse", note: note.into() }
}

fn to_post(event_note: EventNote) -> QueuedNote {
    QueuedNote { event_note, uid: None, fact: None }
}

fn received(said: &mut Receiver<QueuedNote>) -> Vec<QueuedNote> {
    std::iter::from_fn(|| said.try_recv().ok()).collect()
}

fn notes(said: &mut Receiver<QueuedNote>) -> Vec<String> {
    received(said).into_iter().map(|said| said.event_note.note).collect()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn event_regards_its_object() {
    let (namespace, made) = event(&to_post(event_note("why")), "node-1", Timestamp::UNIX_EPOCH);
    assert_eq!(namespace, "shop");
    expect![[r#"
        {
          "action": "Sync",
          "apiVersion": "events.k8s.io/v1",
          "eventTime": "1970-01-01T00:00:00.000000Z",
          "kind": "Event",
          "metadata": {
            "name": "web.d9207d2ec5f420bd",
            "namespace": "shop"
          },
          "note": "why",
          "reason": "AddressInUse",
          "regarding": {
            "apiVersion": "v1",
            "kind": "Service",
            "name": "web",
            "namespace": "shop"
          },
          "reportingController": "kube-ipvs",
          "reportingInstance": "node-1",
          "type": "Warning"
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&made).unwrap());
    let node = EventNote { about: About::Node, ..event_note("why") };
    let (namespace, made) = event(&to_post(node), "node-1", Timestamp::UNIX_EPOCH);
    assert_eq!((namespace.as_str(), &made["regarding"]["name"]), ("default", &"node-1".into()));
}

fn name(to_post: &QueuedNote, node: &str) -> String {
    let (_, made) = event(to_post, node, Timestamp::UNIX_EPOCH);
    made["metadata"]["name"].as_str().unwrap().to_owned()
}

#[test]
fn event_name_of_a_fact_is_the_same_on_every_node() {
    let of = |uid: &str, reason, note: &str| {
        let event_note = EventNote { reason, ..event_note(note) };
        QueuedNote { event_note, uid: Some(uid.into()), fact: None }
    };
    let fact = of("1", "AddressInUse", "why");
    assert_eq!(name(&fact, "node-1"), name(&fact, "node-2"));
    let others = [of("2", "AddressInUse", "why"), of("1", "PartIgnored", "why"), of("1", "AddressInUse", "other")];
    for other in others {
        assert_ne!(name(&fact, "node-1"), name(&other, "node-1"), "{other:?}");
    }
    // A problem of a node is a fact of that node only.
    let node = to_post(EventNote { about: About::Node, ..event_note("why") });
    assert_ne!(name(&node, "node-1")["node-1".len()..], name(&node, "node-2")["node-2".len()..]);
    // The text differs between nodes. The API server stores one of them, and it names its node.
    let words = |note: &str| QueuedNote { fact: Some("http".into()), ..to_post(event_note(note)) };
    assert_eq!(name(&words("at 10.0.0.1"), "node-1"), name(&words("at 10.0.0.2"), "node-2"));
    let (_, made) = event(&words("at 10.0.0.1"), "node-1", Timestamp::UNIX_EPOCH);
    let note = "at 10.0.0.1; found on node node-1. Other nodes can have it too: see their logs";
    assert_eq!(made["note"], note);
}

#[test]
fn event_name_is_cut_to_the_limit_of_the_api() {
    let slice = SliceId::new("shop", &format!("{}.{}", "a".repeat(235), "b".repeat(17)));
    let name = name(&to_post(EventNote { about: About::Slice(slice), ..event_note("why") }), "node-1");
    // The cut leaves a valid name.
    assert_eq!(name.len(), 235 + 17);
    assert!(name.starts_with(&format!("{}.", "a".repeat(235))), "{name}");
}

/// `kubectl describe service` looks for Events by the UID.
#[test]
fn event_carries_the_uid_of_its_service() {
    let (sender, mut said) = channel(10);
    let mut recorder = EventRecorder::new(sender);
    let web = ServiceId::new("shop", "web");
    let mut uid = |uid: Option<&str>, note: &str| {
        recorder.take_notes(vec![(web.clone(), uid.map(Into::into))], vec![event_note(note)], Duration::ZERO);
        let (_, made) = event(&said.try_recv().unwrap(), "node-1", Timestamp::UNIX_EPOCH);
        made["regarding"]["uid"].as_str().map(str::to_owned)
    };
    assert_eq!(uid(Some("4711"), "why").as_deref(), Some("4711"));
    // The Service is recreated under the same name, and then deleted.
    assert_eq!(uid(Some("4712"), "why").as_deref(), Some("4712"));
    assert_eq!(uid(None, "gone"), None);
}

#[test]
fn flapping_object_leaves_budget_for_others() {
    let (sender, mut said) = channel(200);
    let mut recorder = EventRecorder::new(sender);
    let mut record = |number: usize, about: About, minute: u64| {
        let event_note = EventNote { about, ..event_note(&format!("{number}")) };
        recorder.record(event_note, seconds(60 * minute));
        notes(&mut said).len()
    };
    assert_eq!((0..40).map(|number| record(number, web(), 0)).sum::<usize>(), 10);
    // The budgets of other objects are untouched. After five minutes there is room for one more.
    assert_eq!(record(0, About::Node, 0), 1);
    assert_eq!(record(100, web(), 4), 0);
    assert_eq!((record(101, web(), 5), record(102, web(), 5)), (1, 0));
    assert_eq!((0..40).map(|number| record(1000 + number, web(), 500)).sum::<usize>(), 10);
    // The Services of one namespace leave room for another namespace, and all of them for the Node.
    let of = |namespace: &str, number: usize| About::Service(ServiceId::new(namespace, &format!("{number}")));
    let all = |namespace: String| (0..40).map(move |number| (namespace.clone(), number));
    let mut count = |namespace: &str| {
        all(namespace.to_owned()).map(|(namespace, number)| record(0, of(&namespace, number), 1000)).sum::<usize>()
    };
    assert_eq!(["a", "b", "c", "d", "e"].map(&mut count), [30, 30, 30, 30, 0]);
    assert_eq!(record(1, About::Node, 1000), 1);
}

#[test]
fn same_fact_is_recorded_once_within_an_hour() {
    let (sender, mut said) = channel(10);
    let mut recorder = EventRecorder::new(sender);
    for minute in 0..=70 {
        recorder.record(event_note("why"), seconds(60 * minute));
    }
    recorder.record(event_note("another"), seconds(4200));
    let notes = notes(&mut said);
    assert_eq!(notes, ["why", "why", "another"]);
}

#[test]
fn repeated_facts_use_up_no_budget() {
    let (sender, mut said) = channel(10);
    let mut recorder = EventRecorder::new(sender);
    (0..1000).for_each(|_| recorder.record(event_note("why"), Duration::ZERO));
    recorder.record(event_note("new"), Duration::ZERO);
    assert_eq!(notes(&mut said), ["why", "new"]);
}

#[test]
fn full_queue_drops_facts_and_reserves_places_for_the_node() {
    let (sender, mut said) = channel(8);
    let mut recorder = EventRecorder::new(sender);
    for number in 0..5000 {
        let about = About::Service(ServiceId::new("shop", &number.to_string()));
        recorder.record(EventNote { about, ..event_note("why") }, Duration::ZERO);
    }
    recorder.record(EventNote { about: About::Node, ..event_note("mine") }, Duration::ZERO);
    let notes = notes(&mut said);
    assert_eq!((notes.len(), notes.last().map(String::as_str)), (7, Some("mine")));
}

fn key(address: &str) -> VirtualServerKey {
    VirtualServerKey { address: address.parse().unwrap(), protocol: Protocol::Tcp, port: PortNumber::MIN }
}

fn port(name: &str) -> ServicePortId {
    ServicePortId { service: ServiceId::new("shop", "web"), port: name.into() }
}

fn skipping(skipped: impl IntoIterator<Item = Skipped>) -> SyncReport {
    let mut report = SyncReport::default();
    report.skipped = skipped.into_iter().collect();
    report
}

#[test]
fn sync_report_is_recorded_on_node_and_service() {
    // `NodeAddress` is no problem, so it causes no Event.
    let (address, node) = ("192.0.2.1".parse().unwrap(), "a".into());
    let elsewhere = Skipped::AddressOfOtherNode { port: port("http"), address, node };
    let mut report = skipping([Skipped::ForeignVirtualServer { port: port("http"), key: key("10.96.0.1") }, elsewhere]);
    report.unavailable = Some(KernelUnavailable::new("IPVS", "it is not there"));
    let (sender, mut said) = channel(10);
    EventRecorder::new(sender).record_sync(&report, Duration::ZERO);
    let said: Vec<_> = received(&mut said)
        .into_iter()
        .map(|said| (said.event_note.about, said.event_note.reason, said.fact))
        .collect();
    let foreign = (web(), "ForeignVirtualServer", Some("shop/web:http".to_owned()));
    assert_eq!(said, [(About::Node, "KernelUnavailable", None), foreign]);
}

/// 40 Services whose annotations keep changing, each with values of 256 KiB.
#[test]
fn reports_and_memory_per_tenant_are_bounded() {
    let (sender, mut said) = channel(QUEUE_CAPACITY);
    let (mut recorder, mut lines) = (EventRecorder::new(sender), LogLines::default());
    let (mut events, mut logged, mut bytes) = (0, 0, 0);
    for second in 0..100 {
        for service in 0..40 {
            let note = format!("{second} {}", "\u{1b}".repeat(256 * 1024));
            let id = ServiceId::new("shop", &format!("web-{service}"));
            let problem = Problem {
                path: "https://10.0.0.1:6443/".into(),
                place: None,
                object: Some(format!("Service {id}").into()),
                field: None,
                message: note.as_str().into(),
            };
            let written = lines.problems(&[problem], seconds(second));
            logged += written.len();
            bytes += written.iter().map(|line| line.to_string().len()).sum::<usize>();
            recorder.record(EventNote { about: About::Service(id), reason: "PartIgnored", note }, seconds(second));
        }
        let written = received(&mut said);
        events += written.len();
        assert!(written.iter().all(|said| said.event_note.note.capacity() <= 1024), "{second}");
    }
    // 30 Events and one more each minute; 50 lines, one more every five seconds, and the sums.
    assert_eq!((events, logged), (31, 50 + 19 + 4));
    assert!(bytes < 150_000, "{bytes}");
    let kept = recorder.repeats.kept() + recorder.limits.kept() + lines.kept();
    assert!(kept < 200, "{kept} hashes with their times are kept");
}

/// A Service with 100,000 rejected addresses costs a few lines, and one line counts the rest.
#[test]
fn hundred_thousand_rejected_addresses_cost_a_few_lines() {
    let skipped = |number: u32| Skipped::AddressInUse {
        port: port("http"),
        claim: proxier::cluster::Claim::VirtualServer(key(&std::net::Ipv4Addr::from_bits(number).to_string())),
        by: port("other"),
        is_of_node: false,
    };
    let report = skipping((0..100_000).map(skipped));
    let (sender, mut said) = channel(QUEUE_CAPACITY);
    let (mut recorder, mut lines) = (EventRecorder::new(sender), LogLines::default());
    recorder.record_sync(&report, Duration::ZERO);
    assert_eq!(received(&mut said).len(), 10);
    let written = lines.record_sync(&report, Duration::ZERO);
    assert_eq!(written.len(), 11);
    let last = written[10].to_string();
    assert!(last.starts_with("kube-ipvs left out 99990 lines about Services and EndpointSlices"), "{last}");
    // Another Service still has a line, and the sum appears only once per interval.
    let other = ServicePortId { service: ServiceId::new("bank", "web"), port: "".into() };
    let failed = Skipped::ForeignVirtualServer { port: other, key: key("10.96.0.1") };
    let report = skipping([failed, skipped(1)]);
    assert_eq!(lines.record_sync(&report, seconds(1)).len(), 1);
    let written = lines.record_sync(&SyncReport::default(), seconds(31));
    assert!(written[0].to_string().starts_with("kube-ipvs left out 1 lines"), "{}", written[0]);
}

/// Each node names another address, and all of them find the same fact.
#[test]
fn fact_with_a_node_address_has_the_same_name_on_every_node() {
    let skipped = |address: &str| {
        let by = ServicePortId { service: ServiceId::new("bank", "web"), port: "".into() };
        let claim = proxier::cluster::Claim::VirtualServer(key(address));
        [
            Skipped::AddressInUse { port: port("http"), claim, by, is_of_node: true },
            Skipped::ReservedPort { port: port("http"), key: key(address) },
        ]
    };
    let said_on = |address: &str| {
        let (sender, mut said) = channel(QUEUE_CAPACITY);
        let report = skipping(skipped(address));
        EventRecorder::new(sender).record_sync(&report, Duration::ZERO);
        let said = received(&mut said);
        assert_eq!(said.len(), 2);
        said.iter().map(|said| name(said, address)).collect::<Vec<_>>()
    };
    assert_eq!(said_on("192.168.128.1"), said_on("192.168.128.2"));
}

#[test]
fn thousands_of_syncs_of_one_service_cost_a_few_lines() {
    let mut lines = LogLines::default();
    let (web, others) = (ServiceId::new("tenant", "web"), ServiceId::new("bank", "web"));
    let of_flapping = (0..3000).filter(|sync| lines.synced(&[&web].into(), seconds(1) * *sync / 100)).count();
    assert_eq!(of_flapping, 10);
    // Another Service has a separate budget, also in a sync together with the first one.
    assert!(lines.synced(&[&others, &web].into(), seconds(31)));
    let written = lines.record_sync(&SyncReport::default(), seconds(31));
    assert!(written[0].to_string().starts_with("kube-ipvs left out 2990 lines"), "{}", written[0]);
}

#[test]
fn repeated_health_check_notes_of_a_service_cost_a_few_lines() {
    let mut lines = LogLines::default();
    let taken = event_note("cannot listen");
    let written: Vec<_> = (0..100).flat_map(|_| lines.note(&taken, Duration::ZERO)).collect();
    assert_eq!(written.len(), 11, "{written:?}");
    assert_eq!(written[0].to_string(), "Service shop/web: cannot listen");
    let of_node = EventNote { about: About::Node, ..taken };
    assert_eq!(lines.note(&of_node, Duration::ZERO), []);
}
