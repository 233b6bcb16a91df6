//! Maps manifests to API paths. This module does no I/O.

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// An object and its API path.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    /// Such as `/api/v1/namespaces/default/services/web`.
    pub(super) path: String,
    /// The namespace that must exist first.
    pub(super) namespace: Option<String>,
    /// The object as a user would apply it.
    pub(super) body: Value,
    /// The status that a controller or a kubelet would write. The API server takes it in a separate request.
    pub(super) status: Option<Value>,
}

/// The kinds in the tests' manifests: kind, API, resource, and whether it is namespaced.
const KINDS: [(&str, &str, &str, bool); 10] = [
    ("Service", "/api/v1", "services", true),
    ("EndpointSlice", "/apis/discovery.k8s.io/v1", "endpointslices", true),
    ("Endpoints", "/api/v1", "endpoints", true),
    ("Node", "/api/v1", "nodes", false),
    ("Namespace", "/api/v1", "namespaces", false),
    ("Secret", "/api/v1", "secrets", true),
    ("ServiceCIDR", "/apis/networking.k8s.io/v1", "servicecidrs", false),
    ("ServiceAccount", "/api/v1", "serviceaccounts", true),
    ("ClusterRole", "/apis/rbac.authorization.k8s.io/v1", "clusterroles", false),
    ("ClusterRoleBinding", "/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings", false),
];

impl Object {
    fn read(mut body: Value) -> Result<Self> {
        let kind = body["kind"].as_str().unwrap_or_default();
        let known = KINDS.iter().find(|(known, ..)| *known == kind);
        let &(_, api, resource, in_namespace) = known.with_context(|| format!("kind {kind:?}: {body}"))?;
        let name = body["metadata"]["name"].as_str().context("an object without a name")?.to_owned();
        let namespace = in_namespace
            .then(|| body["metadata"]["namespace"].as_str().filter(|given| !given.is_empty()).unwrap_or("default"))
            .map(str::to_owned);
        let place = match &namespace {
            Some(namespace) => {
                body["metadata"]["namespace"] = json!(namespace);
                format!("/namespaces/{namespace}/{resource}")
            }
            None => format!("/{resource}"),
        };
        let status = body.as_object_mut().and_then(|fields| fields.remove("status"));
        let status = status.map(|status| json!({"status": status}));
        Ok(Self { path: format!("{api}{place}/{name}"), namespace, body, status })
    }
}

pub(super) fn objects(manifest: &str) -> Result<Vec<Object>> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(manifest).with_context(|| format!("reading the manifest\n{manifest}"))?;
    let documents = documents.into_iter().filter(|document| !document.is_null());
    documents.map(|body| Object::read(body).with_context(|| format!("of the manifest\n{manifest}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::of_project;

    #[test]
    fn object_path_follows_from_kind_and_namespace() {
        let manifest = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nstatus: {loadBalancer: {}}\n---\n\
                        apiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n---\n\
                        apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a, namespace: other}\n";
        let found = objects(manifest).unwrap();
        let paths: Vec<&str> = found.iter().map(|object| object.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/api/v1/namespaces/default/services/web",
                "/api/v1/nodes/node-1",
                "/apis/discovery.k8s.io/v1/namespaces/other/endpointslices/a",
            ]
        );
        assert_eq!(found[0].body["metadata"]["namespace"], "default");
        assert_eq!(found[0].status, Some(json!({"status": {"loadBalancer": {}}})));
        assert_eq!(found[0].body.get("status"), None);
        assert_eq!(found[1].status, None);
    }

    #[test]
    fn shipped_rbac_manifest_has_only_known_kinds() {
        assert_eq!(objects(&of_project("rbac.yaml").unwrap()).unwrap().len(), 3);
        assert!(objects("kind: Pod\nmetadata: {name: a}\n").is_err());
    }
}
