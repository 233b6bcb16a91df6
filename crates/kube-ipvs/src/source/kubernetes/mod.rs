//! A Kubernetes API server: everything is listed, then watched, by no more rights than the ClusterRole
//! `system:node-proxier` gives.
//!
//! `watch` is one task a collection of objects, which lists and watches for ever; `world` is the pure core that
//! makes events of what the watches tell; [`KubernetesSource::follow`] brings both together.
//!
//! Not kube-runtime's `watcher`: see docs/adr/0007-our-own-watch.md.

mod connect;
mod failure;
mod limits;
mod nodes;
mod resource;
mod retry;
#[cfg(test)]
mod tests;
mod version;
mod watch;
mod world;

pub use connect::Pod;
pub use limits::Limits;
pub use version::Version;

use std::ops::ControlFlow;

use kube::Config;
use tokio::{
    sync::mpsc::{self, Receiver},
    task::JoinSet,
};

use self::{nodes::OtherNodes, resource::Resource, watch::Watch, world::World};
use crate::{
    announce::{self, Pace, ToPost},
    config::{AnnotationPolicy, ClientConnection},
    source::Changes,
};

/// How many changes of one collection may wait until they are taken in. Then its watch waits too.
const WAITING: usize = 1024;

/// The API server that the configuration names.
#[derive(Debug, Clone)]
pub struct KubernetesSource {
    config: Config,
    connection: ClientConnection,
    node: String,
    limits: Limits,
    annotations: AnnotationPolicy,
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
        let config = connect::config(connection, pod).await?;
        let (limits, annotations) = (Limits::default(), AnnotationPolicy::default());
        Ok(Self { config, connection: connection.clone(), node: node.into(), limits, annotations })
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

    /// Posts announcements as Events, until nobody is left who announces.
    ///
    /// # Errors
    ///
    /// When there can be no client with these credentials.
    pub async fn announce(self, announcements: Receiver<ToPost>) -> anyhow::Result<()> {
        let client = connect::client(&self.config, &self.connection)?;
        let pace = Pace { patience: self.limits.event, spread: self.limits.event_spread };
        announce::post(client, &self.node, pace, announcements).await;
        Ok(())
    }

    /// Tells the version of the API server, and tells it again when it changes. It never ends.
    ///
    /// # Errors
    ///
    /// When there can be no client with these credentials.
    pub async fn follow_version(self, tell: impl FnMut(&Version)) -> anyhow::Result<()> {
        let client = connect::client(&self.config, &self.connection)?;
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
        let client = connect::client(&self.config, &self.connection)?;
        let (sender, mut news) = mpsc::channel(WAITING);
        let mut watches = JoinSet::new();
        for resource in Resource::ALL {
            let name = (resource == Resource::OwnNode).then(|| self.node.clone());
            watches.spawn(Watch::new(client.clone(), resource, name, self.limits, sender.clone()).run());
        }
        let mut nodes = OtherNodes::new(client, &self.node, self.limits);
        let mut world = World::new(&self.config.cluster_url.to_string(), self.annotations);
        let mut changes = Changes::default();
        loop {
            tokio::select! {
                // They end by a panic only, as long as we listen. It goes on here: who follows us must know.
                ended = watches.join_next() => {
                    if let Some(Err(error)) = ended && error.is_panic() {
                        std::panic::resume_unwind(error.into_panic());
                    }
                    anyhow::bail!("a watch has ended");
                }
                Some((resource, first)) = news.recv() => {
                    world.take(resource, first, &mut changes);
                    while let Ok((resource, more)) = news.try_recv() {
                        world.take(resource, more, &mut changes);
                    }
                }
            }
            if !world.is_settled() {
                continue;
            }
            let before = nodes.before(&changes.events).await;
            changes.events.splice(0..0, before);
            if deliver(std::mem::take(&mut changes)).is_break() {
                return Ok(());
            }
        }
    }
}
