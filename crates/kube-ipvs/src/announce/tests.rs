use std::time::Duration;

use expect_test::expect;
use jiff::Timestamp;
use proxier::model::{PortNumber, Protocol, VirtualServerKey};
use tokio::sync::mpsc::{Receiver, channel};

use super::{event::event, *};

fn announcement(note: &str) -> Announcement {
    let about = About::Service(ServiceId::new("shop", "web"));
    Announcement { about, reason: "AddressTaken", note: note.into() }
}

fn notes(said: &mut Receiver<Announcement>) -> Vec<String> {
    std::iter::from_fn(|| said.try_recv().ok()).map(|announcement| announcement.note).collect()
}

#[test]
fn an_event_is_about_its_object() {
    let (namespace, made) = event(&announcement("why"), "node-1", Timestamp::UNIX_EPOCH);
    assert_eq!(namespace, "shop");
    expect![[r#"
        {
          "action": "Sync",
          "apiVersion": "events.k8s.io/v1",
          "eventTime": "1970-01-01T00:00:00.000000Z",
          "kind": "Event",
          "metadata": {
            "generateName": "kube-ipvs-",
            "namespace": "shop"
          },
          "note": "why",
          "reason": "AddressTaken",
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
    let node = Announcement { about: About::Node, ..announcement("why") };
    let (namespace, made) = event(&node, "node-1", Timestamp::UNIX_EPOCH);
    assert_eq!((namespace.as_str(), &made["regarding"]["name"]), ("default", &"node-1".into()));
}

#[test]
fn a_long_note_is_cut_between_characters() {
    let (_, made) = event(&announcement(&"ä".repeat(2000)), "node-1", Timestamp::UNIX_EPOCH);
    assert_eq!(made["note"], "ä".repeat(512));
}

#[test]
fn nothing_is_said_twice_within_an_hour() {
    let (sender, mut said) = channel(10);
    let mut announcer = Announcer::new(sender);
    for minute in 0..=60 {
        announcer.announce(announcement("why"), Duration::from_secs(60 * minute));
    }
    announcer.announce(announcement("another"), Duration::ZERO);
    let notes = notes(&mut said);
    assert_eq!(notes, ["why", "why", "another"]);
}

#[test]
fn who_announces_never_waits() {
    let (sender, mut said) = channel(2);
    let mut announcer = Announcer::new(sender);
    for number in 0..5000 {
        announcer.announce(announcement(&number.to_string()), Duration::ZERO);
    }
    assert_eq!(notes(&mut said).len(), 2);
}

#[test]
fn a_turn_is_announced_at_who_it_is_about() {
    let key = VirtualServerKey {
        address: "10.96.0.1".parse().unwrap(),
        protocol: Protocol::Tcp,
        port: PortNumber::MIN,
    };
    let port = ServicePortId { service: ServiceId::new("shop", "web"), port: "http".into() };
    let turn = Turn {
        skipped: vec![Skipped::Foreign { port, key }],
        unusable: Some(proxier::kernel::Unusable("IPVS: it is not there".into())),
        ..Turn::default()
    };
    let said: Vec<_> = of_turn(&turn).map(|said| (said.about, said.reason)).collect();
    let service = About::Service(ServiceId::new("shop", "web"));
    assert_eq!(said, [(About::Node, "KernelUnusable"), (service, "ForeignVirtualServer")]);
}
