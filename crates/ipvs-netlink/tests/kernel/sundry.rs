use ipvs_netlink::{Daemon, DaemonRole, Scheduler, Timeouts, Version, VirtualServer};

use crate::{Namespace, tcp, udp};

#[test]
fn timeouts_of_zero_stay_unchanged_when_set() {
    let mut n = Namespace::new();
    assert_eq!(n.client.timeouts().unwrap(), Timeouts { tcp: 900, tcp_fin: 120, udp: 300 });
    n.client.set_timeouts(Timeouts { tcp: 1000, tcp_fin: 0, udp: 50 }).unwrap();
    assert_eq!(n.client.timeouts().unwrap(), Timeouts { tcp: 1000, tcp_fin: 120, udp: 50 });
    assert_eq!(n.ipvsadm(&["-L", "--timeout"]), "Timeout (tcp tcpfin udp): 1000 120 50\n");
    let error = n.client.set_timeouts(Timeouts { tcp: u32::MAX, ..Timeouts::default() }).unwrap_err();
    assert_eq!(error.kernel().unwrap().errno(), 22, "{error}");
    // Setting no timeout succeeds.
    n.client.set_timeouts(Timeouts::default()).unwrap();
}

#[test]
fn info_matches_the_version_and_table_size_of_ipvsadm() {
    let mut n = Namespace::new();
    let info = n.client.info().unwrap();
    assert_eq!(info.version, Version { major: 1, minor: 2, patch: 1 });
    let said = format!("IP Virtual Server version {} (size={})\n", info.version, info.connection_table_size);
    assert!(n.ipvsadm(&["-Ln"]).starts_with(&said));
}

#[test]
fn sync_daemons_start_list_and_stop() {
    let mut n = Namespace::with_interface();
    assert_eq!(n.client.daemons().unwrap(), []);
    let interface = "d0".parse().unwrap();
    let master = Daemon {
        max_length: Some(1400),
        group: Some("224.0.1.5".parse().unwrap()),
        port: Some(9000),
        ttl: Some(3),
        ..Daemon::new(DaemonRole::Master, interface, 7)
    };
    n.client.start_daemon(master).unwrap();
    let group = Some("ff02::5".parse().unwrap());
    let backup = Daemon { group, ..Daemon::new(DaemonRole::Backup, interface, 9) };
    n.client.start_daemon(backup).unwrap();
    assert!(n.client.start_daemon(backup).unwrap_err().already_exists());

    let daemons = n.client.daemons().unwrap();
    assert_eq!(daemons[0], master);
    let chosen = Daemon { max_length: daemons[1].max_length, port: Some(8848), ttl: Some(1), ..backup };
    assert_eq!(daemons[1..], [chosen]);
    assert_eq!(
        n.ipvsadm(&["-L", "--daemon"]).lines().next(),
        Some("master sync daemon (mcast=d0, syncid=7, maxlen=1400, group=224.0.1.5, port=9000, ttl=3)")
    );

    n.client.stop_daemon(DaemonRole::Master).unwrap();
    assert_eq!(n.client.daemons().unwrap(), [chosen]);
    assert!(n.client.stop_daemon(DaemonRole::Master).unwrap_err().is_not_found());
    n.client.stop_daemon(DaemonRole::Backup).unwrap();
    assert_eq!(n.client.daemons().unwrap(), []);

    let nowhere = Daemon::new(DaemonRole::Master, "nosuch0".parse().unwrap(), 0);
    let error = n.client.start_daemon(nowhere).unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(error.to_string().starts_with("start the master daemon on nosuch0: "), "{error}");
}

#[test]
fn flush_empties_this_namespace_only() {
    let mut here = Namespace::new();
    let mut there = here.another();
    for n in [&mut here, &mut there] {
        n.client.add_service(tcp("10.0.0.1:80"), VirtualServer::new(Scheduler::RR)).unwrap();
        n.client.add_service(udp("[fd00::1]:80"), VirtualServer::new(Scheduler::RR)).unwrap();
    }
    here.client.flush().unwrap();
    assert_eq!(here.client.services().unwrap(), []);
    assert_eq!(there.client.services().unwrap().len(), 2);
}
