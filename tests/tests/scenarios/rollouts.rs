//! Rolling Deployments under a load of every protocol, with pods that lose no request themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use scenarios::{
    Cluster, Conversation, KeepAlive, Load, Server, Service, Slice, TestResult, Transport, echo_here, eventually,
    scenario, socket_address,
};

const REPLICAS: usize = 3;
const VIP: &str = "10.96.0.80";
/// The nodes whose clients send requests: a pod by the ClusterIP, and a host outside by a node port.
const NODES: [&str; 2] = ["node-3", "node-1"];
const HTTP: u16 = 8080;
const LONG: u16 = 8081;
const UDP: u16 = 8053;
const SCTP: u16 = 8132;
const SERVING_TERMINATING: &str = "ready: false, serving: true, terminating: true";

/// The number of requests: few in CI, more through the environment.
fn requests() -> Result<usize> {
    let requests = std::env::var("KUBE_IPVS_ROLLOUT_REQUESTS").unwrap_or_else(|_| "1000".into());
    requests.parse().context("KUBE_IPVS_ROLLOUT_REQUESTS")
}

fn service() -> Service {
    let ports = [
        format!("name: http, port: 80, targetPort: {HTTP}, nodePort: 30080"),
        format!("name: long, port: 81, targetPort: {LONG}, nodePort: 30081"),
        format!("name: udp, protocol: UDP, port: 53, targetPort: {UDP}, nodePort: 30053"),
        format!("name: sctp, protocol: SCTP, port: 132, targetPort: {SCTP}, nodePort: 30132"),
    ];
    let service = Service::new("web").node_port_type().cluster_ip(VIP);
    ports.iter().fold(service, |service, port| service.port_line(port))
}

struct Pod {
    number: usize,
    http: Server,
    long: Server,
    sctp: Server,
    /// It has no connections: it answers until it is dropped.
    _udp: Server,
}

fn name(number: usize) -> String {
    format!("web-{number}")
}

fn node(number: usize) -> String {
    format!("node-{}", number % REPLICAS + 1)
}

/// Few addresses, as a node has: a later pod gets that of an earlier one.
fn address(number: usize) -> String {
    format!("10.244.{}.{}", number % REPLICAS + 1, number / REPLICAS % 100 + 10)
}

impl Pod {
    fn start(cluster: &Cluster, number: usize) -> Result<Self> {
        let name = name(number);
        Ok(Self {
            number,
            http: cluster.http(&name, HTTP)?,
            long: cluster.echo(&name, Transport::Tcp, LONG)?,
            sctp: cluster.echo(&name, Transport::Sctp, SCTP)?,
            _udp: cluster.echo(&name, Transport::Udp, UDP)?,
        })
    }

    /// Waits until it has served each connection that was sent to it. A connection of the test itself is the last one
    /// that it accepts.
    fn await_idle(&self, cluster: &Cluster) -> Result<()> {
        let (visitor, address) = (cluster.at("visitor")?, address(self.number));
        for (server, transport, port) in [
            (&self.http, None, HTTP),
            (&self.long, Some(Transport::Tcp), LONG),
            (&self.sctp, Some(Transport::Sctp), SCTP),
        ] {
            let to = format!("{address}:{port}");
            match transport {
                None => visitor.get(&to)?,
                Some(transport) => visitor.connect(transport, &to)?.say()?,
            };
            server.await_idle().with_context(|| format!("{to} terminates"))?;
        }
        Ok(())
    }
}

struct Deployment<'a> {
    cluster: &'a mut Cluster,
    pods: Vec<Pod>,
    next: usize,
    /// The pod that terminates, for clients with long connections. Such protocols announce the end of a connection.
    leaving: Arc<AtomicUsize>,
}

impl Deployment<'_> {
    fn publish(&self, leaving: Option<&Pod>) -> Result<()> {
        let slice = Slice::of("web").named_port("http", "TCP", HTTP).named_port("long", "TCP", LONG);
        let slice = slice.named_port("udp", "UDP", UDP).named_port("sctp", "SCTP", SCTP);
        let slice = self.pods.iter().fold(slice, |slice, pod| slice.ready(&address(pod.number)).on(&node(pod.number)));
        let slice = leaving
            .into_iter()
            .fold(slice, |slice, pod| slice.endpoint(&address(pod.number), SERVING_TERMINATING).on(&node(pod.number)));
        self.cluster.manifests.write("web-slice", &slice)
    }

    /// Replaces the oldest pod by another one, as a Deployment does with a surge of one pod.
    fn replace(&mut self) -> Result<()> {
        self.cluster.add_pod(&name(self.next), &node(self.next), &address(self.next))?;
        self.pods.push(Pod::start(self.cluster, self.next)?);
        self.next += 1;
        self.publish(None)?;
        let old = self.pods.remove(0);
        self.leaving.store(old.number, Ordering::SeqCst);
        for server in [&old.http, &old.long, &old.sctp] {
            server.terminate();
        }
        self.publish(Some(&old))?;
        // A real pod waits some seconds in its preStop hook.
        for node in NODES {
            await_left(self.cluster, node, &address(old.number))?;
        }
        old.await_idle(self.cluster)?;
        let number = old.number;
        drop(old);
        self.cluster.remove_pod(&name(number))?;
        self.publish(None)
    }
}

/// Waits until a node sends no new connection to an endpoint, and no datagram at all.
fn await_left(cluster: &Cluster, node: &str, endpoint: &str) -> Result<()> {
    eventually(|| {
        for server in cluster.at(node)?.ip_vs()?.0 {
            let is_udp = server.protocol == "UDP";
            let of_endpoint = server.real_servers.iter().find(|real| real.address.ip().to_string() == endpoint);
            let is_served = of_endpoint.is_some_and(|real| real.weight > 0 || is_udp);
            ensure!(!is_served, "{node} sends to {endpoint}: {of_endpoint:?} of {}", server.key());
        }
        Ok(())
    })
}

/// Messages over one connection, until its pod terminates.
fn long(
    transport: Transport,
    to: &str,
    leaving: &Arc<AtomicUsize>,
) -> Result<impl FnMut(usize) -> Result<String> + use<>> {
    let (to, leaving) = (socket_address(to)?, Arc::clone(leaving));
    let mut connection = None;
    Ok(move |_| {
        let mut open = match connection.take() {
            Some(open) => open,
            None => Conversation::open_here(transport, to)?,
        };
        let answered = open.say()?.name;
        if answered != name(leaving.load(Ordering::SeqCst)) {
            connection = Some(open);
        }
        Ok(answered)
    })
}

fn keep_alive(to: &str) -> Result<impl FnMut(usize) -> Result<String> + use<>> {
    let mut client = KeepAlive::new(socket_address(to)?);
    Ok(move |_| Ok(client.get()?.name))
}

/// One socket for each request, as DNS clients have.
fn datagrams(to: &str) -> Result<impl FnMut(usize) -> Result<String> + use<>> {
    let to = socket_address(to)?;
    Ok(move |_| Ok(echo_here(Transport::Udp, to)?.name))
}

fn loads(cluster: &Cluster, leaving: &Arc<AtomicUsize>) -> Result<Vec<(&'static str, Load)>> {
    let (pod, outside) = (cluster.at("visitor")?, cluster.at("client")?);
    let pause = Duration::from_millis(5);
    let at = "192.168.128.1";
    Ok(vec![
        ("keep-alive HTTP of a pod", Load::of(pod, pause, keep_alive(&format!("{VIP}:80"))?)?),
        ("long TCP of a pod", Load::of(pod, pause, long(Transport::Tcp, &format!("{VIP}:81"), leaving)?)?),
        ("UDP of a pod", Load::of(pod, pause, datagrams(&format!("{VIP}:53"))?)?),
        ("SCTP of a pod", Load::of(pod, pause, long(Transport::Sctp, &format!("{VIP}:132"), leaving)?)?),
        ("keep-alive HTTP from outside", Load::of(outside, pause, keep_alive(&format!("{at}:30080"))?)?),
        ("long TCP from outside", Load::of(outside, pause, long(Transport::Tcp, &format!("{at}:30081"), leaving)?)?),
        ("UDP from outside", Load::of(outside, pause, datagrams(&format!("{at}:30053"))?)?),
    ])
}

/// Every pod is replaced at least once.
#[test]
fn no_request_of_any_protocol_fails_during_roll_outs() -> TestResult {
    let requests = requests()?;
    let cluster = Cluster::builder().pod("visitor", "node-3", "10.244.3.9");
    let pods = (0..REPLICAS).map(|number| [name(number), node(number), address(number)]);
    scenario(pods.fold(cluster, |cluster, [name, node, address]| cluster.pod(&name, &node, &address)), move |cluster| {
        let pods = (0..REPLICAS).map(|number| Pod::start(cluster, number)).collect::<Result<_>>()?;
        let leaving = Arc::new(AtomicUsize::new(usize::MAX));
        let mut web = Deployment { cluster, pods, next: REPLICAS, leaving };
        web.cluster.manifests.write("web", &service())?;
        web.publish(None)?;
        let _proxies = NODES.map(|node| web.cluster.start_proxy(node, &[])).into_iter().collect::<Result<Vec<_>>>()?;
        let all = |pods: &[Pod], port: u16| -> Vec<String> {
            pods.iter().map(|pod| format!("{}:{port}", address(pod.number))).collect()
        };
        for node in NODES {
            let reals = all(&web.pods, SCTP);
            let reals: Vec<&str> = reals.iter().map(String::as_str).collect();
            web.cluster.at(node)?.await_serving(&format!("SCTP {VIP}:132"), &reals)?;
            web.cluster.await_settled(node, &[])?;
        }
        let loads = loads(web.cluster, &web.leaving)?;
        let mut roll_outs = 0;
        while roll_outs == 0 || loads.iter().map(|(_, load)| load.ended()).sum::<usize>() < requests {
            for _ in 0..REPLICAS {
                web.replace()?;
            }
            roll_outs += 1;
        }
        let mut answered = 0;
        for (who, load) in loads {
            let report = load.stop(1, who)?;
            println!("{who}: {} answers, the slowest after {:?}", report.answered(), report.slowest);
            answered += report.answered();
        }
        println!("{answered} requests over {roll_outs} roll-outs of {REPLICAS} pods: none failed");
        for node in NODES {
            web.cluster.await_settled(node, &[])?;
        }
        Ok(())
    })
}
