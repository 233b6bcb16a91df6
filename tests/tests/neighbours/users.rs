//! Clients that a firewall denies, and clients that must not notice how it is reloaded and restarted.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use scenarios::{Attempt, Cluster, Conversation, Failure, Load, Server, Transport, eventually, socket_address};

use crate::firewalls::{CLIENTS, NODES};

/// The firewall refuses or drops the first packet of each of these clients. `is_refusal` tells that it was the
/// firewall's own, and `dropped` counts the SYNs that it drops.
pub(crate) fn ensure_denied(
    cluster: &Cluster,
    clients: &[(&str, [&str; 2])],
    is_refusal: impl Fn(&Failure) -> bool,
    dropped: impl Fn() -> Result<u64>,
) -> Result<()> {
    for (from, [to, _]) in clients {
        let before = dropped()?;
        let mut attempt = Attempt::start(cluster.at(from)?, Transport::Tcp, socket_address(to)?)?;
        let wrong = eventually(|| match attempt.outcome()? {
            Some(Err(failure)) if is_refusal(&failure) => Ok(None),
            Some(outcome) => Ok(Some(outcome)),
            None => {
                ensure!(dropped()? > before, "{from} to {to}: no outcome");
                Ok(None)
            }
        })?;
        ensure!(wrong.is_none(), "{from} to {to}: {wrong:?}");
    }
    Ok(())
}

struct User {
    name: String,
    load: Load,
    held: Conversation,
    idle: Conversation,
}

/// Opens a connection to the echo server.
fn open(cluster: &Cluster, (from, [_, held]): (&str, [&str; 2])) -> Result<Conversation> {
    let mut connection = cluster.at(from)?.connect_from_own_port(Transport::Tcp, held)?;
    connection.say()?;
    Ok(connection)
}

/// Each client connects again and again, holds a connection open, and leaves one idle.
pub(crate) struct Users<'a> {
    cluster: &'a Cluster,
    users: Vec<User>,
}

impl<'a> Users<'a> {
    pub(crate) fn start(cluster: &'a Cluster) -> Result<Self> {
        let start = |client: (&str, [&str; 2])| {
            let (from, [to, _]) = client;
            let load = Load::start(cluster.at(from)?, to, Duration::from_millis(10))?;
            Ok(User {
                name: format!("{from} to {to}"),
                load,
                held: open(cluster, client)?,
                idle: open(cluster, client)?,
            })
        };
        Ok(Self { cluster, users: CLIENTS.into_iter().map(start).collect::<Result<_>>()? })
    }

    /// Closes the idle connections, whose next packet is a FIN, and opens others.
    pub(crate) fn go_on(&mut self, after: &str) -> Result<()> {
        for (User { name, load, held, idle }, client) in self.users.iter_mut().zip(CLIENTS) {
            let outcome = load.go_on(1).and_then(|()| Ok(held.say()?));
            outcome.with_context(|| format!("{name}, after {after}\n{}", evidence(self.cluster)))?;
            *idle = open(self.cluster, client).with_context(|| format!("{name}, after {after}"))?;
        }
        Ok(())
    }

    /// All connections end at the servers too.
    pub(crate) fn stop(self, servers: &[Server]) -> Result<()> {
        self.users.into_iter().try_for_each(|user| user.load.stop(4, &user.name).map(drop))?;
        let outcome = servers.iter().try_for_each(Server::await_idle);
        outcome.with_context(|| evidence(self.cluster))
    }
}

/// Tells at which hop a packet was lost.
fn evidence(cluster: &Cluster) -> String {
    let of_nodes = ["ipvsadm -Lnc", "conntrack -L", "conntrack -L -f ipv6", "nft list ruleset"];
    let commands = NODES.into_iter().flat_map(|node| of_nodes.map(|command| (node, command)));
    let sockets = ["visitor", "client", "web", "local"].map(|at| (at, "ss -Htano"));
    let texts = commands.chain(sockets).map(|(at, command)| {
        let words: Vec<_> = command.split(' ').collect();
        let text = cluster.at(at).and_then(|at| at.run(words[0], &words[1..]));
        format!("{at}: {command}\n{}", text.unwrap_or_else(|error| format!("{error:#}")))
    });
    texts.collect::<Vec<_>>().join("\n")
}
