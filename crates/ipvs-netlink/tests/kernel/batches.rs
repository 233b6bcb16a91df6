use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::ensure;
use ipvs_netlink::{Client, Destination, Protocol, Request, Scheduler, VirtualServer, VirtualServerKey};

use scenarios::eventually;

use crate::{Namespace, destination, tcp};

fn key(port: u16) -> VirtualServerKey {
    VirtualServerKey::new(Protocol::Tcp, ([10, 0, 0, 1], port).into())
}

fn services(ports: impl Iterator<Item = u16>) -> Vec<Request> {
    let service = VirtualServer::new(Scheduler::RR);
    ports.map(|port| Request::AddService { key: key(port), service }).collect()
}

/// The listed keys, once there are `count` of them. The kernel still deletes namespaces of earlier tests. Deletions
/// from the shared table can hide entries of a concurrent list.
fn listed(n: &mut Namespace, count: usize) -> BTreeSet<VirtualServerKey> {
    let look = || {
        let keys: BTreeSet<_> = n.client.services().unwrap().iter().map(|entry| entry.key).collect();
        ensure!(keys.len() == count, "{} of {count} are listed", keys.len());
        Ok(keys)
    };
    eventually(look).unwrap()
}

#[test]
fn batch_of_5000_services_needs_at_most_two_sends() {
    let mut n = Namespace::alone();
    let sends = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sends);
    n.client.observe_sends(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(n.client.execute(&services(1..=5000)).unwrap(), []);
    let sends = sends.load(Ordering::Relaxed);
    assert!(sends <= 2, "{sends} sends");

    let look = || {
        let lines = n.ipvsadm(&["-Sn"]).lines().count();
        ensure!(lines == 5000, "ipvsadm lists {lines}");
        Ok(())
    };
    eventually(look).unwrap();
    let listed = listed(&mut n, 5000);
    assert_eq!(listed, (1..=5000).map(key).collect());

    let deletions: Vec<_> = listed.into_iter().map(|key| Request::DeleteService { key }).collect();
    assert_eq!(n.client.execute(&deletions).unwrap(), []);
    assert_eq!(n.client.services().unwrap(), []);
}

#[test]
fn failed_requests_of_a_batch_are_reported_by_number() {
    let mut n = Namespace::alone();
    assert_eq!(n.client.execute(&services((1..=10_000).step_by(3))).unwrap(), []);
    let batch = services(1..=10_000);
    let failures = n.client.execute(&batch).unwrap();
    assert_eq!(failures.len(), 3334);
    for (number, failure) in failures.iter().enumerate() {
        assert_eq!(failure.number, number * 3);
        assert_eq!(failure.request, batch[failure.number]);
        assert!(failure.error.already_exists(), "{failure}");
    }
    assert!(failures[1].to_string().starts_with("add service TCP 10.0.0.1:4 (rr): File exists"));
    assert_eq!(listed(&mut n, 10_000).len(), 10_000, "the others were carried out");
}

#[test]
fn batch_executes_requests_in_the_order_of_addition() {
    let mut n = Namespace::with_interface();
    let web = tcp("10.0.0.1:80");
    let add_service = |key, scheduler| Request::AddService { key, service: VirtualServer::new(scheduler) };
    let add_destination = |service, address, weight| Request::AddDestination {
        service,
        key: destination(address),
        destination: Destination { weight, ..Destination::default() },
    };
    let early = add_destination(tcp("10.0.0.2:80"), "10.1.1.1:80", 1);
    let batch = [
        add_service(web, Scheduler::WRR),
        add_destination(web, "10.1.1.1:8080", 1),
        add_destination(web, "10.1.1.2:8080", 3),
        early,
        add_service(tcp("10.0.0.2:80"), Scheduler::RR),
    ];
    let failures = n.client.execute(&batch).unwrap();
    assert_eq!(failures.iter().map(|failure| failure.request).collect::<Vec<_>>(), [early]);
    assert_eq!(failures[0].number, 3);
    assert!(failures[0].is_not_found());
    assert_eq!(
        n.rules(),
        [
            "-A -t 10.0.0.1:80 -s wrr",
            "-A -t 10.0.0.2:80 -s rr",
            "-a -t 10.0.0.1:80 -r 10.1.1.1:8080 -m -w 1",
            "-a -t 10.0.0.1:80 -r 10.1.1.2:8080 -m -w 3",
        ]
    );
}

#[test]
fn empty_batch_executes_without_failures() {
    let mut n = Namespace::new();
    assert_eq!(n.client.execute(&[]).unwrap(), []);
}

#[test]
fn list_has_no_duplicates_while_another_namespace_changes() {
    let mut n = Namespace::alone();
    assert_eq!(n.client.execute(&services(1..=3000)).unwrap(), []);
    let elsewhere = n.another();
    let mut writing = Client::open_in(elsewhere.file()).unwrap();
    let (more, stop) = (services(1..=500), Arc::new(AtomicUsize::new(0)));
    let until = Arc::clone(&stop);
    let writer = std::thread::spawn(move || {
        while until.load(Ordering::Relaxed) == 0 {
            assert_eq!(writing.execute(&more).unwrap(), []);
            writing.flush().unwrap();
        }
    });
    for _ in 0..10 {
        let listed: Vec<_> = n.client.services().unwrap().iter().map(|entry| entry.key).collect();
        assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), listed.len());
    }
    stop.store(1, Ordering::Relaxed);
    writer.join().unwrap();
    assert_eq!(listed(&mut n, 3000).len(), 3000);
}
