//! A small cluster of network namespaces that runs kube-ipvs on its three nodes. With `--shell`, it ends in a shell.
//!
//! The demo checks every answer: its exit status says whether all answers were right.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use scenarios::{Cluster, Namespace, Node, Proxy, Server};

/// The example manifest. The demo adds a node port.
const EXAMPLE: &str = "01-hostnames";
const SERVICE: &str = "10.0.91.192";
const NODE_PORT: &str = "30376";
const PODS: [(&str, &str, &str); 3] = [
    ("hostnames-632524106-bbpiw", "node-1", "10.1.161.47"),
    ("hostnames-632524106-ly40y", "node-2", "10.1.166.146"),
    ("hostnames-632524106-tlaok", "node-2", "10.1.166.166"),
];

const USAGE: &str = "Usage: demo [--shell]\n\n  --shell  End in a shell inside the running cluster\n";

fn main() -> ExitCode {
    let shell = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--shell" => true,
        [flag] if flag == "--help" || flag == "-h" => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(shell) {
        Ok(()) => {
            println!("\nAll answers were right.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(shell: bool) -> Result<()> {
    caption("A LAN with three nodes and a client; three pods on node-1 and node-2, one visitor pod on node-3");
    let builder = PODS.iter().fold(Cluster::builder().plain_names(), |builder, (name, node, address)| {
        println!("  {name} on {node}: {address}");
        builder.pod(name, node, address)
    });
    println!("  visitor on node-3: 10.1.170.9");
    println!("  node-1, node-2, node-3: 192.168.128.1, .2, .3; client: 192.168.128.100");
    let cluster = builder.pod("visitor", "node-3", "10.1.170.9").build()?;
    let result = show(&cluster);
    if let Err(error) = &result {
        eprintln!("{error:#}");
        cluster.diagnosis().print();
    }
    let (_proxies, _servers) = result?;
    if shell { play(&cluster) } else { Ok(()) }
}

/// Runs the tour. Its processes run until the returned values are dropped.
fn show(cluster: &Cluster) -> Result<(Vec<Proxy>, Vec<Server>)> {
    let servers = PODS.iter().map(|(name, ..)| cluster.http(name, 9376)).collect::<Result<Vec<_>>>()?;

    caption("The Service `hostnames` (port 80 to the pods' 9376) and its pods, in a folder instead of an API server");
    cluster.manifests.example(EXAMPLE)?;
    cluster.manifests.edit(EXAMPLE, "  clusterIP:", "  type: NodePort\n  clusterIP:")?;
    cluster.manifests.edit(EXAMPLE, "targetPort: 9376", &format!("targetPort: 9376\n      nodePort: {NODE_PORT}"))?;
    let whole = cluster.manifests.read(EXAMPLE)?;
    for line in whole.lines().take_while(|line| *line != "---").filter(|line| !line.starts_with('#')) {
        println!("  {line}");
    }

    caption("kube-ipvs starts on every node");
    let proxies = cluster.start_proxies(&["--cluster-cidr", "10.1.0.0/16"])?;
    let all: Vec<&str> = PODS.iter().map(|(name, ..)| *name).collect();
    await_endpoints(cluster, &PODS.map(|(.., address)| address))?;
    let node = cluster.node("node-1")?;
    listing(node, &["ipvsadm", "-Ln"])?;
    listing(node, &["ip", "addr", "show", "kube-ipvs0"])?;

    caption("All clients reach the Service, and the pods answer in report");
    for (from, url) in [
        ("visitor", format!("http://{SERVICE}/")),
        ("node-1", format!("http://{SERVICE}/")),
        ("client", format!("http://192.168.128.1:{NODE_PORT}/")),
        ("client", format!("http://192.168.128.3:{NODE_PORT}/")),
    ] {
        ask(cluster.at(from)?, from, &url, &all)?;
    }

    caption("A pod leaves the endpoints: no new request goes there");
    let (gone, _, address) = PODS[1];
    println!("  {gone} at {address} is taken out of the EndpointSlice");
    cluster.manifests.remove_endpoint(EXAMPLE, address)?;
    await_endpoints(cluster, &[PODS[0].2, PODS[2].2])?;
    println!("  (a real server with weight 0 only keeps the connections that it has, until they are over)");
    listing(node, &["ipvsadm", "-Ln"])?;
    ask(cluster.at("visitor")?, "visitor", &format!("http://{SERVICE}/"), &[PODS[0].0, PODS[2].0])?;
    ask(cluster.at("client")?, "client", &format!("http://192.168.128.2:{NODE_PORT}/"), &[PODS[0].0, PODS[2].0])?;

    caption("It comes back");
    cluster.manifests.write(EXAMPLE, &whole)?;
    await_endpoints(cluster, &PODS.map(|(.., address)| address))?;
    listing(node, &["ipvsadm", "-Ln"])?;
    ask(cluster.at("visitor")?, "visitor", &format!("http://{SERVICE}/"), &all)?;
    Ok((proxies, servers))
}

/// Waits until all nodes send new connections to exactly these pods.
fn await_endpoints(cluster: &Cluster, addresses: &[&str]) -> Result<()> {
    let reals: Vec<String> = addresses.iter().map(|address| format!("{address}:9376")).collect();
    let reals: Vec<&str> = reals.iter().map(String::as_str).collect();
    for node in cluster.nodes() {
        node.namespace().await_serving(&format!("TCP {SERVICE}:80"), &reals)?;
        node.namespace().await_serving(&format!("TCP {}:{NODE_PORT}", node.ipv4()), &reals)?;
    }
    Ok(())
}

fn listing(node: &Node, command: &[&str]) -> Result<()> {
    println!("\n{}$ {}", node.name(), command.join(" "));
    let (program, arguments) = command.split_first().context("no command")?;
    print!("{}", node.namespace().run(program, arguments)?);
    Ok(())
}

/// Asks twice per pod with curl. Every pod must answer twice.
fn ask(namespace: &Namespace, from: &str, url: &str, pods: &[&str]) -> Result<()> {
    println!("\n{from}$ curl {url}   # {} times", 2 * pods.len());
    let mut answers = Vec::new();
    for _ in 0..2 * pods.len() {
        let answer = namespace.curl(url)?;
        println!("{answer}");
        ensure!(pods.contains(&answer.as_str()), "{answer:?} answered, not one of {pods:?}");
        answers.push(answer);
    }
    for pod in pods {
        let count = answers.iter().filter(|answer| answer == pod).count();
        ensure!(count == 2, "{pod} answered {count} times of {}, not twice", answers.len());
    }
    Ok(())
}

fn play(cluster: &Cluster) -> Result<()> {
    let manifest = cluster.manifests.path(EXAMPLE);
    println!(
        "\nThe cluster is yours. `exit` ends it.\n
  ip netns list                                   nodes, pods and the client
  ip netns exec node-1 ipvsadm -Ln                what kube-ipvs made there
  ip netns exec node-1 nft list ruleset
  ip netns exec client curl 192.168.128.3:{NODE_PORT}
  ip netns exec visitor curl {SERVICE}
  vi {}
                                                  change the Service or its endpoints: it is followed at once
  cat {}/node-1.log         what the daemon of node-1 says\n",
        manifest.display(),
        cluster.directory().display(),
    );
    let status = Command::new("sh").arg("-i").current_dir(cluster.manifests.directory()).status()?;
    // The status of the user's last command says nothing about the demo.
    if status.code().is_none() {
        bail!("the shell ended: {status}");
    }
    Ok(())
}

fn caption(text: &str) {
    println!("\n━━ {text}");
}
