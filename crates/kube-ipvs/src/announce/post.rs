use std::time::Duration;

use http::Request;
use jiff::Timestamp;
use kube::Client;
use tokio::sync::mpsc::Receiver;

use super::{ToPost, event::event};

/// Posts announcements as Events, until nobody is left who announces. One that cannot be posted is given up: the log
/// has it. `patience` is how long the API server may take for each.
pub async fn post(client: Client, node: &str, patience: Duration, mut announcements: Receiver<ToPost>) {
    let mut could = true;
    while let Some(announcement) = announcements.recv().await {
        let posting = post_one(&client, node, &announcement);
        let outcome = tokio::time::timeout(patience, posting).await;
        let error = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some(format!("no answer for {patience:?}")),
        };
        if let (Some(error), true) = (&error, could) {
            tracing::warn!("Events cannot be made, so that the log alone says what they would: {error}");
        }
        could = error.is_none();
    }
}

async fn post_one(client: &Client, node: &str, announcement: &ToPost) -> anyhow::Result<()> {
    let (namespace, event) = event(announcement, node, Timestamp::now());
    let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    let request = Request::post(path).header("content-type", "application/json");
    client.request_text(request.body(serde_json::to_vec(&event)?)?).await?;
    Ok(())
}
