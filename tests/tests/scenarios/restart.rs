//! Restarts, drift, foreign objects, and the read-only commands.

use anyhow::{Result, ensure};
use scenarios::{
    Cluster, Conversation, Namespace, Service, Slice, TestResult, Transport, VIP_DEVICE, eventually, scenario,
    throughout,
};

use crate::common::{WEB, WEB_ADDRESS, all_web, await_first_sync, await_web, deploy_web, web_cluster, web_slice};

/// The node under test: all tested traffic passes through it.
const NODE: &str = "node-3";

/// `web`, as echo servers and with a node port, and a second Service on one of its pods.
pub(crate) fn deploy(cluster: &Cluster) -> Result<Vec<scenarios::Server>> {
    let service = Service::new("web").node_port_type().cluster_ip("10.96.0.80");
    cluster.manifests.write("web", &service.port_line("port: 80, targetPort: 8080, nodePort: 30080"))?;
    cluster.manifests.write("web-slice", &web_slice(&all_web()))?;
    cluster.manifests.write("second", &Service::new("second").cluster_ip("10.96.0.81").port(80))?;
    cluster.manifests.write("second-slice", &Slice::of("second").port(8080).ready("10.244.1.2").on("node-1"))?;
    all_web().iter().map(|pod| cluster.echo(pod, Transport::Tcp, 8080)).collect()
}

pub(crate) fn await_state(cluster: &Cluster) -> Result<()> {
    await_state_with(cluster, &[])
}

/// Waits for the state of `deploy`, with further VIPs.
fn await_state_with(cluster: &Cluster, others: &[&str]) -> Result<()> {
    let node = cluster.at(NODE)?;
    let all = ["10.244.1.2:8080 1", "10.244.2.2:8080 1", "10.244.2.3:8080 1"];
    node.await_service(WEB, &all)?;
    node.await_service("TCP 192.168.128.3:30080", &all)?;
    node.await_service("TCP 10.96.0.81:80", &["10.244.1.2:8080 1"])?;
    node.await_vips(&[&["10.96.0.80", "10.96.0.81"], others].concat())
}

pub(crate) fn hold(cluster: &Cluster) -> Result<Vec<(Conversation, String)>> {
    let ways = [("visitor", WEB_ADDRESS), (NODE, WEB_ADDRESS), ("client", "192.168.128.3:30080")];
    let mut held = Vec::new();
    for (from, to) in ways {
        let mut connection = cluster.at(from)?.connect(Transport::Tcp, to)?;
        let name = connection.say()?.name;
        held.push((connection, name));
    }
    Ok(held)
}

pub(crate) fn still_held(held: &mut [(Conversation, String)]) -> Result<()> {
    for (connection, name) in held {
        let answer = connection.say()?;
        ensure!(answer.name == *name, "a connection moved from {name} to {}", answer.name);
    }
    Ok(())
}

/// After SIGTERM the kernel keeps serving. A restart drops no connection.
#[test]
fn restart_keeps_connections_and_applies_missed_changes() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy(cluster)?;
        let proxy = cluster.start_proxy(NODE, &[])?;
        await_state(cluster)?;
        let mut held = hold(cluster)?;
        let node = cluster.at(NODE)?;
        let before = (node.ipvsadm()?.configuration(), node.vips()?, node.nft_sets()?);
        let status = proxy.terminate()?;
        ensure!(status.success(), "SIGTERM ended it with {status}");
        assert_eq!((node.ipvsadm()?.configuration(), node.vips()?, node.nft_sets()?), before);
        still_held(&mut held)?;
        cluster.at("visitor")?.echo(Transport::Tcp, WEB_ADDRESS)?;

        // The daemon applies at its start the changes that it missed.
        cluster.manifests.write("second-slice", &Slice::of("second").port(8080).ready("10.244.2.2").on("node-2"))?;
        let _proxy = cluster.start_proxy(NODE, &[])?;
        node.await_serving("TCP 10.96.0.81:80", &["10.244.2.2:8080"])?;
        still_held(&mut held)?;
        assert_eq!((node.vips()?, node.nft_sets()?), (before.1, before.2));
        Ok(())
    })
}

/// Changes that another program could make to objects of kube-ipvs.
const DRIFTS: [&str; 12] = [
    "ipvsadm -e -t 10.96.0.80:80 -r 10.244.2.2:8080 -m -w 5",
    "ipvsadm -e -t 10.96.0.80:80 -r 10.244.2.2:8080 -m -w 0",
    "ipvsadm -E -t 10.96.0.80:80 -s wlc",
    "ipvsadm -E -t 10.96.0.80:80 -s rr -p 300",
    "ipvsadm -d -t 10.96.0.81:80 -r 10.244.1.2:8080",
    "ipvsadm -D -t 10.96.0.81:80",
    "ipvsadm -a -t 10.96.0.81:80 -r 10.9.9.9:80 -m",
    "ip addr del 10.96.0.80/32 dev kube-ipvs0",
    "ip addr add 10.96.0.99/32 dev kube-ipvs0; nft add element ip kube-ipvs vips { 10.96.0.99 }",
    "ip link del kube-ipvs0",
    "nft delete table ip kube-ipvs",
    "nft flush ruleset",
];

pub(crate) fn drift(node: &Namespace, commands: &str) -> Result<()> {
    for command in commands.split("; ") {
        let mut words = command.split(' ');
        node.run(words.next().unwrap_or_default(), &words.collect::<Vec<_>>())?;
    }
    Ok(())
}

/// The state that kube-ipvs repairs: IPVS, VIPs, sets of nftables.
pub(crate) type Everything = (String, Vec<std::net::IpAddr>, scenarios::Sets);

pub(crate) fn everything(node: &Namespace) -> Result<Everything> {
    Ok((node.ipvsadm()?.configuration(), node.vips()?, node.nft_sets()?))
}

/// Waits until everything is as before. Parts can look right before the daemon has started, so all parts must be right
/// at once.
pub(crate) fn await_repaired(node: &Namespace, wanted: &Everything) -> Result<()> {
    eventually(|| {
        let found = everything(node)?;
        ensure!(found.0 == wanted.0, "IPVS has\n{}", found.0);
        ensure!(found.1 == wanted.1, "{VIP_DEVICE} has {:?}", found.1);
        ensure!(found.2 == wanted.2, "nft has {:?}", found.2);
        Ok(())
    })
}

/// The repair drops no connection.
#[test]
fn drift_while_the_daemon_was_away_is_repaired_at_start() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy(cluster)?;
        let node = cluster.at(NODE)?;
        let proxy = cluster.start_proxy(NODE, &[])?;
        await_state(cluster)?;
        let mut held = hold(cluster)?;
        let wanted = everything(node)?;
        proxy.terminate()?;
        for commands in DRIFTS {
            drift(node, commands)?;
            let proxy = cluster.start_proxy(NODE, &[])?;
            await_first_sync(node)?;
            await_repaired(node, &wanted)
                .and_then(|()| still_held(&mut held))
                .map_err(|error| error.context(format!("after `{commands}`")))?;
            proxy.terminate()?;
        }
        Ok(())
    })
}

#[test]
fn drift_while_the_daemon_runs_is_repaired_at_the_next_sync() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy(cluster)?;
        let node = cluster.at(NODE)?;
        let _proxy = cluster.start_proxy(NODE, &["--ipvs-sync-period", "1s"])?;
        await_state(cluster)?;
        cluster.await_settled(NODE, &[])?;
        let mut held = hold(cluster)?;
        let wanted = everything(node)?;
        for commands in DRIFTS {
            drift(node, commands)?;
            await_repaired(node, &wanted)
                .and_then(|()| still_held(&mut held))
                .map_err(|error| error.context(format!("after `{commands}`")))?;
        }
        Ok(())
    })
}

#[test]
fn cleanup_removes_only_objects_of_kube_ipvs() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let node = cluster.at(NODE)?;
        for foreign in [
            "ipvsadm -A -t 203.0.113.9:80 -s wrr",
            "ipvsadm -a -t 203.0.113.9:80 -r 10.9.9.9:80 -m -w 3",
            "nft add table ip foreign",
            "nft 'add set ip foreign kept { type ipv4_addr; elements = { 10.96.0.80 }; }'",
            "nft add table inet filter",
            "ip link add name dummy-foreign type dummy",
            "ip addr add 203.0.113.9/32 dev dummy-foreign",
        ] {
            node.run("sh", &["-c", foreign])?;
        }
        let proxy = cluster.start_proxy(NODE, &[])?;
        await_web(cluster, NODE)?;
        proxy.terminate()?;
        cluster.kube_ipvs(NODE)?.run(&["cleanup"])?;
        assert_eq!(node.ipvsadm()?.configuration(), "TCP 203.0.113.9:80 wrr \n  -> 10.9.9.9:80 Masq 3\n");
        let mut tables: Vec<String> = node.run("nft", &["list", "tables"])?.lines().map(str::to_owned).collect();
        tables.sort();
        assert_eq!(tables, ["table inet filter", "table ip foreign"]);
        assert!(node.run("nft", &["list", "set", "ip", "foreign", "kept"])?.contains("10.96.0.80"));
        assert!(node.run("ip", &["addr", "show", "dummy-foreign"])?.contains("inet 203.0.113.9/32"));
        ensure!(!node.output("ip", &["link", "show", VIP_DEVICE])?.status.success(), "{VIP_DEVICE} is left");
        // A second run finds no objects, which is no error.
        cluster.kube_ipvs(NODE)?.run(&["cleanup"])?;
        let _proxy = cluster.start_proxy(NODE, &[])?;
        await_web(cluster, NODE)
    })
}

/// The daemon never changes foreign virtual servers, inside `--ipvs-exclude-cidrs` or not. It also leaves foreign
/// addresses on its device alone.
#[test]
fn foreign_virtual_servers_and_addresses_stay() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let node = cluster.at(NODE)?;
        for foreign in ["10.96.5.1:80", "203.0.113.9:80"] {
            node.run("ipvsadm", &["-A", "-t", foreign, "-s", "rr"])?;
            node.run("ipvsadm", &["-a", "-t", foreign, "-r", "10.9.9.9:80", "-m"])?;
        }
        let arguments = ["--ipvs-exclude-cidrs", "10.96.5.0/24", "--ipvs-sync-period", "1s"];
        let proxy = cluster.start_proxy(NODE, &arguments)?;
        await_web(cluster, NODE)?;
        node.run("ip", &["addr", "add", "10.96.0.99/32", "dev", VIP_DEVICE])?;
        // Over several full syncs, each of which repairs drift, and over the deletion of a Service.
        for _ in 0..3 {
            node.run("ipvsadm", &["-d", "-t", WEB_ADDRESS, "-r", "10.244.1.2:8080"])?;
            await_web(cluster, NODE)?;
        }
        cluster.manifests.remove("web")?;
        node.await_no_service(WEB)?;
        proxy.terminate()?;
        let foreign =
            "TCP 10.96.5.1:80 rr \n  -> 10.9.9.9:80 Masq 1\nTCP 203.0.113.9:80 rr \n  -> 10.9.9.9:80 Masq 1\n";
        assert_eq!(node.ipvsadm()?.configuration(), foreign);
        node.await_vips(&["10.96.0.99"])?;
        cluster.kube_ipvs(NODE)?.run(&["cleanup"])?;
        assert_eq!(node.ipvsadm()?.configuration(), foreign);
        Ok(())
    })
}

/// Exit status 0: no difference. 1: a difference. 2: `diff` cannot tell.
#[test]
fn diff_exit_status_tells_whether_the_kernel_differs() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let node = cluster.at(NODE)?;
        let manifests = cluster.manifests.directory().to_string_lossy().into_owned();
        let diff = |arguments: &[&str]| -> Result<(Option<i32>, String)> {
            let output = cluster.kube_ipvs(NODE)?.output(&[&["diff"], arguments].concat())?;
            let said = [output.stdout, output.stderr].concat();
            Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
        };
        let all = ["--manifests", manifests.as_str(), "--hostname-override", NODE];
        let (code, said) = diff(&all)?;
        ensure!(code == Some(1), "nothing is there yet: {code:?}\n{said}");
        ensure!(said.contains("10.96.0.80:80"), "it does not say what is to do:\n{said}");
        assert_eq!(node.ipvsadm()?.keys(), Vec::<String>::new(), "diff changed something");
        let proxy = cluster.start_proxy(NODE, &[])?;
        await_web(cluster, NODE)?;
        node.await_vips(&["10.96.0.80"])?;
        let (code, said) = diff(&all)?;
        ensure!(code == Some(0), "all is done: {code:?}\n{said}");
        proxy.terminate()?;
        node.run("ipvsadm", &["-e", "-t", "10.96.0.80:80", "-r", "10.244.2.2:8080", "-m", "-w", "7"])?;
        let (code, said) = diff(&all)?;
        ensure!(code == Some(1) && said.contains("10.244.2.2:8080"), "a weight differs: {code:?}\n{said}");
        let (code, said) = diff(&["--manifests", "/nowhere", "--hostname-override", NODE])?;
        ensure!(code == Some(2), "a folder that is not there: {code:?}\n{said}");
        Ok(())
    })
}

/// `ls` also shows the names of Services.
#[test]
fn ls_lists_every_line_of_ipvsadm() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy(cluster)?;
        let _proxy = cluster.start_proxy(NODE, &[])?;
        await_state(cluster)?;
        let listing = cluster.kube_ipvs(NODE)?.run(&["ls"])?;
        // A line of `ls` has the words of the ipvsadm line in order, with a name between or after them.
        let contains = |line: &str, words: &[&str]| {
            let mut rest = line.split_whitespace();
            words.iter().all(|word| rest.any(|found| found == *word))
        };
        let ipvsadm = cluster.at(NODE)?.run("ipvsadm", &["-Ln"])?;
        for line in ipvsadm.lines().skip(3) {
            let words: Vec<&str> = line.split_whitespace().collect();
            ensure!(
                listing.lines().any(|line| contains(line, &words)),
                "ls lacks {line:?}; it says:\n{listing}\nipvsadm says:\n{ipvsadm}"
            );
        }
        ensure!(listing.contains("default/web") && listing.contains("default/second"), "no names:\n{listing}");
        let json = cluster.kube_ipvs(NODE)?.run(&["ls", "--output", "json"])?;
        ensure!(json.contains("10.96.0.80") && json.trim_start().starts_with(['[', '{']), "no JSON:\n{json}");
        Ok(())
    })
}

/// If a manifest is broken at the start, the daemon cannot know its objects, so it keeps the kernel's state.
#[test]
fn start_with_a_broken_manifest_removes_nothing() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy(cluster)?;
        let node = cluster.at(NODE)?;
        let proxy = cluster.start_proxy(NODE, &[])?;
        await_state(cluster)?;
        let mut held = hold(cluster)?;
        proxy.terminate()?;
        let good = cluster.manifests.read("web")?;
        cluster.manifests.write("web", &good.replace("port: 80,", "port: eighty,"))?;
        let third = Service::new("third").cluster_ip("10.96.0.82").port(80);
        cluster.manifests.write("third", &third)?;
        let _proxy = cluster.start_proxy(NODE, &["--ipvs-sync-period", "1s"])?;
        node.await_service("TCP 10.96.0.82:80", &[])?;
        // Over some sync periods: a removed object would not return.
        throughout(std::time::Duration::from_secs(3), || await_state_with(cluster, &["10.96.0.82"]))?;
        still_held(&mut held)?;
        // Removing the file completes the daemon's view, so it deletes the leftovers.
        cluster.manifests.remove("web")?;
        node.await_no_service(WEB)?;
        node.await_vips(&["10.96.0.81", "10.96.0.82"])
    })
}

/// The daemon was killed, nftables was flushed together with the record, and a Service was deleted. kube-ipvs still
/// recognises its objects for that Service, and still leaves foreign ones alone.
#[test]
fn own_objects_are_recognised_after_an_nftables_flush() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy(cluster)?;
        let node = cluster.at(NODE)?;
        node.run("ipvsadm", &["-A", "-t", "10.96.5.1:80", "-s", "rr"])?;
        let proxy = cluster.start_proxy(NODE, &[])?;
        await_state(cluster)?;
        proxy.kill_nine()?;
        node.run("nft", &["flush", "ruleset"])?;
        cluster.manifests.remove("second")?;
        let proxy = cluster.start_proxy(NODE, &[])?;
        node.await_no_service("TCP 10.96.0.81:80")?;
        node.await_vips(&["10.96.0.80"])?;
        await_web(cluster, NODE)?;
        cluster.at("visitor")?.echo(Transport::Tcp, WEB_ADDRESS)?;
        proxy.terminate()?;
        node.run("nft", &["flush", "ruleset"])?;
        cluster.kube_ipvs(NODE)?.run(&["cleanup"])?;
        assert_eq!(node.ipvsadm()?.configuration(), "TCP 10.96.5.1:80 rr \n");
        ensure!(!node.output("ip", &["link", "show", VIP_DEVICE])?.status.success(), "{VIP_DEVICE} is left");
        Ok(())
    })
}
