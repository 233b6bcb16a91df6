//! The rules themselves: how many there are, and what a packet of an established connection pays.

use anyhow::{Result, ensure};
use scenarios::{Cluster, Namespace, Service, Slice, TestResult, scenario};

const FAMILIES: [&str; 2] = ["ip", "ip6"];

/// Chains and rules, without their counters: `nft -s` leaves out what changes.
fn chains(node: &Namespace) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for family in FAMILIES {
        let listing = node.run("nft", &["-s", "list", "table", family, "kube-ipvs"])?;
        let from_chains = listing.lines().skip_while(|line| !line.trim_start().starts_with("chain "));
        lines.extend(from_chains.map(str::to_owned));
    }
    Ok(lines)
}

/// Services of all kinds, each with two endpoints.
fn services(count: usize) -> String {
    let one = |number: usize| {
        let (high, low) = (number / 250, number % 250 + 1);
        let service = Service::new(&format!("app-{number}"))
            .line("type: LoadBalancer")
            .line(&format!(
                "externalTrafficPolicy: {}",
                if number.is_multiple_of(2) { "Local" } else { "Cluster" }
            ))
            .line("loadBalancerSourceRanges: [192.168.0.0/16]")
            .cluster_ip(&format!("10.96.{high}.{low}"))
            .load_balancer_ip(&format!("203.0.{high}.{low}"))
            .port_line(&format!("port: 80, targetPort: 8080, nodePort: {}", 30_000 + number));
        let slice = Slice::of(&format!("app-{number}")).port(8080);
        let slice = slice.ready(&format!("10.244.{high}.{low}")).on("node-3");
        format!("{service}---\n{}---\n", slice.ready(&format!("10.245.{high}.{low}")).on("node-2"))
    };
    (0..count).map(one).collect()
}

/// "Constant number of rules": one Service and five hundred have the same chains, and a packet of an established
/// connection meets one rule in each.
#[test]
fn their_number_does_not_depend_on_that_of_services() -> TestResult {
    scenario(Cluster::builder(), |cluster| {
        let node = cluster.at("node-3")?;
        cluster.manifests.write("all", &services(1))?;
        let _proxy = cluster.start_proxy("node-3", &["--cluster-cidr", "10.244.0.0/16"])?;
        node.await_service("TCP 10.96.0.1:80", &["10.244.0.1:8080 1", "10.245.0.1:8080 1"])?;
        cluster.await_settled("node-3", &["--cluster-cidr", "10.244.0.0/16"])?;
        let one = chains(node)?;
        ensure!(one.len() > 20, "{one:?}");
        cluster.manifests.write("all", &services(500))?;
        node.await_service("TCP 10.96.1.250:80", &["10.244.1.250:8080 1", "10.245.1.250:8080 1"])?;
        cluster.await_settled("node-3", &["--cluster-cidr", "10.244.0.0/16"])?;
        let virtual_servers = node.ipvsadm()?.keys().len();
        ensure!(virtual_servers >= 1500, "only {virtual_servers} virtual servers");
        assert_eq!(chains(node)?, one);
        let mut hooked = 0;
        for chain in one.split(|line| line.trim() == "}") {
            let mut lines = chain.iter().map(|line| line.trim()).filter(|line| !line.is_empty());
            let (Some(name), Some(kind), Some(first)) = (lines.next(), lines.next(), lines.next()) else {
                continue;
            };
            // What nat chains and the mark's end decide is for first packets, or one rule long.
            if kind.starts_with("type filter") && !name.contains("clear-mark") {
                hooked += 1;
                ensure!(first.starts_with("ct state established,related accept"), "{name}: {first}");
            }
        }
        ensure!(hooked == 10, "{hooked} filter chains, not five in each family");
        Ok(())
    })
}
