//! Scenario 10: DNS. Port 53 of one ClusterIP over UDP and TCP, with real servers that are replaced one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use scenarios::{Cluster, Load, Namespace, Program, TestResult, dig, dns_server, scenario};

const EXAMPLE: &str = "10-dns";
const RECORD: (&str, &str) = ("hostnames.default.svc.cluster.local", "10.0.91.192");
const KEYS: [&str; 2] = ["UDP 10.96.0.10:53", "TCP 10.96.0.10:53"];

fn with_endpoints(example: &str, addresses: &[&str]) -> Result<String> {
    let (before, _) = example.split_once("endpoints:\n").context("the example ends with its endpoints")?;
    let endpoints: String = addresses.iter().map(|address| format!("  - addresses: [{address}]\n")).collect();
    Ok(format!("{before}endpoints:\n{endpoints}"))
}

fn server(cluster: &Cluster, pod: &str) -> Result<Program> {
    dns_server(cluster.at(pod)?, pod, cluster.directory(), &[RECORD])
}

fn put(cluster: &Cluster, example: &str, addresses: &[&str]) -> Result<()> {
    cluster.manifests.write(EXAMPLE, &with_endpoints(example, addresses)?)?;
    let reals: Vec<String> = addresses.iter().map(|address| format!("{address}:53")).collect();
    let reals: Vec<&str> = reals.iter().map(String::as_str).collect();
    for node in cluster.nodes() {
        for key in KEYS {
            node.namespace().await_serving(key, &reals)?;
        }
    }
    Ok(())
}

/// Sends queries in sequence, every fourth over TCP. A query without an answer is repeated once and counted: a leaving
/// server gets two seconds for its last answers, which can be too short on a slow machine.
fn questions(visitor: &Arc<Namespace>, repeated: &Arc<AtomicUsize>) -> Result<Load> {
    let (from, repeated) = (Arc::clone(visitor), Arc::clone(repeated));
    Load::of(visitor, Duration::ZERO, move |number| {
        let protocol = if number % 4 == 3 { "+tcp" } else { "+notcp" };
        let ask = || dig(&from, "10.96.0.10", &[protocol, RECORD.0]);
        let answer = ask().or_else(|error| {
            println!("question {number} ({protocol}) is repeated: {error:#}");
            repeated.fetch_add(1, Ordering::Relaxed);
            ask()
        })?;
        ensure!(answer == RECORD.1, "question {number} ({protocol}) was answered with {answer:?}");
        Ok(answer)
    })
}

#[test]
fn dns_names_resolve_while_servers_are_replaced() -> TestResult {
    let builder = Cluster::builder()
        .pod("dns-1", "node-1", "10.244.1.2")
        .pod("dns-2", "node-2", "10.244.2.2")
        .pod("dns-3", "node-2", "10.244.2.54")
        .pod("dns-4", "node-1", "10.244.1.54")
        .pod("visitor", "node-3", "10.244.3.9");
    scenario(builder, |cluster| {
        let first = server(cluster, "dns-1")?;
        let second = server(cluster, "dns-2")?;
        cluster.manifests.example(EXAMPLE)?;
        let example = cluster.manifests.read(EXAMPLE)?;
        let _proxies = cluster.start_proxies(&[])?;
        put(cluster, &example, &["10.244.1.2", "10.244.2.2"])?;
        for from in ["visitor", "node-1", "node-3"] {
            let from = cluster.at(from)?;
            assert_eq!(dig(from, "10.96.0.10", &[RECORD.0])?, RECORD.1);
            assert_eq!(dig(from, "10.96.0.10", &["+tcp", RECORD.0])?, RECORD.1);
        }
        let mut names = Vec::new();
        for _ in 0..2 {
            names.push(dig(cluster.at("visitor")?, "10.96.0.10", &["whoami.cluster.local", "TXT"])?);
        }
        names.sort();
        assert_eq!(names, ["\"dns-1\"", "\"dns-2\""]);

        // The visitor sends queries all the time, and dig never retries.
        let repeated = Arc::default();
        let load = questions(cluster.at("visitor")?, &repeated)?;
        let third = server(cluster, "dns-3")?;
        put(cluster, &example, &["10.244.1.2", "10.244.2.2", "10.244.2.54"])?;
        put(cluster, &example, &["10.244.2.2", "10.244.2.54"])?;
        // As in a rolling update, a server ends after it has left the endpoints and has answered.
        load.go_on(1)?;
        drop(first);
        let fourth = server(cluster, "dns-4")?;
        put(cluster, &example, &["10.244.2.2", "10.244.2.54", "10.244.1.54"])?;
        put(cluster, &example, &["10.244.2.54", "10.244.1.54"])?;
        load.go_on(1)?;
        drop(second);
        load.go_on(8)?;
        load.stop(8, "the visitor")?;
        let repeated = repeated.load(Ordering::Relaxed);
        ensure!(repeated <= 2, "{repeated} questions had no answer, and two servers have left");
        drop((third, fourth));
        Ok(())
    })
}
