use std::{collections::BTreeMap, time::Duration};

use http::Request;
use jiff::Timestamp;
use kube::Client;
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, sleep_until, timeout},
};

use super::{About, QUEUE_CAPACITY, QueuedNote, event::event};

/// Time limits of posting.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How long the API server may take to store an Event.
    pub patience: Duration,
    /// All nodes find a fact at the same moment. Each waits for a random part of this time before it posts the Event.
    /// The first node stores it, and the requests of the others are spread out.
    pub spread: Duration,
}

/// Posts notes as Events until all senders are gone. kube-ipvs does not retry a failed post: the log has the fact.
pub async fn post(client: Client, node: &str, pace: Pace, mut event_notes: Receiver<QueuedNote>) {
    // By due time. The number separates entries with the same due time.
    let mut waiting: BTreeMap<(Instant, u64), QueuedNote> = BTreeMap::new();
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
                    tracing::warn!("kube-ipvs cannot write Events: {error:#}. Only the log has these reports");
                }
                could = error.is_none();
            }
            else => return,
        }
    }
}

impl Pace {
    /// Only this node posts Events about its Node, so they need no delay.
    fn delay(&self, QueuedNote { event_note, .. }: &QueuedNote) -> Duration {
        match event_note.about {
            About::Node => Duration::ZERO,
            About::Service(_) | About::Slice(_) => self.spread.mul_f64(fastrand::f64()),
        }
    }
}

async fn post_one(client: &Client, node: &str, patience: Duration, event_note: &QueuedNote) -> anyhow::Result<()> {
    let (namespace, event) = event(event_note, node, Timestamp::now());
    let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    let request = Request::post(path).header("content-type", "application/json");
    let posting = client.request_text(request.body(serde_json::to_vec(&event)?)?);
    match timeout(patience, posting).await {
        Err(_) => anyhow::bail!("the API server did not answer within {patience:?}"),
        // Another node has posted the Event, or this node before a restart.
        Ok(Err(kube::Error::Api(status))) if status.code == CONFLICT => Ok(()),
        Ok(outcome) => outcome.map(drop).map_err(Into::into),
    }
}

const CONFLICT: u16 = 409;
