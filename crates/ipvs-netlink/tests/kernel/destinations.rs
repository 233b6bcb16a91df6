use ipvs_netlink::{Destination, DestinationKey, Forwarding, Scheduler, Tunnel, TunnelFlags, VirtualServer};

use crate::{Namespace, destination, tcp};

/// Adds the destination, checks the list, and returns ipvsadm's output for it.
fn added(n: &mut Namespace, service: &str, key: DestinationKey, how: Destination) -> String {
    n.client.add_destination(tcp(service), key, how).unwrap();
    let list = n.client.destinations(tcp(service)).unwrap();
    let entry = list.iter().find(|entry| entry.key == key).unwrap();
    assert_eq!(entry.destination, how);
    let rule = format!("-a -t {service} -r {key} ");
    n.rules().iter().find_map(|line| line.strip_prefix(&rule).map(String::from)).unwrap()
}

#[test]
fn destinations_of_every_forwarding_method_match_ipvsadm() {
    let mut n = Namespace::with_interface();
    for (service, mark) in [("10.0.0.1:80", "10.1.1."), ("[fd00::1]:80", "[fd00:1::")] {
        n.client.add_service(tcp(service), VirtualServer::new(Scheduler::WRR)).unwrap();
        let end = if mark.starts_with('[') { "]" } else { "" };
        let methods = [
            (Forwarding::Masq, "-m -w 5", "Masq"),
            (Forwarding::Direct, "-g -w 5", "Route"),
            (Forwarding::Tunnel(Tunnel::IPIP), "-i -w 5", "Tunnel"),
            (Forwarding::LocalNode, "", "Local"),
            (Forwarding::Bypass, "", "(null)"),
        ];
        for (number, (forwarding, rule, name)) in methods.into_iter().enumerate() {
            let key = destination(&format!("{mark}{}{end}:80", number + 1));
            let said = added(&mut n, service, key, Destination::new(forwarding, 5));
            // ipvsadm cannot save the last two, and has no name for the last.
            assert!(said.starts_with(rule), "{said}");
            let list = n.ipvsadm(&["-Ln"]);
            let line = list.lines().find(|line| line.contains(&format!("-> {key} "))).unwrap();
            assert!(line.contains(name), "{line}");
        }
        assert_eq!(n.client.destinations(tcp(service)).unwrap().len(), 5);
    }
}

#[test]
fn tunnels_of_every_encapsulation_are_read_back() {
    let mut n = Namespace::with_interface();
    let service = "10.0.0.1:80";
    n.client.add_service(tcp(service), VirtualServer::new(Scheduler::RR)).unwrap();
    let sum = TunnelFlags::CHECKSUM;
    let tunnels = [
        (Tunnel::IPIP, ""),
        (Tunnel::gue(6080), "--tun-type gue --tun-port 6080 --tun-nocsum"),
        (Tunnel { flags: sum, ..Tunnel::gue(6081) }, "--tun-type gue --tun-port 6081 --tun-csum"),
        (
            Tunnel { flags: TunnelFlags::REMOTE_CHECKSUM, ..Tunnel::gue(6082) },
            "--tun-type gue --tun-port 6082 --tun-remcsum",
        ),
        (Tunnel::GRE, "--tun-type gre --tun-nocsum"),
        (Tunnel { flags: sum, ..Tunnel::GRE }, "--tun-type gre --tun-csum"),
    ];
    for (number, (tunnel, rule)) in tunnels.into_iter().enumerate() {
        let key = destination(&format!("10.1.1.{}:80", number + 1));
        let said = added(&mut n, service, key, Destination::new(Forwarding::Tunnel(tunnel), 1));
        assert!(said.starts_with("-i -w 1") && said.contains(rule), "{said}");
    }
    // Change to a destination without a tunnel, and to a tunnel again.
    let key = destination("10.1.1.2:80");
    for forwarding in [Forwarding::Masq, Forwarding::Tunnel(Tunnel::gue(7000)), Forwarding::Direct] {
        let how = Destination::new(forwarding, 1);
        n.client.update_destination(tcp(service), key, how).unwrap();
        let list = n.client.destinations(tcp(service)).unwrap();
        assert_eq!(list.iter().find(|entry| entry.key == key).unwrap().destination, how);
    }
    // The kernel requires a port for GUE.
    let without_port = Destination::new(Forwarding::Tunnel(Tunnel::gue(0)), 1);
    let error = n.client.add_destination(tcp(service), destination("10.1.1.99:80"), without_port).unwrap_err();
    assert_eq!(error.kernel().unwrap().errno(), 22, "{error}");
}

#[test]
fn weights_and_thresholds_out_of_range_are_rejected() {
    let mut n = Namespace::with_interface();
    let service = "10.0.0.1:80";
    n.client.add_service(tcp(service), VirtualServer::new(Scheduler::RR)).unwrap();
    let key = destination("10.1.1.1:8080");
    let how = Destination { weight: 0, upper_threshold: 100, lower_threshold: 50, ..Destination::default() };
    assert_eq!(added(&mut n, service, key, how), "-m -w 0");
    let list = n.ipvsadm(&["-Ln", "--thresholds"]);
    let line: Vec<&str> = list.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(line, ["->", "10.1.1.1:8080", "100", "50", "0", "0"]);

    let most = Destination { weight: i32::MAX as u32, ..Destination::default() };
    n.client.update_destination(tcp(service), key, most).unwrap();
    assert_eq!(n.client.destinations(tcp(service)).unwrap()[0].destination, most);

    let refused = [
        Destination { weight: 1 << 31, ..Destination::default() },
        Destination { lower_threshold: 2, upper_threshold: 1, ..Destination::default() },
    ];
    for how in refused {
        let error = n.client.update_destination(tcp(service), key, how).unwrap_err();
        assert_eq!(error.kernel().unwrap().errno(), 34, "ERANGE: {error}");
    }
    assert_eq!(n.client.destinations(tcp(service)).unwrap()[0].destination, most);
}

#[test]
fn destinations_of_the_other_family_need_a_tunnel() {
    let mut n = Namespace::with_interface();
    let tunnel = Destination::new(Forwarding::Tunnel(Tunnel::IPIP), 1);
    for (service, key) in [("10.0.0.1:80", "[fd00:1::1]:80"), ("[fd00::1]:80", "10.1.1.1:80")] {
        n.client.add_service(tcp(service), VirtualServer::new(Scheduler::RR)).unwrap();
        assert!(added(&mut n, service, destination(key), tunnel).starts_with("-i -w 1"));
        let masq = Destination::default();
        let error = n.client.update_destination(tcp(service), destination(key), masq).unwrap_err();
        assert_eq!(error.kernel().unwrap().errno(), 22, "only a tunnel crosses families: {error}");
        n.client.delete_destination(tcp(service), destination(key)).unwrap();
        assert_eq!(n.client.destinations(tcp(service)).unwrap(), []);
    }
}
