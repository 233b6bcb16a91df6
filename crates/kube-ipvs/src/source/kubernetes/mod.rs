//! A Kubernetes API server: everything is listed, then watched, by no more rights than the ClusterRole
//! `system:node-proxier` gives.
//!
//! `watch` is one task a collection of objects, which lists and watches for ever; `cache` is the pure core that
//! makes events of what the watches tell; [`KubernetesSource::follow`] brings both together.
//!
//! Not kube-runtime's `watcher`: see docs/adr/0007-kube-ipvs-has-its-own-watch.md.

mod answer;
mod cache;
mod connect;
mod connections;
mod failure;
mod kubeconfig;
mod limits;
mod list;
mod nodes;
mod page;
mod proxy;
mod resource;
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
    events::{self, Pace, ToPost},
    serve::Contact,
    source::Changes,
};

/// How many changes of one collection may wait until they are taken in. Then its watch waits too.
const QUEUE_CAPACITY: usize = 1024;

/// The API server that the configuration names.
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
    /// The API server that the configuration names, for the Node `node`. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// When it, or the files that it names, do not say where it is or who we are.
    pub async fn open(connection: &ClientConnection, node: &str) -> anyhow::Result<Self> {
        Self::open_in(connection, node, &Pod::of_this_process()).await
    }

    /// The same, in this pod.
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

    /// The same, with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The same, where Services may choose this by annotations.
    #[must_use]
    pub fn with_annotations(self, annotations: AnnotationPolicy) -> Self {
        Self { annotations, ..self }
    }

    /// The same, which writes down here what contact it has with the API server.
    #[must_use]
    pub fn with_contact(self, contact: Contact) -> Self {
        Self { contact, ..self }
    }

    async fn connector(&self) -> anyhow::Result<Connector> {
        Connector::new(&self.access, &self.connection, &self.limits, &self.contact).await
    }

    /// Posts event_notes as Events, until all senders are gone.
    ///
    /// # Errors
    ///
    /// When there can be no client with these credentials.
    pub async fn record(self, event_notes: Receiver<ToPost>) -> anyhow::Result<()> {
        let client = self.connector().await?.client;
        let pace = Pace { patience: self.limits.event, spread: self.limits.event_spread };
        events::post(client, &self.node, pace, event_notes).await;
        Ok(())
    }

    /// Tells the version of the API server, and tells it again when it changes. It never ends.
    ///
    /// # Errors
    ///
    /// When there can be no client with these credentials.
    pub async fn follow_version(self, tell: impl FnMut(&Version)) -> anyhow::Result<()> {
        let client = self.connector().await?.client;
        version::follow(&client, self.limits.answer, tell).await;
        Ok(())
    }

    /// Delivers what there is and what changes, until `deliver` breaks off.
    ///
    /// The first delivery is everything that there is, in one, and comes when all Services and EndpointSlices have been
    /// listed, however long that takes. Later the API server may be away: nothing is delivered, so all stays in force.
    ///
    /// # Errors
    ///
    /// When there can be no client with these credentials. Failures of the API server are no errors.
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
        // How long the changes may become before the first delivery until only the last of each object is kept.
        let mut room = 100_000;
        loop {
            let mut is_moved = is_first;
            tokio::select! {
                // They end by a panic only, as long as we listen. It goes on here: who follows us must know.
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
                            // It can last for long, such as without a right.
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
