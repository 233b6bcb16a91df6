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

fn to_post(announcement: Announcement) -> ToPost {
    ToPost { announcement, uid: None }
}

fn notes(said: &mut Receiver<ToPost>) -> Vec<String> {
    std::iter::from_fn(|| said.try_recv().ok()).map(|said| said.announcement.note).collect()
}

#[test]
fn an_event_is_about_its_object() {
    let (namespace, made) = event(&to_post(announcement("why")), "node-1", Timestamp::UNIX_EPOCH);
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
    let (namespace, made) = event(&to_post(node), "node-1", Timestamp::UNIX_EPOCH);
    assert_eq!((namespace.as_str(), &made["regarding"]["name"]), ("default", &"node-1".into()));
}

#[test]
fn a_long_note_is_cut_where_something_ends() {
    let note = |text: &str| {
        let (_, made) = event(&to_post(announcement(text)), "node-1", Timestamp::UNIX_EPOCH);
        let note = made["note"].as_str().unwrap().to_owned();
        assert!(note.len() <= 1024, "{}", note.len());
        note
    };
    assert_eq!(note(&"x".repeat(1024)), "x".repeat(1024));
    let rest = " … the log of kube-ipvs on this node has all of it";
    // After a whole line, a whole item, a whole word, a whole character.
    let lines = "iptables-legacy -t nat -D OUTPUT, and more\n".repeat(50);
    let cut = note(&lines);
    assert!(cut.strip_suffix(rest).unwrap().ends_with("-D OUTPUT, and more"), "{cut}");
    let cut = note(&"KUBE-CLUSTER-IP, ".repeat(100));
    assert!(cut.strip_suffix(rest).unwrap().ends_with("KUBE-CLUSTER-IP"), "{cut}");
    let cut = note(&"refused ".repeat(200));
    assert!(cut.strip_suffix(rest).unwrap().ends_with("refused"), "{cut}");
    let cut = note(&"ä".repeat(2000));
    assert!(cut.strip_suffix(rest).unwrap().chars().all(|letter| letter == 'ä'), "{cut}");
}

/// `kubectl describe service` looks for Events by the UID.
#[test]
fn an_event_carries_its_services_uid() {
    let (sender, mut said) = channel(10);
    let mut announcer = Announcer::new(sender);
    let web = ServiceId::new("shop", "web");
    let mut uid = |uid: Option<&str>, note: &str| {
        announcer.told(vec![(web.clone(), uid.map(Into::into))], vec![announcement(note)], Duration::ZERO);
        let (_, made) = event(&said.try_recv().unwrap(), "node-1", Timestamp::UNIX_EPOCH);
        made["regarding"]["uid"].as_str().map(str::to_owned)
    };
    assert_eq!(uid(Some("4711"), "why").as_deref(), Some("4711"));
    // Made again under the same name, and gone.
    assert_eq!(uid(Some("4712"), "again").as_deref(), Some("4712"));
    assert_eq!(uid(None, "gone"), None);
}

#[test]
fn an_object_that_flaps_has_no_more_events_than_client_go_would_let_through() {
    let (sender, mut said) = channel(100);
    let mut announcer = Announcer::new(sender);
    let mut announce = |number: usize, about: About, minute: u64| {
        let announcement = Announcement { about, ..announcement(&format!("{number}")) };
        announcer.announce(announcement, Duration::from_secs(60 * minute));
        notes(&mut said).len()
    };
    let web = || About::Service(ServiceId::new("shop", "web"));
    assert_eq!((0..40).map(|number| announce(number, web(), 0)).sum::<usize>(), 25);
    // That is about no other object, and after five minutes there is one more.
    assert_eq!(announce(0, About::Node, 0), 1);
    assert_eq!(announce(100, web(), 4), 0);
    assert_eq!((announce(101, web(), 5), announce(102, web(), 5)), (1, 0));
    assert_eq!((0..40).map(|number| announce(1000 + number, web(), 500)).sum::<usize>(), 25);
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
