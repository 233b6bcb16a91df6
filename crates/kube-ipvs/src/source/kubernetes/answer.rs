//! Error answers in one form. The API server sends a `Status`, its flow control plain text, and a gateway may send
//! anything.

use http::{
    Response, StatusCode,
    header::{CONTENT_LENGTH, HeaderMap, RETRY_AFTER},
};
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::body::{Body, Bytes};
use serde_json::{Value, json};
use tower::BoxError;

/// How many bytes of an error answer kube-ipvs reads.
const MAX_BODY: usize = 64 * 1024;
/// How many characters of an error answer a message quotes.
const MAX_MESSAGE: usize = 200;

pub(super) type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

/// Turns an error answer into a `Status` with the HTTP code and the pause from `Retry-After`.
pub(super) async fn unified<B>(answer: Response<B>) -> Result<Response<AnswerBody>, BoxError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (mut head, body) = answer.into_parts();
    if !head.status.is_client_error() && !head.status.is_server_error() {
        return Ok(Response::from_parts(head, body.map_err(Into::into).boxed_unsync()));
    }
    let text = match Limited::new(body, MAX_BODY).collect().await {
        Ok(text) => text.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let status = serde_json::to_vec(&status(head.status, &head.headers, &text))?;
    head.headers.remove(CONTENT_LENGTH);
    let body = Full::<Bytes>::from(status).map_err(|never| match never {}).boxed_unsync();
    Ok(Response::from_parts(head, body))
}

fn status(code: StatusCode, headers: &HeaderMap, text: &[u8]) -> Value {
    let said: Option<Value> = serde_json::from_slice(text).ok();
    let mut status = said.filter(|said| said["kind"] == "Status").unwrap_or_else(|| {
        let text = String::from_utf8_lossy(text);
        let text: String = text.trim().chars().take(MAX_MESSAGE).collect();
        let reason = code.canonical_reason().unwrap_or("no reason given");
        let message = if text.is_empty() { reason } else { &text };
        json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message })
    });
    status["code"] = code.as_u16().into();
    let pause = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    let details = &mut status["details"];
    if !details.is_object() {
        *details = Value::Null;
    }
    if let Some(pause) = pause.filter(|_| details["retryAfterSeconds"].is_null()) {
        details["retryAfterSeconds"] = pause.into();
    }
    if details.is_null()
        && let Some(status) = status.as_object_mut()
    {
        status.remove("details");
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: u16, pause: Option<&str>, text: &str) -> Value {
        let mut headers = HeaderMap::new();
        headers.extend(pause.map(|pause| (RETRY_AFTER, pause.parse().unwrap())));
        status(StatusCode::from_u16(code).unwrap(), &headers, text.as_bytes())
    }

    #[test]
    fn plain_text_error_becomes_a_status_with_its_retry_after() {
        let said = check(429, Some("7"), "Too many requests, please try again later.\n");
        assert_eq!(said["code"], 429);
        assert_eq!(said["message"], "Too many requests, please try again later.");
        assert_eq!(said["details"]["retryAfterSeconds"], 7);
    }

    #[test]
    fn gateway_json_is_replaced_by_a_status() {
        let said = check(503, None, r#"{"message": "no upstream", "code": 7}"#);
        assert_eq!((&said["code"], &said["kind"]), (&503.into(), &"Status".into()));
        assert!(said.get("details").is_none(), "{said}");
        assert_eq!(check(502, None, "")["message"], "Bad Gateway");
    }

    #[test]
    fn status_of_the_api_server_keeps_its_details() {
        let text = r#"{"kind": "Status", "code": 504, "reason": "Timeout", "details": {"retryAfterSeconds": 1,
            "causes": [{"reason": "ResourceVersionTooLarge"}]}}"#;
        let said = check(504, Some("9"), text);
        assert_eq!(said["details"]["retryAfterSeconds"], 1);
        assert_eq!(said["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
        // kube-ipvs ignores a date: no API server sends one.
        assert!(check(503, Some("Wed, 21 Oct 2015 07:28:00 GMT"), "").get("details").is_none());
    }
}
