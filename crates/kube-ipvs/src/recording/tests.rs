use std::{
    fs,
    io::{self, ErrorKind, Write},
    os::unix::fs::PermissionsExt,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use proxier::{
    Completeness, Config,
    fake::FakeKernel,
    model::{
        Endpoint, EndpointPort, EndpointSlice, Event, Family, Protocol, Service, ServiceId, ServiceOptions,
        ServicePort, SliceId,
    },
};

use super::*;

/// A recording in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn web() -> [Event; 2] {
    let id = ServiceId::new("shop", "web");
    let mut service = Service::new(id.clone());
    service.cluster_ips = vec!["10.96.0.80".parse().unwrap()];
    service.ports = vec![ServicePort::new("http", Protocol::Tcp, 80.try_into().unwrap())];
    let mut slice = EndpointSlice::new(SliceId::new("shop", "web-1"), id, Family::V4);
    slice.ports = vec![EndpointPort::new("http", Protocol::Tcp, 8080.try_into().unwrap())];
    slice.endpoints = ["10.244.1.57", "203.0.113.9"].map(|ip| Endpoint::ready(ip.parse().unwrap())).into();
    [Event::ServiceApplied(service), Event::SliceApplied(slice)]
}

/// A node serves a Service, loses it to `ipvsadm --clear`, and repairs it.
fn run(recording: Recording) -> Recorded<FakeKernel> {
    let addresses = [NodeAddress { address: "192.0.2.1".parse().unwrap(), global: true }].into();
    let mut looper = Recorded::new(Config::new("node-1"), addresses, FakeKernel::default(), Some(recording));
    web().into_iter().for_each(|event| looper.apply(event));
    looper.set_complete(Completeness::Complete);
    for second in 0..60 {
        if second == 30 {
            looper.kernel().virtual_servers.clear();
        }
        looper.sync_if_due(|| Duration::from_secs(second));
    }
    looper
}

fn recorded() -> String {
    let memory = Memory::default();
    run(Recording::new(memory.clone(), u64::MAX));
    memory.text()
}

#[test]
fn replay_makes_the_recorded_plans() {
    let replay = replay(&read(&recorded()).unwrap()).unwrap();
    assert!(replay.difference.is_none());
    let plans: Vec<String> = replay.plans.iter().map(|(_, plan)| plan.to_string()).collect();
    assert_eq!(plans.len(), 2);
    assert!(plans.iter().all(|plan| plan.contains("+ virtual server TCP 10.96.0.80:80 rr\n")));
}

#[test]
fn altered_recording_differs_and_can_be_accepted() {
    let text = recorded();
    for (before, after) in [
        ("10.96.0.80:80 rr", "10.96.0.80:80 lc"),
        ("\"+ virtual server TCP 10.96.0.80:80 rr\",", ""),
        ("\"ready\":true", "\"ready\":false"),
        ("203.0.113.9\",\"cond", "203.0.113.8\",\"cond"),
    ] {
        assert!(text.contains(before), "{before}");
        let altered = text.replacen(before, after, 1);
        let difference = replay(&read(&altered).unwrap()).unwrap().difference.unwrap();
        assert!(difference.to_string().contains("\nonly "), "{difference}");
        let accepted = difference.accept(&altered).unwrap();
        assert!(replay(&read(&accepted).unwrap()).unwrap().difference.is_none());
    }
}

#[test]
fn difference_names_the_changes_on_both_sides() {
    let altered = recorded().replacen("TCP 10.96.0.80:80 rr\"", "TCP 10.96.0.80:80 lc\"", 1);
    let difference = replay(&read(&altered).unwrap()).unwrap().difference.unwrap();
    let expected = "at 0ns (line 5): the plan differs\n\
                    only in the recording: + virtual server TCP 10.96.0.80:80 lc\n\
                    only now:              + virtual server TCP 10.96.0.80:80 rr\n";
    assert_eq!(difference.to_string(), expected);
}

/// Removes entries from a sync, and adds one.
#[test]
fn sync_with_other_calls_than_the_recorded_one_differs() {
    let text = recorded();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let answer = lines.iter().position(|line| line.contains("\"Applied\"")).unwrap();
    let without = [&lines[..answer], &lines[answer + 1..]].concat().concat();
    let twice = [&lines[..=answer], &lines[answer..]].concat().concat();
    for altered in [without, twice] {
        assert!(replay(&read(&altered).unwrap()).unwrap().difference.is_some());
    }
}

/// The process ends in the middle of a line, or between two lines.
#[test]
fn every_beginning_of_a_recording_replays() {
    let text = recorded();
    let first = text.find('\n').unwrap() + 1;
    for end in first..text.len() {
        let replay = replay(&read(&text[..end]).unwrap()).unwrap();
        assert!(replay.difference.is_none(), "{:?}", &text[..end]);
    }
    assert!(replay(&read(&text[..first - 1]).unwrap()).is_err());
}

#[test]
fn recording_ends_at_its_limit_with_a_whole_line() {
    let whole = recorded();
    let memory = Memory::default();
    let mut looper = run(Recording::new(memory.clone(), whole.len() as u64 / 2));
    assert!(memory.text().len() <= whole.len() / 2 && memory.text().ends_with('\n'));
    assert!(whole.starts_with(&memory.text()));
    assert!(replay(&read(&memory.text()).unwrap()).unwrap().difference.is_none());
    assert_eq!(looper.kernel().virtual_servers.len(), 1);
}

/// A full disk.
struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn loop_syncs_when_the_disk_is_full() {
    assert_eq!(run(Recording::new(Full, u64::MAX)).kernel().virtual_servers.len(), 1);
}

/// An hour without changes adds little: the kernel's answers are as expected.
#[test]
fn recording_of_an_idle_node_grows_slowly() {
    let memory = Memory::default();
    let mut looper = run(Recording::new(memory.clone(), u64::MAX));
    looper.sync_if_due(|| Duration::from_secs(100));
    let before = memory.text().len();
    (100..3700).for_each(|second| drop(looper.sync_if_due(|| Duration::from_secs(second))));
    let grown = memory.text().len() - before;
    assert!(grown < 400_000, "{grown}");
}

#[test]
fn file_of_a_recording_is_private_and_replaces_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recording");
    create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(create(&path).is_err());
}

#[test]
fn anonymous_recording_has_other_names_and_addresses_and_replays() {
    let text = recorded();
    let other = anonymous(&text).unwrap();
    for known in ["shop", "web", "node-1", "10.96.", "10.244.", "203.0.113.", "192.0.2.1"] {
        assert!(text.contains(known) && !other.contains(known), "{known}");
    }
    let replay = replay(&read(&other).unwrap()).unwrap();
    assert!(replay.difference.is_none());
    assert_eq!(replay.plans.len(), 2);
}

/// The engine decides by the order of names and addresses, and by ranges.
#[test]
fn anonymous_addresses_keep_their_order_ranges_and_ports() {
    let addresses = [
        "0.0.0.0",
        "10.0.0.0/8",
        "10.96.0.0/12",
        "10.96.0.1",
        "10.96.0.10:53",
        "10.244.3.0/24",
        "10.244.3.7",
        "127.0.0.1",
        "169.254.20.10",
        "172.16.0.1",
        "192.168.1.1",
        "198.51.100.1",
        "203.0.113.0/24",
        "203.0.113.9",
        "255.255.255.0",
    ];
    let line = serde_json::to_string(&addresses).unwrap() + "\n";
    let other: Vec<String> = serde_json::from_str(&anonymous(&line).unwrap()).unwrap();
    expect_test::expect!["0.0.0.0 10.0.0.0/8 10.0.0.0/12 10.0.0.0 10.0.0.8:53 10.128.0.0/24 10.128.0.0 127.0.0.1 169.254.0.0 172.16.0.0 192.168.0.0 196.0.0.0 200.0.0.0/24 200.0.0.0 255.255.255.0"].assert_eq(&other.join(" "));
    let line =
        "[\"TCP [fd00:96::a]:80 \\\"shop/web:http\\\"\",\"fd00:96::/108\",\"2001:db8::1/64\",\"::1\",\"fe80::1\"]\n";
    expect_test::expect![[r#"
        ["TCP [fc00::]:80 \"n1/n2:n0\"","fc00::/108","2000::1/64","::1","fe80::"]
    "#]]
    .assert_eq(&anonymous(line).unwrap());
}

/// Reports of users, and recordings of daemons on the test bench.
#[test]
fn committed_recordings_replay_exactly() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/recording/cases");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for text in [anonymous(&text).unwrap(), text] {
            let replay = replay(&read(&text).unwrap()).unwrap();
            assert!(replay.difference.is_none(), "{}: {}", path.display(), replay.difference.unwrap());
            assert!(!replay.plans.is_empty(), "{}", path.display());
        }
    }
}

#[test]
fn option_that_an_older_recording_lacks_has_its_default() {
    let weighted = ServiceOptions { local_weight: 3, ..ServiceOptions::DEFAULT };
    let read: ServiceOptions = serde_json::from_str(r#"{"local_weight": 3}"#).unwrap();
    assert_eq!(read, weighted);
}

#[test]
fn line_that_is_no_entry_is_an_error_with_its_number() {
    let text = recorded() + "{}\n";
    let error = read(&text).unwrap_err();
    assert_eq!(error.to_string(), format!("line {}", text.lines().count()));
    assert!(replay(&[]).is_err());
    let late = recorded().replacen("\"at\":{\"secs\":30,", "\"at\":{\"secs\":18446744073709551615,", 1);
    assert!(late != recorded() && replay(&read(&late).unwrap()).is_err());
    assert!(replay(&read(&text[text.find('\n').unwrap() + 1..text.len() - 3]).unwrap()).is_err());
}

/// A recording comes from a user. Its events and states are input of the engine, whatever they are.
#[test]
fn mutated_recordings_are_replayed_or_refused() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/recording/cases");
    let files = fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    fuzz::fuzz("recording", files.chain([recorded().into_bytes()]), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let Ok(entries) = read(&text) else { return };
        if let Ok(Replay { difference: Some(difference), .. }) = replay(&entries) {
            let accepted = difference.accept(&text).unwrap();
            let _ = (difference.to_string(), replay(&read(&accepted).unwrap()).unwrap());
        }
        let _ = anonymous(&text);
    });
}
