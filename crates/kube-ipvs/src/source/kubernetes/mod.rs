//! Lists and watches a Kubernetes API server, with no more rights than the ClusterRole `system:node-proxier`.
//!
//! `watch` runs one task per collection of objects. `cache` is the pure core that turns their updates into events.
//! [`KubernetesSource::follow`] connects both.
//!
//! docs/adr/0007-kube-ipvs-has-its-own-watch.md explains why this is not kube-runtime's `watcher`.

mod answer;
pub(crate) mod cache;
mod connect;
mod connections;
mod failure;
mod kubeconfig;
mod limits;
mod list;
mod nodes;
mod page;
mod proxy;
pub(crate) mod resource;
mod retry;
#[cfg(test)]
mod tests;
mod trust;
mod version;
mod watch;

pub use kubeconfig::Pod;
pub use limits::Limits;
pub use version::Version;
pub(crate) use version::platform;

use std::ops::ControlFlow;

use proxier::model::Event;
use proxier_kubernetes::AnnotationPolicy;
use tokio::{
    sync::mpsc::{self, Receiver},
    task::JoinSet,
};

use self::{
    cache::Cache, connect::Connector, kubeconfig::Access, list::Collection, nodes::OtherNodes, resource::Resource,
    retry::Retry, watch::Watch,
};
use crate::{
    config::ClientConnection,
    events::{self, Pace, QueuedNote},
    serve::Contact,
    source::Changes,
};

/// How many updates can queue up. A watch waits while the queue is full.
const QUEUE_CAPACITY: usize = 1024;

/// The configured API server.
#[derive(Debug, Clone)]
pub struct KubernetesSource {
    access: Access,
    connection: ClientConnection,
    node: String,
    limits: Limits,
    annotations: AnnotationPolicy,
    contact: Contact,
}

impl KubernetesSource {
    /// Uses the configured API server, for the Node `node`. Sends no request yet.
    ///
    /// # Errors
    ///
    /// If the configuration names no API server or no usable credentials.
    pub async fn open(connection: &ClientConnection, node: &str) -> anyhow::Result<Self> {
        Self::open_in(connection, node, &Pod::of_this_process()).await
    }

    /// As [`open`](Self::open), with the given pod environment.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn open_in(connection: &ClientConnection, node: &str, pod: &Pod) -> anyhow::Result<Self> {
        let access = kubeconfig::access(connection, pod).await?;
        let (connection, node) = (connection.clone(), node.into());
        let (limits, contact) = (Limits::default(), Contact::default());
        let annotations = AnnotationPolicy::default();
        Ok(Self { access, connection, node, limits, annotations, contact })
    }

    /// Replaces the time limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Sets which annotations Services can use.
    #[must_use]
    pub fn with_annotations(self, annotations: AnnotationPolicy) -> Self {
        Self { annotations, ..self }
    }

    /// Sets where the source records its contact with the API server.
    #[must_use]
    pub fn with_contact(self, contact: Contact) -> Self {
        Self { contact, ..self }
    }

    async fn connector(&self) -> anyhow::Result<Connector> {
        Connector::new(&self.access, &self.connection, &self.limits, &self.contact).await
    }

    /// Posts notes as Events until all senders are gone.
    ///
    /// # Errors
    ///
    /// If no client can be built with these credentials.
    pub async fn record(self, event_notes: Receiver<QueuedNote>) -> anyhow::Result<()> {
        let client = self.connector().await?.client;
        let pace = Pace { patience: self.limits.event, spread: self.limits.event_spread };
        events::post(client, &self.node, pace, event_notes).await;
        Ok(())
    }

    /// Reports the version of the API server, and each later change of it. Runs forever.
    ///
    /// # Errors
    ///
    /// If no client can be built with these credentials.
    pub async fn follow_version(self, tell: impl FnMut(&Version)) -> anyhow::Result<()> {
        let client = self.connector().await?.client;
        version::follow(&client, self.limits.answer, tell).await;
        Ok(())
    }

    /// Delivers the state and its changes, until `deliver` breaks.
    ///
    /// The first delivery holds the whole state. It waits until all Services and EndpointSlices are listed. During a
    /// later outage the source delivers nothing, so the state stays in force.
    ///
    /// # Errors
    ///
    /// If no client can be built with these credentials. Failures of the API server are retried.
    pub async fn follow(self, mut deliver: impl FnMut(Changes) -> ControlFlow<()>) -> anyhow::Result<()> {
        let mut connector = self.connector().await?;
        let (sender, mut updates) = mpsc::channel(QUEUE_CAPACITY);
        let mut watches = JoinSet::new();
        for resource in Resource::ALL {
            let name = (resource == Resource::OwnNode).then(|| self.node.clone());
            let collection = Collection::new(connector.client.clone(), resource, name, self.limits)
                .with_annotations(self.annotations);
            let retry = Retry::new(resource, self.limits, self.contact.clone());
            watches.spawn(Watch::new(collection, retry, sender.clone()).run());
        }
        let mut nodes = OtherNodes::new(connector.client.clone(), &self.node, self.limits);
        let mut cache = Cache::new(&self.access.config.cluster_url.to_string());
        let mut changes = Changes::default();
        let mut is_first = true;
        // How many events queue up before the first delivery until only the last of each object is kept.
        let mut room = 100_000;
        loop {
            let mut is_moved = is_first;
            tokio::select! {
                // While this receiver exists, a watch ends only by a panic. The caller must see it.
                ended = watches.join_next() => {
                    if let Some(Err(error)) = ended && error.is_panic() {
                        std::panic::resume_unwind(error.into_panic());
                    }
                    anyhow::bail!("a watch has ended");
                }
                Some((resource, first)) = updates.recv() => {
                    cache.take(resource, first, &mut changes);
                    while let Ok((resource, more)) = updates.try_recv() {
                        cache.take(resource, more, &mut changes);
                    }
                    if is_first {
                        if !cache.is_synced() {
                            // The first sync can take long, for example without the right to list.
                            if changes.events.len() > room {
                                changes.compact();
                                room = 2 * changes.events.len();
                            }
                            continue;
                        }
                        changes.events = nodes.first(std::mem::take(&mut changes.events)).await;
                    } else {
                        changes.events = nodes.pass(std::mem::take(&mut changes.events));
                    }
                }
                listed = nodes.listed(), if !is_first => changes.events = nodes.learn(listed),
                () = connector.moved(), if !is_first => is_moved = true,
            }
            if is_moved {
                changes.events.insert(0, Event::ApiServerAddresses(connector.servers()));
            }
            is_first = false;
            cache.conclude(&mut changes);
            if deliver(std::mem::take(&mut changes)).is_break() {
                return Ok(());
            }
        }
    }
}
