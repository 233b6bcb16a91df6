use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
};

use anyhow::ensure;
use ipvs_netlink::{Destination, Persistence, Scheduler, Stats, VirtualServer, VirtualServerKey};
use netlink_batch::in_namespace;
use scenarios::eventually;

use crate::{Namespace, destination, tcp, udp};

fn with_addresses() -> Namespace {
    let n = Namespace::with_interface();
    for address in ["10.0.0.1/32", "10.1.1.1/32"] {
        n.ip(&["address", "add", address, "dev", "lo"]);
    }
    n
}

/// The kernel sums its counters every two seconds.
fn summed(n: &mut Namespace, key: VirtualServerKey, packets: u64) {
    let look = || {
        let found = n.client.service(key).unwrap().unwrap().stats.packets_in;
        ensure!(found >= packets, "{found} of {packets} packets");
        Ok(())
    };
    eventually(look).unwrap();
}

#[test]
fn datagram_counters_count_and_reset_to_zero() {
    let mut n = with_addresses();
    let (key, real) = (udp("10.0.0.1:53"), destination("10.1.1.1:5353"));
    n.client.add_service(key, VirtualServer::new(Scheduler::RR)).unwrap();
    n.client.add_destination(key, real, Destination::default()).unwrap();

    let bind = |address: &str| in_namespace(n.file(), || UdpSocket::bind(address)).unwrap().unwrap();
    let (server, client) = (bind("10.1.1.1:5353"), bind("10.0.0.1:0"));
    for _ in 0..3 {
        client.send_to(b"0123456789", "10.0.0.1:53").unwrap();
        assert_eq!(server.recv(&mut [0; 20]).unwrap(), 10);
    }

    let without_rates = |stats: Stats| Stats { rates: Default::default(), ..stats };
    let counted = Stats { connections: 1, packets_in: 3, bytes_in: 3 * 38, ..Stats::default() };
    summed(&mut n, key, 3);
    assert_eq!(without_rates(n.client.service(key).unwrap().unwrap().stats), counted);
    let entry = n.client.destinations(key).unwrap()[0];
    assert_eq!(without_rates(entry.stats), counted);
    assert_eq!((entry.connections.active, entry.connections.inactive), (0, 1));
    assert!(n.ipvsadm(&["-Ln", "--stats", "--exact"]).contains(" 3 "), "ipvsadm sees the packets too");

    n.client.zero(Some(key)).unwrap();
    assert_eq!(without_rates(n.client.service(key).unwrap().unwrap().stats), Stats::default());
    assert_eq!(without_rates(n.client.destinations(key).unwrap()[0].stats), Stats::default());
    client.send_to(b"x", "10.0.0.1:53").unwrap();
    summed(&mut n, key, 1);
    n.client.zero(None).unwrap();
    assert_eq!(n.client.service(key).unwrap().unwrap().stats.packets_in, 0);
}

#[test]
fn connections_count_as_active_and_templates_as_persistent() {
    let mut n = with_addresses();
    let (key, real) = (tcp("10.0.0.1:80"), destination("10.1.1.1:8080"));
    let persistence = Some(Persistence::seconds(60));
    n.client.add_service(key, VirtualServer { persistence, ..VirtualServer::new(Scheduler::RR) }).unwrap();
    n.client.add_destination(key, real, Destination::default()).unwrap();

    let listener = in_namespace(n.file(), || TcpListener::bind("10.1.1.1:8080")).unwrap().unwrap();
    let mut client = in_namespace(n.file(), || TcpStream::connect("10.0.0.1:80")).unwrap().unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();

    summed(&mut n, key, 3);
    let entry = n.client.destinations(key).unwrap()[0];
    assert_eq!((entry.connections.active, entry.connections.persistent), (1, 1), "{entry:?}");
    assert!(entry.stats.packets_in >= 3 && entry.stats.bytes_out > 5, "{entry:?}");

    // With weight 0 the destination gets no new connections and keeps the existing one.
    n.client.update_destination(key, real, Destination { weight: 0, ..Destination::default() }).unwrap();
    server.write_all(b"again").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(n.client.destinations(key).unwrap()[0].connections.active, 1);
}
