use jiff::Timestamp;
use serde_json::{Value, json};

use super::{About, Announcement};

/// Who says it.
const CONTROLLER: &str = "kube-ipvs";
/// The most bytes of a note, by the API's rules.
const LONGEST: usize = 1024;

/// The Event of `events.k8s.io/v1` for an announcement, and the namespace in which it is made: that of its object, or
/// `default` for a Node, which has none.
pub(super) fn event(announcement: &Announcement, node: &str, at: Timestamp) -> (String, Value) {
    let (namespace, regarding, action) = match &announcement.about {
        About::Service(id) => {
            let service =
                json!({"apiVersion": "v1", "kind": "Service", "namespace": *id.namespace, "name": *id.name});
            (id.namespace.to_string(), service, "Sync")
        }
        // As for events of the kubelet, a Node's UID is its name: by it `kubectl describe node` finds them.
        About::Node => {
            let node = json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": node});
            ("default".to_owned(), node, "Prepare")
        }
    };
    let event = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": namespace, "generateName": format!("{CONTROLLER}-")},
        "eventTime": format!("{at:.6}"),
        "reportingController": CONTROLLER,
        "reportingInstance": shortened(node, 128),
        "type": "Warning",
        "reason": announcement.reason,
        "action": action,
        "note": shortened(&announcement.note, LONGEST),
        "regarding": regarding,
    });
    (namespace, event)
}

fn shortened(text: &str, longest: usize) -> &str {
    let end = (0..=text.len().min(longest)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}
