//! Clients that must not notice a takeover or a handover.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use scenarios::{Cluster, Conversation, Load, Transport, eventually, socket_address};

use super::NODE;
use super::kube_proxy::Family;

/// How many connections clients hold open.
fn count() -> Result<usize> {
    let count = std::env::var("KUBE_IPVS_CONNECTIONS").unwrap_or_else(|_| "64".into());
    count.parse().context("KUBE_IPVS_CONNECTIONS")
}

/// Who connects, and to what.
type Target = (&'static str, Transport, String);

/// Each kind of client and address.
fn targets() -> Vec<Target> {
    use Transport::{Tcp, Udp};
    let of = |family: Family| {
        let cluster_ip = |number, port| family.at(&family.cluster_ip(number), port);
        let outer_ip = |number| family.at(&family.outer_ip(number), 7);
        let node_port = |port| family.at(&family.node(), port);
        [
            ("visitor", Tcp, cluster_ip(81, 7)),
            (NODE, Tcp, cluster_ip(81, 7)),
            ("client", Tcp, node_port(30081)),
            ("visitor", Tcp, outer_ip(81)),
            ("visitor", Tcp, cluster_ip(82, 7)),
            ("client", Tcp, node_port(30083)),
            ("visitor", Tcp, cluster_ip(83, 7)),
            ("visitor", Udp, cluster_ip(81, 53)),
        ]
    };
    [of(Family::V4), of(Family::V6)].concat()
}

fn tcp_targets() -> Vec<Target> {
    targets().into_iter().filter(|(_, transport, _)| *transport == Transport::Tcp).collect()
}

/// A connection, and the pod that answers on it.
struct Held {
    conversation: Conversation,
    who: String,
    name: String,
}

impl Held {
    fn open(cluster: &Cluster, (from, transport, to): &Target) -> Result<Self> {
        let mut conversation = cluster.at(from)?.connect_from_own_port(*transport, to)?;
        let who = format!("{from} to {transport:?} {to}");
        let name = conversation.say().with_context(|| who.clone())?.name;
        Ok(Self { conversation, who, name })
    }

    fn send(&mut self) -> Result<()> {
        self.conversation.send().with_context(|| self.who.clone())
    }

    /// Fails if nothing or another pod answers.
    fn hear(&mut self) -> Result<()> {
        let answer = self.conversation.hear().with_context(|| self.who.clone())?;
        ensure!(answer.name == self.name, "{}: {} answers instead of {}", self.who, answer.name, self.name);
        Ok(())
    }

    /// Sends and receives.
    fn go_on(&mut self) -> Result<()> {
        self.send()?;
        self.hear()
    }
}

/// Open connections, on which nothing flows by itself.
pub(super) struct Idle(Vec<Held>);

impl Idle {
    /// Connections of TCP alone, which retransmits lost packets.
    pub(super) fn open_tcp(cluster: &Cluster) -> Result<Self> {
        Self::open_to(cluster, &tcp_targets())
    }

    fn open_to(cluster: &Cluster, targets: &[Target]) -> Result<Self> {
        let held = (0..count()?).map(|number| Held::open(cluster, &targets[number % targets.len()]));
        Ok(Self(held.collect::<Result<Vec<_>>>()?))
    }

    /// Sends on each connection.
    pub(super) fn send(&mut self) -> Result<()> {
        self.0.iter_mut().try_for_each(Held::send)
    }

    /// Waits for the answer on each connection.
    pub(super) fn hear(&mut self) -> Result<()> {
        self.0.iter_mut().try_for_each(Held::hear)
    }
}

/// Open connections, on which data flows all the time.
pub(super) struct Connections {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: Option<JoinHandle<(Vec<Held>, Vec<String>)>>,
}

/// After a failure the connections must end, because a handover waits for them.
impl Drop for Connections {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

impl Connections {
    pub(super) fn open(cluster: &Cluster) -> Result<Self> {
        Ok(Self::of(Idle::open_to(cluster, &targets())?))
    }

    /// Data flows on these connections from now on.
    pub(super) fn of(Idle(mut held): Idle) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&rounds));
        let thread = thread::spawn(move || {
            let mut lost = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                held.retain_mut(|one| match one.go_on() {
                    Ok(()) => true,
                    Err(error) => {
                        lost.push(format!("{error:#}"));
                        false
                    }
                });
                counted.fetch_add(1, Ordering::SeqCst);
                // The daemon needs CPU time, too.
                thread::sleep(Duration::from_millis(20));
            }
            (held, lost)
        });
        Self { stop, rounds, thread: Some(thread) }
    }

    /// Waits until data has flowed on each connection after this call.
    pub(super) fn go_on(&self) -> Result<()> {
        let goal = self.rounds.load(Ordering::SeqCst) + 2;
        eventually(|| {
            let rounds = self.rounds.load(Ordering::SeqCst);
            ensure!(rounds >= goal, "{rounds} rounds of {goal}");
            Ok(())
        })
    }

    /// Resets all connections. Fails if one was lost.
    pub(super) fn close(mut self) -> Result<()> {
        self.go_on()?;
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().context("the connections were closed before")?;
        let (held, lost) = thread.join().map_err(|_| anyhow!("the thread of the connections panicked"))?;
        ensure!(lost.is_empty(), "{} of {} connections are lost:\n{}", lost.len(), count()?, lost.join("\n"));
        println!("{} connections, none lost", held.len());
        held.into_iter().filter(|one| one.who.contains("Tcp")).try_for_each(|one| one.conversation.reset())
    }
}

/// New connections, one after the other from each client to each kind of address.
pub(super) struct Loads(Vec<(Load, String)>);

impl Loads {
    /// The clients are those whose names `is_chosen` accepts.
    pub(super) fn start(cluster: &Cluster, is_chosen: fn(&str) -> bool) -> Result<Self> {
        Self::start_to(cluster, targets(), is_chosen)
    }

    /// Clients of TCP alone, which retransmits lost packets.
    pub(super) fn start_tcp(cluster: &Cluster, is_chosen: fn(&str) -> bool) -> Result<Self> {
        Self::start_to(cluster, tcp_targets(), is_chosen)
    }

    fn start_to(cluster: &Cluster, targets: Vec<Target>, is_chosen: fn(&str) -> bool) -> Result<Self> {
        let mut loads = Vec::new();
        for (from, transport, to) in targets.into_iter().filter(|(from, ..)| is_chosen(from)) {
            let (at, who): (SocketAddr, _) = (socket_address(&to)?, format!("{from} to {transport:?} {to}"));
            let ask = move |_| {
                let mut conversation = Conversation::from_own_port_here(transport, at)?;
                let answer = conversation.say()?;
                // IPVS would count a closed connection for two minutes, and the handover waits for it.
                conversation.reset()?;
                Ok(answer.name)
            };
            loads.push((Load::of(cluster.at(from)?, Duration::from_millis(50), ask)?, who));
        }
        Ok(Self(loads))
    }

    /// Waits until each client has opened further connections.
    pub(super) fn go_on(&self) -> Result<()> {
        self.0.iter().try_for_each(|(load, who)| load.go_on(2).with_context(|| who.clone()))
    }

    /// Fails if a connection failed.
    pub(super) fn stop(self) -> Result<()> {
        self.0.into_iter().try_for_each(|(load, who)| load.stop(5, &who).map(drop))
    }
}
