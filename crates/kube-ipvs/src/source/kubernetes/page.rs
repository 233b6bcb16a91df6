//! Requests one page of a list.

use std::{pin::pin, time::Duration};

use http::Request;
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::{
    Client,
    client::Body,
    core::{Status, request},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::{failure::Failure, limits::Limits};

/// Items stay JSON text until each is parsed separately: an invalid item must not cost the whole list.
#[derive(Deserialize)]
pub(super) struct Page {
    metadata: ListMeta,
    pub(super) items: Option<Vec<Box<RawValue>>>,
}

impl Page {
    pub(super) fn next(&self) -> Option<String> {
        self.metadata.continue_.clone().filter(|token| !token.is_empty())
    }

    pub(super) fn version(self) -> Result<String, Failure> {
        self.metadata.resource_version.filter(|version| !version.is_empty()).ok_or(Failure::NoVersion)
    }
}

/// Requests one page. Its body can take any time while it makes progress.
pub(super) async fn get_page(
    client: &Client,
    request: Result<Request<Vec<u8>>, request::Error>,
    limits: &Limits,
) -> Result<Page, Failure> {
    let request = request.map_err(kube::Error::BuildRequest)?;
    let answer = timeout(limits.list, client.send(request.map(Body::from))).await;
    let answer = answer.map_err(|_| Failure::Unanswered(limits.list))??;
    let is_good = answer.status().is_success();
    let text = read(answer.into_body(), limits.body).await?;
    if is_good {
        return serde_json::from_slice(&text).map_err(Failure::Unreadable);
    }
    let status: Status = serde_json::from_slice(&text).map_err(Failure::Unreadable)?;
    Err(kube::Error::Api(Box::new(status)).into())
}

/// Fails if the body stalls for longer than `silence`.
async fn read(body: Body, silence: Duration) -> Result<Vec<u8>, Failure> {
    let mut body = pin!(body);
    let mut text = Vec::new();
    while let Some(frame) = timeout(silence, body.frame()).await.map_err(|_| Failure::Silent(silence))? {
        if let Ok(data) = frame?.into_data() {
            text.extend_from_slice(&data);
        }
    }
    Ok(text)
}
