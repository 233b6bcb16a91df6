//! The test bench itself, without a daemon. A failure here is in the cluster's wiring, not in kube-ipvs.

use std::time::Duration;

use anyhow::ensure;
use scenarios::{
    Cluster, ClusterBuilder, Failure, Load, TestResult, Transport, database, dig, dns_server, eventually, scenario, sql,
};

fn pods() -> ClusterBuilder {
    Cluster::builder()
        .pod("near", "node-1", "10.1.161.47 fd00:10:1:161::47")
        .pod("same", "node-1", "10.1.161.48 fd00:10:1:161::48")
        .pod("far", "node-2", "10.1.166.146 fd00:10:1:166::146")
}

/// Pods, nodes and hosts reach each other as in a real cluster, with their own source addresses.
#[test]
fn pods_nodes_and_hosts_reach_each_other() -> TestResult {
    scenario(pods().host("database", "192.168.128.11 fd00:128::11"), |cluster| {
        let _servers = [cluster.http("near", 80)?, cluster.http("far", 80)?, cluster.http("database", 80)?];
        for from in ["near", "same", "far", "node-1", "node-2", "node-3", "client", "database"] {
            for (to, name) in [
                ("10.1.161.47:80", "near"),
                ("[fd00:10:1:161::47]:80", "near"),
                ("10.1.166.146:80", "far"),
                ("[fd00:10:1:166::146]:80", "far"),
                ("192.168.128.11:80", "database"),
                ("[fd00:128::11]:80", "database"),
            ] {
                assert_eq!(cluster.at(from)?.get(to)?.name, name, "from {from}");
            }
        }
        let seen = cluster.at("same")?.get("[fd00:10:1:166::146]:80")?.peer.ip();
        assert_eq!(seen.to_string(), "fd00:10:1:161::48");
        let seen = cluster.at("same")?.get("10.1.166.146:80")?.peer.ip();
        assert_eq!(seen.to_string(), "10.1.161.48");
        assert_eq!(cluster.at("client")?.curl("http://10.1.166.146/")?, "far");
        Ok(())
    })
}

#[test]
fn servers_echo_and_refuse_when_closed() -> TestResult {
    scenario(pods(), |cluster| {
        let mut tcp = cluster.echo("far", Transport::Tcp, 7)?;
        let udp = cluster.echo("far", Transport::Udp, 7)?;
        let same = cluster.at("same")?;
        for transport in [Transport::Tcp, Transport::Udp] {
            for to in ["10.1.166.146:7", "[fd00:10:1:166::146]:7"] {
                assert_eq!(same.echo(transport, to)?.name, "far");
            }
        }
        let mut held = same.connect(Transport::Tcp, "10.1.166.146:7")?;
        held.say()?;
        tcp.close_listener();
        same.expect_refused(Transport::Tcp, "10.1.166.146:7")?;
        held.say()?;
        drop(tcp);
        ensure!(held.say().is_err(), "a stopped server still answers");
        drop(udp);
        // The server reads its last datagrams before it ends.
        eventually(|| same.expect_refused(Transport::Udp, "10.1.166.146:7"))
    })
}

/// The kernel must have SCTP: without it, the SCTP scenarios prove nothing.
#[test]
fn sctp_reaches_pods() -> TestResult {
    scenario(pods(), |cluster| {
        let _server = cluster.echo("far", Transport::Sctp, 7)?;
        for to in ["10.1.166.146:7", "[fd00:10:1:166::146]:7"] {
            assert_eq!(cluster.at("same")?.echo(Transport::Sctp, to)?.name, "far");
        }
        cluster.at("same")?.expect_refused(Transport::Sctp, "10.1.166.146:9")
    })
}

#[test]
fn bench_pod_is_unreachable_until_it_returns_at_a_new_address() -> TestResult {
    scenario(pods(), |cluster| {
        let server = cluster.http("far", 80)?;
        let load = Load::start(cluster.at("client")?, "10.1.166.146:80", Duration::from_millis(1))?;
        cluster.at("near")?.get_many("10.1.166.146:80", 20)?;
        load.stop(1, "the client")?;
        cluster.remove_pod("far")?;
        drop(server);
        let gone = cluster.at("near")?.try_get("10.1.166.146:80")?;
        ensure!(!matches!(gone, Ok(_) | Err(Failure::Refused)), "a pod that is gone answers: {gone:?}");
        cluster.add_pod("far", "node-2", "10.1.166.147")?;
        let _server = cluster.http("far", 80)?;
        assert_eq!(cluster.at("near")?.get("10.1.166.147:80")?.name, "far");
        Ok(())
    })
}

/// The programs that some scenarios use as servers.
#[test]
fn dns_and_database_serve() -> TestResult {
    scenario(pods().host("database", "192.168.128.11"), |cluster| {
        let dns = cluster.at("near")?;
        let _dns =
            dns_server(dns, "near", cluster.directory(), &[("hostnames.default.svc.cluster.local", "10.0.91.192")])?;
        let far = cluster.at("far")?;
        assert_eq!(dig(far, "10.1.161.47", &["hostnames.default.svc.cluster.local"])?, "10.0.91.192");
        assert_eq!(dig(far, "10.1.161.47", &["+tcp", "whoami.cluster.local", "TXT"])?, "\"near\"");
        let _database = database(cluster.at("database")?, "database", cluster.directory())?;
        assert_eq!(sql(far, "192.168.128.11", 3306, "select 6 * 7")?, "42");
        Ok(())
    })
}
