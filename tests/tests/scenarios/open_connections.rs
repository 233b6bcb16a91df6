//! Thousands of open connections while kube-ipvs is killed, restarted and replaced by another build.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result, ensure};
use scenarios::{
    Cluster, Monitor, Namespace, Proxy, Service, Slice, TestResult, VIP_DEVICE, eventually, patience, scenario,
    socket_address,
};

use crate::common::{WEB_ADDRESS, WEB_PODS, all_web, await_first_sync, web_cluster, web_slice};

const NODE: &str = "node-3";
/// Where the connections come from, and where they go to.
const WAYS: [(&str, &str); 2] = [("visitor", WEB_ADDRESS), ("client", "192.168.128.3:30080")];

/// The number of connections: fewer in CI, more through the environment.
fn connections() -> Result<usize> {
    let connections = std::env::var("KUBE_IPVS_OPEN_CONNECTIONS").unwrap_or_else(|_| "1000".into());
    connections.parse().context("KUBE_IPVS_OPEN_CONNECTIONS")
}

/// The Service, and others around it: an upgrade must not touch their virtual servers either.
fn deploy(cluster: &Cluster) -> Result<()> {
    let service = Service::new("web").node_port_type().cluster_ip("10.96.0.80");
    cluster.manifests.write("web", &service.port_line("port: 80, targetPort: 8080, nodePort: 30080"))?;
    cluster.manifests.write("web-slice", &web_slice(&all_web()))?;
    for number in 1..=50 {
        let name = format!("other-{number}");
        cluster.manifests.write(&name, &Service::new(&name).cluster_ip(&format!("10.96.1.{number}")).port(80))?;
        let slice = Slice::of(&name).port(8080).ready(&format!("10.244.1.{}", number + 100));
        cluster.manifests.write(&format!("{name}-slice"), &slice)?;
    }
    Ok(())
}

/// The ends of a connection. The test holds both, so it needs no thread for each.
struct Ends([TcpStream; 2]);

impl Ends {
    fn new(ends: [TcpStream; 2]) -> Result<Self> {
        for end in &ends {
            end.set_read_timeout(Some(patience()))?;
            end.set_write_timeout(Some(patience()))?;
        }
        Ok(Self(ends))
    }

    /// Sends a message in both directions.
    fn speak(&self, message: u64) -> Result<()> {
        let [client, server] = &self.0;
        for (mut from, mut to) in [(client, server), (server, client)] {
            from.write_all(&message.to_be_bytes())?;
            let mut found = [0; 8];
            to.read_exact(&mut found)?;
            ensure!(found == message.to_be_bytes(), "{found:?} instead of {message}");
        }
        Ok(())
    }
}

fn speak_all(all: &[Ends], after: &str) -> Result<()> {
    let lost: Vec<String> = all
        .iter()
        .zip(1..)
        .filter_map(|(ends, number)| ends.speak(number).err().map(|error| format!("{number}: {error:#}")))
        .collect();
    let first = lost.first();
    ensure!(lost.is_empty(), "after {after}: {} of {} connections are lost, such as {first:?}", lost.len(), all.len());
    Ok(())
}

fn listeners(cluster: &Cluster) -> Result<Vec<TcpListener>> {
    let listen = |address: &str| -> Result<TcpListener> {
        let listener = TcpListener::bind((address, 8080))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    WEB_PODS.iter().map(|(pod, _, address)| cluster.at(pod)?.enter(|| listen(address))).collect()
}

/// Opens connections from a namespace. Each is accepted before the next one.
fn open(from: &Namespace, to: SocketAddr, count: usize, listeners: &[TcpListener]) -> Result<Vec<Ends>> {
    let one = || -> Result<Ends> {
        let client = TcpStream::connect_timeout(&to, patience())?;
        let accepted = || listeners.iter().find_map(|listener| listener.accept().ok());
        let (server, _) = eventually(|| accepted().context("no pod has the connection"))?;
        server.set_nonblocking(false)?;
        Ends::new([client, server])
    };
    from.enter(|| (0..count).map(|_| one()).collect())
}

/// The connections that each virtual server and each real server has counted since it was made: as many as `opened` in
/// all. The kernel adds its counters up every two seconds.
pub(crate) fn await_counts(node: &Namespace, opened: usize) -> Result<Vec<String>> {
    eventually(|| {
        let stats = node.run("ipvsadm", &["-Ln", "--stats", "--exact"])?;
        let words = |line: &str| line.split_whitespace().take(3).map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<Vec<String>> = stats.lines().skip(3).map(words).collect();
        let counts = lines.iter().filter(|words| words[0] != "->").filter_map(|words| words[2].parse::<usize>().ok());
        let counted: usize = counts.sum();
        ensure!(counted == opened, "IPVS has counted {counted} connections of {opened}: {lines:?}");
        Ok(lines.iter().map(|words| words.join(" ")).collect())
    })
}

/// Waits until IPVS lists this number of established connections. Its list can lack entries while other namespaces
/// change theirs.
fn await_established(node: &Namespace, count: usize) -> Result<()> {
    eventually(|| {
        let list = node.run("ipvsadm", &["-Lnc"])?;
        let found = list.lines().filter(|line| line.contains("ESTABLISHED")).count();
        ensure!(found == count, "IPVS has {found} established connections of {count}");
        Ok(())
    })
}

/// Another build on the PATH, which `cargo xtask test --other-build` puts there.
const OTHER: &str = "kube-ipvs-other";

fn has_other_build() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(OTHER).is_file())
}

fn start(cluster: &Cluster, is_other: bool) -> Result<Proxy> {
    let [flag, path] = cluster.source();
    let command = if is_other { cluster.example(NODE, OTHER)? } else { cluster.kube_ipvs(NODE)? };
    let proxy = command.spawn(&["run", &flag, &path, "--hostname-override", NODE])?;
    await_first_sync(cluster.at(NODE)?)?;
    Ok(proxy)
}

/// Neither a connection ends, nor is a virtual server, an address or an element of a set made again. Without another
/// build, the same one stands for it.
#[test]
fn open_connections_outlive_sigkill_restart_upgrade_and_downgrade() -> TestResult {
    let count = connections()?;
    scenario(web_cluster(), move |cluster| {
        deploy(cluster)?;
        let node = cluster.at(NODE)?;
        let has_other = has_other_build();
        println!("the upgrade leads to {}", if has_other { "another build" } else { "the same build" });
        let mut proxy = start(cluster, false)?;
        cluster.await_settled(NODE, &[])?;
        let listeners = listeners(cluster)?;
        let mut all = Vec::new();
        for (from, to) in WAYS {
            all.extend(open(cluster.at(from)?, socket_address(to)?, count / WAYS.len(), &listeners)?);
        }
        speak_all(&all, "the first sync")?;
        await_established(node, all.len())?;
        let before = await_counts(node, all.len())?;
        let monitor = Monitor::start(node, cluster.directory())?;
        let steps = [("SIGKILL", false), ("SIGTERM", false), ("an upgrade", has_other), ("a downgrade", false)];
        for (step, is_other) in steps {
            if step == "SIGKILL" {
                proxy.kill_nine()?;
            } else {
                ensure!(proxy.terminate()?.success(), "SIGTERM is its end, and not a failure");
            }
            speak_all(&all, &format!("{step}, without a daemon"))?;
            proxy = start(cluster, is_other)?;
            if !is_other {
                // The rules of another build differ from those of `diff`.
                cluster.await_settled(NODE, &[])?;
            }
            speak_all(&all, step)?;
            let notices = monitor.notices()?;
            let counts = if has_other { makes_again } else { changes_anything };
            let again: Vec<&String> = notices.iter().filter(|line| counts(line)).collect();
            ensure!(again.is_empty(), "after {step} these are made again: {again:#?}");
            println!("after {step}: {} notices, and none about an address or an element", notices.len());
        }
        await_established(node, all.len())?;
        // Linux lists virtual servers in the order of its hash table, with those that were made later in front.
        let after = await_counts(node, all.len())?;
        ensure!(after == before, "IPVS has counted\n{after:#?}\ninstead of\n{before:#?}");
        println!("{} connections: none lost", all.len());
        Ok(())
    })
}

/// Whether a notice is about a VIP, its device, or an element of the sets by which kube-ipvs knows its objects. Another
/// build replaces rules and adds sets.
pub(crate) fn makes_again(notice: &str) -> bool {
    let is_of_device = notice.contains(&format!(": {VIP_DEVICE}"));
    let is_element = [" served ", " vips "].iter().any(|set| notice.contains(set)) && notice.contains(" element ip");
    is_of_device || is_element || ["delete table", "delete set"].iter().any(|start| notice.starts_with(start))
}

/// Whether a notice is about any object of kube-ipvs. If nft does not know a set, it prints a warning instead of the
/// element.
fn changes_anything(notice: &str) -> bool {
    notice.contains("kube-ipvs") || notice.starts_with("W: ")
}
