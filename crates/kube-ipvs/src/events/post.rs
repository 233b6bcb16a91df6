use std::{collections::BTreeMap, time::Duration};

use http::Request;
use jiff::Timestamp;
use kube::Client;
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, sleep_until, timeout},
};

use super::{About, QUEUE_CAPACITY, ToPost, event::event};

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How long the API server may take for an Event.
    pub patience: Duration,
    /// All nodes find the same at the same moment. Each waits for some part of this time, by chance, before it posts
    /// what they all would: the first one has it stored, and the requests of the others are spread.
    pub spread: Duration,
}

/// Posts event_notes as Events, until no sender is left. If kube-ipvs cannot post one, it gives that one up: the log
/// has it.
pub async fn post(client: Client, node: &str, pace: Pace, mut event_notes: Receiver<ToPost>) {
    // Sorted by when they are due. A number distinguishes those that are due at the same time.
    let mut waiting: BTreeMap<(Instant, u64), ToPost> = BTreeMap::new();
    let (mut number, mut is_open, mut could) = (0, true, true);
    loop {
        let due = waiting.first_key_value().map(|((due, _), _)| *due);
        tokio::select! {
            next = event_notes.recv(), if is_open && waiting.len() < QUEUE_CAPACITY => match next {
                Some(event_note) => {
                    number += 1;
                    waiting.insert((Instant::now() + pace.delay(&event_note), number), event_note);
                }
                None => is_open = false,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let Some((_, event_note)) = waiting.pop_first() else { continue };
                let error = post_one(&client, node, pace.patience, &event_note).await.err();
                if let (Some(error), true) = (&error, could) {
                    tracing::warn!("Events cannot be made, so that the log alone says what they would: {error:#}");
                }
                could = error.is_none();
            }
            else => return,
        }
    }
}

impl Pace {
    /// How long an event_note waits. Only this node posts Events about its own Node, so these do not wait.
    fn delay(&self, ToPost { event_note, .. }: &ToPost) -> Duration {
        match event_note.about {
            About::Node => Duration::ZERO,
            About::Service(_) | About::Slice(_) => self.spread.mul_f64(fastrand::f64()),
        }
    }
}

async fn post_one(client: &Client, node: &str, patience: Duration, event_note: &ToPost) -> anyhow::Result<()> {
    let (namespace, event) = event(event_note, node, Timestamp::now());
    let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    let request = Request::post(path).header("content-type", "application/json");
    let posting = client.request_text(request.body(serde_json::to_vec(&event)?)?);
    match timeout(patience, posting).await {
        Err(_) => anyhow::bail!("no answer for {patience:?}"),
        // Another node has posted it, or this one before a restart.
        Ok(Err(kube::Error::Api(status))) if status.code == CONFLICT => Ok(()),
        Ok(outcome) => outcome.map(drop).map_err(Into::into),
    }
}

/// The status of an answer where there is such an object already.
const CONFLICT: u16 = 409;
