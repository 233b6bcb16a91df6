//! The state of kube-ipvs 0.1 in the kernel and in its record, which later versions write and read.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use scenarios::{Cluster, Monitor, Namespace, Service, Sets, Slice, TestResult, Transport, eventually, scenario};

use crate::common::{WEB_ADDRESS, WEB_PODS, all_web, await_first_sync, web_cluster, web_slice};
use crate::open_connections::{await_counts, makes_again};

const NODE: &str = "node-3";
/// As `nft list ruleset` and `ipvsadm -Sn` listed them, without the rules that nft cannot read back, and the record.
const RULES: &str = include_str!("../../data/format-0.1/rules.nft");
const SERVERS: &str = include_str!("../../data/format-0.1/servers.ipvsadm");
const RECORD: &str = include_str!("../../data/format-0.1/owned");
const VIPS: [&str; 3] = ["10.96.0.80/32", "10.96.0.90/32", "fd00:10:96::6/128 nodad"];
/// A Service that is deleted before the next version starts.
const GONE: &str = "10.96.0.90";
/// A chain of 0.1 that later versions do not have.
const OLD_CHAIN: &str = "refuse";

fn deploy(cluster: &Cluster) -> Result<()> {
    let service = Service::new("web").node_port_type().cluster_ip("10.96.0.80");
    cluster.manifests.write("web", &service.port_line("port: 80, targetPort: 8080, nodePort: 30080"))?;
    cluster.manifests.write("web-slice", &web_slice(&all_web()))?;
    for (name, vip, endpoint) in [("gone", GONE, "10.244.1.2"), ("six", "fd00:10:96::6", "fd00:10:244:1::2")] {
        cluster.manifests.write(name, &Service::new(name).cluster_ip(vip).port(80))?;
        cluster.manifests.write(&format!("{name}-slice"), &Slice::of(name).port(8080).ready(endpoint).on("node-1"))?;
    }
    Ok(())
}

/// The file of the record. Its name has the number of the network namespace.
fn record(cluster: &Cluster) -> Result<PathBuf> {
    let files = fs::read_dir(cluster.directory().join(format!("{NODE}.run")))?;
    let paths = files.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
    let is_record = |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("owned-"));
    paths.iter().find(is_record).cloned().with_context(|| format!("no record among {paths:?}"))
}

/// The record, and the sets by which kube-ipvs knows its objects.
fn known(cluster: &Cluster) -> Result<(Vec<String>, Sets)> {
    let mut lines: Vec<String> = fs::read_to_string(record(cluster)?)?.lines().map(str::to_owned).collect();
    lines.sort();
    let mut sets = cluster.at(NODE)?.nft_sets()?;
    sets.retain(|name, _| name.ends_with(" served") || name.ends_with(" vips"));
    Ok((lines, sets))
}

/// Puts the state of 0.1 into the node, without a daemon.
fn restore(cluster: &Cluster) -> Result<()> {
    let node = cluster.at(NODE)?;
    let addresses = VIPS.map(|vip| format!("\naddr add {vip} dev kube-ipvs0")).concat();
    node.ip(&format!("link add kube-ipvs0 type dummy{addresses}"))?;
    for (content, command) in [(SERVERS, "ipvsadm -R <"), (RULES, "nft -f")] {
        let file = cluster.directory().join("restored");
        fs::write(&file, content)?;
        node.run("sh", &["-c", &format!("{command} {}", file.display())])?;
    }
    Ok(fs::write(record(cluster)?, RECORD)?)
}

fn has_old_chain(node: &Namespace) -> Result<bool> {
    Ok(node.run("nft", &["list", "chains"])?.lines().any(|line| line.trim() == format!("chain {OLD_CHAIN} {{")))
}

/// If this test fails because the format has changed, a downgrade to 0.1 needs a plan.
#[test]
fn state_of_0_1_equals_todays_and_is_served_on_without_a_gap() -> TestResult {
    scenario(web_cluster(), |cluster| {
        deploy(cluster)?;
        let node = cluster.at(NODE)?;
        let proxy = cluster.start_proxy(NODE, &[])?;
        await_first_sync(node)?;
        cluster.await_settled(NODE, &[])?;
        proxy.terminate()?;
        let today = known(cluster)?;
        let file = record(cluster)?;
        cluster.kube_ipvs(NODE)?.run(&["cleanup"])?;
        fs::write(&file, "")?;
        restore(cluster)?;
        assert_eq!(known(cluster)?, today);
        ensure!(has_old_chain(node)?, "the state of 0.1 has no chain {OLD_CHAIN}");

        let _servers = WEB_PODS.map(|(pod, ..)| cluster.echo(pod, Transport::Tcp, 8080));
        let connect = |_| cluster.at("visitor")?.connect(Transport::Tcp, WEB_ADDRESS);
        let mut connections = (0..WEB_PODS.len()).map(connect).collect::<Result<Vec<_>>>()?;
        for connection in &mut connections {
            connection.say()?;
        }
        // Of another program: the record of 0.1 does not have it.
        node.run("ipvsadm", &["-A", "-t", "203.0.113.9:80", "-s", "rr"])?;
        cluster.manifests.remove("gone")?;
        cluster.manifests.remove("gone-slice")?;
        let before = await_counts(node, connections.len())?;
        let monitor = Monitor::start(node, cluster.directory())?;
        let _proxy = cluster.start_proxy(NODE, &[])?;
        node.await_no_service(&format!("TCP {GONE}:80"))?;
        node.await_vips(&["10.96.0.80", "fd00:10:96::6"])?;
        cluster.await_settled(NODE, &[])?;
        eventually(|| {
            let sets = node.nft_sets()?;
            let left = sets.iter().find(|(_, elements)| elements.iter().any(|element| element.contains(GONE)));
            ensure!(left.is_none(), "a set still has {GONE}: {left:?}");
            Ok(())
        })?;
        for connection in &mut connections {
            connection.say()?;
        }
        ensure!(!has_old_chain(node)?, "the chain {OLD_CHAIN} of 0.1 is left");
        let notices = monitor.notices()?;
        // Not the elements: nft does not know all sets that it reports about.
        let is_removal = |line: &String| line.starts_with("Deleted") && line.contains(GONE);
        ensure!(notices.iter().any(is_removal), "the address {GONE} is removed: {notices:#?}");
        let again: Vec<&String> = notices.iter().filter(|line| makes_again(line) && !line.contains(GONE)).collect();
        ensure!(again.is_empty(), "these are made again: {again:#?}");
        let is_kept = |line: &&String| !line.starts_with("->") && !line.contains(GONE);
        let after = await_counts(node, connections.len())?;
        let [before, after] = [&before, &after].map(|lines| lines.iter().filter(is_kept).collect::<Vec<_>>());
        assert_eq!(after, before);
        ensure!(node.ipvsadm()?.service("TCP 203.0.113.9:80").is_some(), "the virtual server of others is gone");
        Ok(())
    })
}
