//! A VIP moves to another node while connections are open.

use anyhow::{Result, ensure};
use scenarios::{Conversation, Failure, TestResult, Transport, scenario};

use crate::without_nat::{FLAGS, VIPS, accept_answers, await_forwarding, lan, route_vips, serve, service, slices};

const CONNECTIONS: usize = 100;
/// How many connections must survive.
const ENOUGH: usize = 99;

/// With Maglev hashing and without NAT, every node sends the packets of a connection to the same endpoint.
#[test]
fn open_connections_survive_the_move_of_a_vip_to_another_node() -> TestResult {
    scenario(lan(), |cluster| {
        let _servers = [serve(cluster, "real-1")?, serve(cluster, "real-2")?];
        accept_answers(cluster)?;
        let endpoints = [("192.168.128.51 fd00:128::51", None), ("192.168.128.52 fd00:128::52", None)];
        cluster.manifests.write("slices", &slices(&endpoints))?;
        let annotations = [("forwarding", "direct"), ("scheduler", "mh")];
        cluster.manifests.write("app", &service(&annotations, "Cluster"))?;
        let _proxies = cluster.start_proxies(&FLAGS)?;
        for node in ["node-1", "node-3"] {
            await_forwarding(cluster.at(node)?, "TCP 203.0.113.80:80", "Route", 2)?;
            cluster.await_settled(node, &FLAGS)?;
        }
        let client = cluster.at("client")?;
        for vip in VIPS.map(|vip| if vip.contains(':') { format!("[{vip}]:80") } else { format!("{vip}:80") }) {
            route_vips(cluster, 1)?;
            let open = |_| {
                let mut connection = client.connect(Transport::Tcp, &vip)?;
                let name = connection.say()?.name;
                Ok((connection, name))
            };
            let mut open: Vec<(Conversation, String)> = (0..CONNECTIONS).map(open).collect::<Result<_>>()?;
            let of_first = open.iter().filter(|(_, name)| name == "real-1").count();
            ensure!((1..CONNECTIONS).contains(&of_first), "{of_first} of {CONNECTIONS} go to real-1");
            route_vips(cluster, 3)?;
            let mut ended: Vec<Failure> = Vec::new();
            for (connection, name) in &mut open {
                match connection.say() {
                    Ok(answer) => ensure!(answer.name == *name, "{} answers for {name}", answer.name),
                    Err(failure) => ended.push(failure),
                }
            }
            ensure!(ended.len() <= CONNECTIONS - ENOUGH, "{vip}: {} connections ended: {ended:?}", ended.len());
        }
        Ok(())
    })
}
