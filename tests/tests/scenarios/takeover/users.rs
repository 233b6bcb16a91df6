use std::time::Duration;

use anyhow::{Result, ensure};
use scenarios::{Cluster, Conversation, Load, Transport};

use super::{NODE, TALK_PORT, WEB_PORT};

/// Clients that must not notice the takeover.
pub(super) struct Users {
    loads: Vec<(Load, String)>,
    held: Vec<(Conversation, String)>,
}

impl Users {
    pub(super) fn arrive(cluster: &Cluster) -> Result<Self> {
        let mut held = Vec::new();
        for (from, to) in [("visitor", "10.96.0.81:7"), (NODE, "10.96.0.81:7"), ("client", TALK_PORT)] {
            let mut connection = cluster.at(from)?.connect(Transport::Tcp, to)?;
            let name = connection.say()?.name;
            held.push((connection, name));
        }
        let mut loads = Vec::new();
        for (from, to) in [("visitor", "10.96.0.80:80"), (NODE, "10.96.0.80:80"), ("client", WEB_PORT)] {
            let load = Load::start(cluster.at(from)?, to, Duration::from_millis(15))?;
            loads.push((load, format!("{from} to {to}")));
        }
        Ok(Self { loads, held })
    }

    pub(super) fn still_talk(&mut self) -> Result<()> {
        for (connection, name) in &mut self.held {
            let answer = connection.say()?;
            ensure!(answer.name == *name, "a connection moved from {name} to {}", answer.name);
        }
        Ok(())
    }

    pub(super) fn leave(mut self) -> Result<()> {
        self.still_talk()?;
        self.loads.into_iter().try_for_each(|(load, who)| load.stop(20, &who).map(drop))
    }
}
