//! The ClusterRole of manifests/rbac.yaml allows exactly the requests of the daemon. Events reach the API server.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use kube_ipvs::{
    config::ClientConnection,
    events::{About, EventNote, EventRecorder, QUEUE_CAPACITY},
    source::kubernetes::KubernetesSource,
};
use proxier::model::ServiceId;
use scenarios::{ApiServer, Service, StreamingLists, eventually};
use serde_json::Value;
use tokio::sync::mpsc::channel;

use crate::follower::{Follower, LIMITS, asked, fast};

type Right = (String, String, String);

fn manifest(name: &str) -> Result<Vec<Value>> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests").join(name);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(serde_saphyr::from_multiple(&text)?)
}

fn words(value: &Value) -> impl Iterator<Item = String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned)
}

fn allowed() -> Result<BTreeSet<Right>> {
    let documents = manifest("rbac.yaml")?;
    let role = documents.iter().find(|document| document["kind"] == "ClusterRole").context("a ClusterRole")?;
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().context("rules")? {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                rights.extend(words(&rule["verbs"]).map(|verb| (verb, group.clone(), resource.clone())));
            }
        }
    }
    Ok(rights)
}

/// The right that the API server checks for a request.
fn right(request: &str) -> Right {
    let (verb, request) = match request.strip_prefix("POST ") {
        Some(rest) => ("create", rest),
        None if request.contains("watch=true") || request.contains("watch=1") => ("watch", request),
        None => ("list", request),
    };
    let path = request.split('?').next().unwrap_or_default();
    let mut parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    if let Some(at) = parts.iter().position(|part| *part == "namespaces") {
        parts.drain(at..at + 2);
    }
    let (group, rest) = match parts.as_slice() {
        ["api", "v1", rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => ("", &[path][..]),
    };
    let (verb, resource) = match rest {
        [resource, _] => ("get", (*resource).to_owned()),
        [resource, _, part] => ("get", format!("{resource}/{part}")),
        _ => (verb, rest.join("/")),
    };
    (verb.into(), group.into(), resource)
}

#[test]
fn right_of_a_request_is_the_one_an_api_server_checks() {
    let needs = |request: &str| {
        let (verb, group, resource) = right(request);
        format!("{verb} {group} {resource}")
    };
    assert_eq!(needs("/api/v1/services?watch=true&x=y"), "watch  services");
    assert_eq!(needs("/api/v1/namespaces/shop/services"), "list  services");
    assert_eq!(needs("/api/v1/nodes/node-1"), "get  nodes");
    assert_eq!(needs("/api/v1/nodes/node-1/status"), "get  nodes/status");
    assert_eq!(needs("/apis/discovery.k8s.io/v1/endpointslices"), "list discovery.k8s.io endpointslices");
    let slice = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/web-1";
    assert_eq!(needs(slice), "get discovery.k8s.io endpointslices");
    let event = "POST /apis/events.k8s.io/v1/namespaces/shop/events";
    assert_eq!(needs(event), "create events.k8s.io events");
}

fn record(api: &ApiServer, event_notes: Vec<EventNote>) -> Result<()> {
    post_on("node-1", api, event_notes)
}

fn post_on(node: &str, api: &ApiServer, event_notes: Vec<EventNote>) -> Result<()> {
    let (sender, to_post) = channel(QUEUE_CAPACITY);
    let mut recorder = EventRecorder::new(sender);
    event_notes.into_iter().for_each(|event_note| recorder.record(event_note, Duration::ZERO));
    drop(recorder);
    let connection = ClientConnection { master: api.url(), ..fast() };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async { KubernetesSource::open(&connection, node).await?.with_limits(LIMITS).record(to_post).await })
}

fn about(about: About, note: &str) -> EventNote {
    EventNote { about, reason: "AddressInUse", note: note.into() }
}

#[test]
fn cluster_role_allows_exactly_the_requests_of_the_daemon() -> Result<()> {
    let mut asked = BTreeSet::new();
    for streaming in [StreamingLists::Served, StreamingLists::Refused] {
        let api = ApiServer::start()?;
        api.streaming(streaming);
        // An external IP can be the address of any Node, so kube-ipvs lists all Nodes.
        api.apply(&Service::new("web").cluster_ip("10.96.0.7").port(80).line("externalIPs: [\"192.168.0.2\"]"))?;
        let follower = Follower::start(&api);
        follower.eventually(|world| world.services.len() == 1)?;
        record(&api, vec![about(About::Node, "why")])?;
        let rights = || api.requests().iter().map(|request| right(request)).collect::<BTreeSet<_>>();
        // The watch opens a moment after the list.
        let all = ["services", "endpointslices", "servicecidrs", "nodes"];
        eventually(|| {
            let watched = rights().iter().filter(|(verb, ..)| verb == "watch").count();
            ensure!(watched == all.len(), "{watched} are watched");
            Ok(())
        })?;
        asked.extend(rights());
    }
    assert_eq!(asked, allowed()?);
    Ok(())
}

#[test]
fn events_reach_the_api_server() -> Result<()> {
    let api = ApiServer::start()?;
    let service = About::Service(ServiceId::new("shop", "web"));
    record(&api, vec![about(service.clone(), "first"), about(About::Node, "second"), about(service, "first")])?;
    let events = api.events();
    let made: Vec<_> = events.iter().map(|event| (&event["regarding"]["kind"], &event["note"])).collect();
    assert_eq!(made, [(&Value::from("Service"), &Value::from("first")), (&"Node".into(), &"second".into())]);
    Ok(())
}

/// All nodes find the same typo in a Service, and the API server stores one Event. A problem of a node is a fact of
/// that node only.
#[test]
fn fact_of_a_service_is_stored_once_for_all_nodes() -> Result<()> {
    let api = ApiServer::start()?;
    for node in ["node-1", "node-2", "node-3"] {
        let facts = [
            (About::Service(ServiceId::new("shop", "web")), "a typo"),
            (About::Service(ServiceId::new("shop", "web")), "another typo"),
            (About::Service(ServiceId::new("shop", "api")), "a typo"),
            (About::Node, "no module"),
        ];
        post_on(node, &api, facts.map(|(object, note)| about(object, note)).into())?;
    }
    assert_eq!(asked(&api, |request| request.starts_with("POST ")), 3 * 4);
    let events = api.events();
    let stored = |note: &str| events.iter().filter(|event| event["note"] == note).count();
    assert_eq!((stored("a typo"), stored("another typo"), stored("no module")), (2, 1, 3));
    assert_eq!(events.len(), 6);
    Ok(())
}

#[test]
fn event_that_is_stored_already_is_no_failure() -> Result<()> {
    let api = ApiServer::start()?;
    let fact = || about(About::Service(ServiceId::new("shop", &"x".repeat(63))), &"long ".repeat(10_000));
    record(&api, vec![fact()])?;
    record(&api, vec![fact(), about(About::Node, "next")])?;
    assert_eq!(api.events().len(), 2);
    Ok(())
}

/// kube-ipvs drops a rejected Event and posts the next one.
#[test]
fn rejected_event_does_not_stop_the_next_one() -> Result<()> {
    let api = ApiServer::start()?;
    api.fault(&[scenarios::Fault::Status(403)]);
    record(&api, vec![about(About::Node, "first"), about(About::Node, "second")])?;
    let events = api.events();
    assert_eq!(events.iter().map(|event| &event["note"]).collect::<Vec<_>>(), ["second"]);
    Ok(())
}

/// The ClusterRole `system:public-info-viewer` allows it to every client.
#[test]
fn api_server_version_is_reported() -> Result<()> {
    let api = ApiServer::start()?;
    let connection = ClientConnection { master: api.url(), ..fast() };
    let (sender, mut versions) = channel(1);
    let version = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let source = KubernetesSource::open(&connection, "node-1").await?.with_limits(LIMITS);
        tokio::select! {
            outcome = source.follow_version(|version| drop(sender.try_send(version.clone()))) => {
                outcome.and_then(|()| bail!("it has ended"))
            }
            version = versions.recv() => version.context("no version"),
        }
    })?;
    assert_eq!((&*version.git_version, &*version.major, &*version.minor), ("v1.36.0", "1", "36"));
    Ok(())
}
