//! A small Service proxy on `kube`, `proxier-kubernetes` and `proxier`:
//!
//! ```sh
//! mini_proxy node-1
//! ```
//!
//! The argument is the name of the Node that it runs on. The API server and the credentials come from `KUBECONFIG`, or
//! from the pod's service account. It needs `list` and `watch` on Services, EndpointSlices, Nodes and ServiceCIDRs, and
//! CAP_NET_ADMIN.
//!
//! It serves every Service that kube-ipvs serves. It has none of kube-ipvs's health checks, metrics and Events. One
//! more difference matters: `kube` reads a list as a whole, so one object that its types cannot read stops the list.

use std::{
    collections::BTreeSet,
    env,
    fmt::Debug,
    mem,
    sync::mpsc::{self, Sender},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use futures_util::TryStreamExt;
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
    networking::v1::ServiceCIDR,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
};
use proxier::{Completeness, Config, Engine, Runner, SyncReport, Update, linux::Settings, model::Event};
use proxier_kubernetes::{AnnotationPolicy, Key, Object};
use serde::{Serialize, de::DeserializeOwned};

const RETRY_INTERVAL: Duration = Duration::from_secs(1);

fn main() -> Result<()> {
    let hostname = env::args().nth(1).context("usage: mini_proxy NODE_NAME")?;
    let runner = Runner::open(Config::new(&hostname), Settings::default())?;
    let (sender, updates) = mpsc::channel();
    // The runner keeps this thread. If the source fails, its end ends the process, and a supervisor starts it again.
    thread::spawn(move || {
        let outcome = source(sender);
        eprintln!("mini_proxy: {:#}", outcome.expect_err("a source goes on until it fails"));
        std::process::exit(1);
    });
    runner.run(updates, print)?;
    Ok(())
}

fn print(_: &Engine, report: SyncReport) {
    report.unavailable.iter().for_each(|unavailable| eprintln!("{unavailable}"));
    report.failures.iter().for_each(|failure| eprintln!("{failure}"));
    print!("{}", report.plan);
}

/// Lists all objects, has the runner start, and watches them.
#[tokio::main(flavor = "current_thread")]
async fn source(sender: Sender<Update>) -> Result<()> {
    let client = Client::try_default().await?;
    let mut nodes = Source::<Node>::new(&client, &sender);
    let mut ranges = Source::<ServiceCIDR>::new(&client, &sender);
    let mut slices = Source::<EndpointSlice>::new(&client, &sender);
    let mut services = Source::<Service>::new(&client, &sender);
    tokio::try_join!(nodes.list(), ranges.list(), slices.list(), services.list())?;
    sender.send(Update::Complete(Completeness::Complete))?;
    tokio::try_join!(nodes.follow(), ranges.follow(), slices.follow(), services.follow())?;
    Ok(())
}

/// All objects of one kind.
struct Source<K> {
    api: Api<K>,
    sender: Sender<Update>,
    /// The objects that the runner may know. A list without one of them means that it was deleted.
    known: BTreeSet<Key>,
    version: String,
}

impl<K> Source<K>
where
    K: Resource<DynamicType = ()> + k8s_openapi::Resource + Serialize + DeserializeOwned + Clone + Debug,
{
    fn new(client: &Client, sender: &Sender<Update>) -> Self {
        let (api, sender) = (Api::all(client.clone()), sender.clone());
        Self { api, sender, known: BTreeSet::new(), version: String::new() }
    }

    async fn list(&mut self) -> Result<()> {
        let list = self.api.list(&ListParams::default()).await?;
        self.version = list.metadata.resource_version.context("a list without a version")?;
        let mut gone = mem::take(&mut self.known);
        for object in &list.items {
            self.apply(object)?;
        }
        gone.retain(|key| !self.known.contains(key));
        gone.iter().try_for_each(|key| self.remove(key))
    }

    /// Watches, and lists again when a watch cannot go on.
    async fn follow(&mut self) -> Result<()> {
        loop {
            if let Err(error) = self.watch().await {
                eprintln!("{}: {error:#}; listing again", K::KIND);
                tokio::time::sleep(RETRY_INTERVAL).await;
                // The runner keeps its state in the meantime.
                self.list().await.unwrap_or_else(|error| eprintln!("{}: {error:#}", K::KIND));
            }
        }
    }

    /// Takes in changes until the API server ends the watch, as it does after some minutes.
    async fn watch(&mut self) -> Result<()> {
        let changes = self.api.watch(&WatchParams::default(), &self.version).await?;
        let mut changes = std::pin::pin!(changes);
        while let Some(change) = changes.try_next().await? {
            match change {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    self.apply(&object)?;
                    self.version = object.resource_version().unwrap_or_default();
                }
                WatchEvent::Deleted(object) => {
                    let key = key(&object)?;
                    self.known.remove(&key);
                    self.remove(&key)?;
                    self.version = object.resource_version().unwrap_or_default();
                }
                WatchEvent::Bookmark(bookmark) => self.version = bookmark.metadata.resource_version,
                // Most often 410: the version is too old.
                WatchEvent::Error(status) => bail!("{status}"),
            }
        }
        Ok(())
    }

    fn apply(&mut self, object: &K) -> Result<()> {
        self.known.insert(key(object)?);
        match Object::from_resource(object, &AnnotationPolicy::default()) {
            Ok((object, remarks)) => {
                remarks.into_messages().for_each(|remark| eprintln!("{}: {remark}", object.key));
                // An object without an event is not for this proxy. Its earlier version may have been.
                self.send(object.event.or_else(|| object.key.removed()))?;
            }
            // The last valid version stays in force.
            Err(invalid) => eprintln!("{}: {invalid}", key(object)?),
        }
        Ok(())
    }

    fn remove(&self, key: &Key) -> Result<()> {
        self.send(key.removed())
    }

    fn send(&self, event: Option<Event>) -> Result<()> {
        if let Some(event) = event {
            self.sender.send(event.into())?;
        }
        Ok(())
    }
}

fn key<K: Resource<DynamicType = ()> + k8s_openapi::Resource>(object: &K) -> Result<Key> {
    let kind = proxier_kubernetes::Kind::of(K::API_VERSION, K::KIND).context("not a kind of this proxy")?;
    Ok(Key::new(kind, &object.namespace().unwrap_or_default(), &object.name_any()))
}
