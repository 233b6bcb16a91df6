use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{About, ToPost};

/// Who says it.
const CONTROLLER: &str = "kube-ipvs";
/// The most bytes of a note, by the API's rules.
const LONGEST: usize = 1024;

/// How a note ends of which a part is left out.
const CUT: &str = " … the log of kube-ipvs on this node has all of it";

/// The Event of `events.k8s.io/v1` for an announcement, and the namespace in which it is made: that of its object, or
/// `default` for a Node, which has none.
pub(super) fn event(ToPost { announcement, uid }: &ToPost, node: &str, at: Timestamp) -> (String, Value) {
    let object = |version: &str, kind: &str, namespace: &str, name: &str| {
        let object = json!({"apiVersion": version, "kind": kind, "namespace": namespace, "name": name});
        (namespace.to_owned(), object, "Sync")
    };
    let (namespace, mut regarding, action) = match &announcement.about {
        About::Service(id) => object("v1", "Service", &id.namespace, &id.name),
        About::Slice(id) => object("discovery.k8s.io/v1", "EndpointSlice", &id.namespace, &id.name),
        // As for events of the kubelet, a Node's UID is its name: by it `kubectl describe node` finds them.
        About::Node => {
            let node = json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": node});
            ("default".to_owned(), node, "Prepare")
        }
    };
    // Without it `kubectl describe` does not find the Event.
    if let Some(uid) = uid {
        regarding["uid"] = (**uid).into();
    }
    let event = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": namespace, "generateName": format!("{CONTROLLER}-")},
        "eventTime": format!("{at:.6}"),
        "reportingController": CONTROLLER,
        "reportingInstance": beginning(node, 128),
        "type": "Warning",
        "reason": announcement.reason,
        "action": action,
        "note": shortened(&announcement.note),
        "regarding": regarding,
    });
    (namespace, event)
}

/// A note that is not too long: cut where a line, or else an item of a list, or else a word ends.
fn shortened(note: &str) -> Cow<'_, str> {
    if note.len() <= LONGEST {
        return note.into();
    }
    let start = beginning(note, LONGEST - CUT.len());
    let end = ["\n", ", ", " "].iter().find_map(|separator| start.rfind(separator).filter(|end| *end > 0));
    format!("{}{CUT}", &start[..end.unwrap_or(start.len())]).into()
}

fn beginning(text: &str, longest: usize) -> &str {
    let end = (0..=text.len().min(longest)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}
