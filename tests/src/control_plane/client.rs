//! Requests to the API server, through curl.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::objects::Object;
use crate::namespace::Namespace;
use crate::wait::time_out;

const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json";

#[derive(Debug)]
pub(super) struct Client {
    namespace: Arc<Namespace>,
    url: String,
    authority: String,
    token: String,
}

struct Response {
    status: u16,
    body: String,
}

impl Client {
    pub(super) fn new(namespace: &Arc<Namespace>, url: &str, authority: &Path, token: &str) -> Self {
        let authority = authority.to_string_lossy().into_owned();
        Self { namespace: Arc::clone(namespace), url: url.into(), authority, token: token.into() }
    }

    fn send(&self, method: &str, path: &str, kind: &str, body: Option<&Value>) -> Result<Response> {
        let url = format!("{}{path}", self.url);
        let (token, kind) = (format!("Authorization: Bearer {}", self.token), format!("Content-Type: {kind}"));
        let body = body.map(Value::to_string);
        let limit = time_out();
        let mut words = vec!["-sS", "--max-time", &limit, "--cacert", &self.authority, "-H", &token];
        words.extend(["-w", "\n%{http_code}", "-X", method, &url]);
        if let Some(body) = &body {
            words.extend(["-H", &kind, "--data-binary", body]);
        }
        let answer = self.namespace.run("curl", &words)?;
        let (body, status) = answer.rsplit_once('\n').context("curl writes the status last")?;
        Ok(Response { status: status.parse()?, body: body.to_owned() })
    }

    /// Reads an existing resource. A body that is not JSON becomes a string.
    pub(super) fn get(&self, path: &str) -> Result<Value> {
        let body = self.send("GET", path, JSON, None)?.expect("GET", path)?;
        Ok(serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    pub(super) fn merge(&self, path: &str, patch: &Value) -> Result<()> {
        self.send("PATCH", path, MERGE, Some(patch))?.expect("PATCH", path).map(drop)
    }

    /// Creates or updates an object, and its status if the manifest has one.
    pub(super) fn apply(&self, object: &Object) -> Result<()> {
        if let Some(namespace) = object.namespace.as_deref().filter(|name| !["default", "kube-system"].contains(name)) {
            let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
            self.patch(&format!("/api/v1/namespaces/{namespace}"), &body)?.expect("PATCH", namespace)?;
        }
        let first = self.patch(&object.path, &object.body)?;
        if first.status == 422 {
            // Some fields are immutable. A user deletes the object and creates it again.
            self.delete(&object.path)?;
            let again = self.patch(&object.path, &object.body)?;
            again.expect("PATCH", &object.path).with_context(|| format!("before: {}", first.body))?;
        } else {
            first.expect("PATCH", &object.path)?;
        }
        // Server-side apply rejects a Node with two addresses of one type.
        let path = format!("{}/status", object.path);
        object.status.as_ref().map_or(Ok(()), |status| self.merge(&path, status))
    }

    fn patch(&self, path: &str, body: &Value) -> Result<Response> {
        self.send("PATCH", &format!("{path}?fieldManager=scenarios&force=true"), APPLY, Some(body))
    }

    pub(super) fn delete(&self, path: &str) -> Result<()> {
        let response = self.send("DELETE", path, JSON, None)?;
        if response.status == 404 { Ok(()) } else { response.expect("DELETE", path).map(drop) }
    }

    /// Requests a token for a ServiceAccount, bound to a Secret of its namespace if one is named.
    pub(super) fn token(&self, namespace: &str, account: &str, bound_to: Option<&str>) -> Result<String> {
        let bound = bound_to.map(|name| json!({"apiVersion": "v1", "kind": "Secret", "name": name}));
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600, "audiences": null, "boundObjectRef": bound}});
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let answer = self.send("POST", &path, JSON, Some(&body))?.expect("POST", &path)?;
        let answer: Value = serde_json::from_str(&answer)?;
        Ok(answer["status"]["token"].as_str().context("the answer has no token")?.to_owned())
    }
}

impl Response {
    /// Returns the body of a successful response.
    fn expect(self, method: &str, path: &str) -> Result<String> {
        let Self { status, body } = self;
        ensure!(status < 500, "{method} {path}: {status} {body}");
        if status >= 300 {
            bail!("{method} {path} is refused: {status} {body}");
        }
        Ok(body)
    }
}
