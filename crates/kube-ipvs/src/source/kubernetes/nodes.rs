//! The addresses of the other Nodes: an external or load-balancer IP that is one of them must not be bound here.

use std::{collections::BTreeSet, time::Duration};

use kube::{Client, api::ListParams};
use proxier::model::{Event, Node};
use tokio::time::{Instant, timeout};

use super::{
    failure::Failure,
    limits::Limits,
    resource::{Resource, node},
    watch::get_page,
};

/// How long what is known of other Nodes is good for.
const FRESH: Duration = Duration::from_secs(600);
/// When a list that failed is asked for again.
const AGAIN: Duration = Duration::from_secs(30);
/// How many are asked for at a time.
const PAGE: u32 = 500;

/// Nodes are many, and each changes every few minutes: they are never watched. They are listed when somebody is about
/// to need their addresses, which in most clusters is seldom or never.
pub(super) struct OtherNodes {
    client: Client,
    own: Box<str>,
    limits: Limits,
    known: BTreeSet<Box<str>>,
    /// Whether somebody needs them.
    wanted: bool,
    /// From when on they are to be listed when somebody does.
    due: Instant,
}

impl OtherNodes {
    pub(super) fn new(client: Client, own: &str, limits: Limits) -> Self {
        Self { client, own: own.into(), limits, known: BTreeSet::new(), wanted: false, due: Instant::now() }
    }

    /// What has to be known before these events: the addresses of other Nodes, if a Service among them has an address
    /// from outside and they are not known yet, or only from long ago.
    pub(super) async fn before(&mut self, events: &[Event]) -> Vec<Event> {
        self.wanted |= events.iter().any(has_outer_address);
        if !self.wanted || Instant::now() < self.due {
            return Vec::new();
        }
        let patience = self.limits.nodes;
        let listed = timeout(patience, self.list()).await.unwrap_or(Err(Failure::Silent(patience)));
        self.due = Instant::now() + if listed.is_ok() { FRESH } else { AGAIN };
        match listed {
            Ok(nodes) => {
                self.wanted = false;
                self.learn(nodes)
            }
            Err(failure) => {
                tracing::warn!(
                    "cannot list the Nodes: {failure}; it is tried again. An external IP that is the address of another Node would \
                     cut that one off from here"
                );
                Vec::new()
            }
        }
    }

    async fn list(&self) -> Result<Vec<Node>, Failure> {
        let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() };
        let mut nodes = Vec::new();
        loop {
            let page = get_page(&self.client, Resource::OwnNode.path(), &params, &self.limits).await?;
            for json in page.items.iter().flatten() {
                match node(json, &mut Vec::new()) {
                    Ok(node) => nodes.push(node),
                    Err(reason) => tracing::debug!("a Node that cannot be read: {}", reason.message),
                }
            }
            match page.next() {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(nodes),
            }
        }
    }

    fn learn(&mut self, nodes: Vec<Node>) -> Vec<Event> {
        let others: Vec<Node> = nodes.into_iter().filter(|node| node.name != self.own).collect();
        let names: BTreeSet<Box<str>> = others.iter().map(|node| node.name.clone()).collect();
        let gone = self.known.difference(&names).cloned().map(Event::NodeRemoved);
        let events = gone.chain(others.into_iter().map(Event::NodeApplied)).collect();
        self.known = names;
        events
    }
}

fn has_outer_address(event: &Event) -> bool {
    matches!(event, Event::ServiceApplied(service)
        if !service.external_ips.is_empty() || !service.load_balancer_ips.is_empty())
}
