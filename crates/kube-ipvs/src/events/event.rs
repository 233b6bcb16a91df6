use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    About, EventNote, QueuedNote,
    cut::{beginning, cut},
};

const CONTROLLER: &str = "kube-ipvs";
/// The API's limit for a note, in bytes.
const MAX_NOTE: usize = 1024;
/// The API's limit for a name, in bytes.
const MAX_NAME: usize = 253;

const CUT_MARK: &str = " … the log of kube-ipvs on this node has the rest";

/// The namespace and the Event in `events.k8s.io/v1`. The namespace is that of the object, or `default` for a Node.
pub(super) fn event(to_post: &QueuedNote, node: &str, at: Timestamp) -> (String, Value) {
    let QueuedNote { event_note, uid, .. } = to_post;
    let object = |version: &str, kind: &str, namespace: &str, name: &str| {
        let object = json!({"apiVersion": version, "kind": kind, "namespace": namespace, "name": name});
        (namespace.to_owned(), object, "Sync")
    };
    let (namespace, mut regarding, action) = match &event_note.about {
        About::Service(id) => object("v1", "Service", &id.namespace, &id.name),
        About::Slice(id) => object("discovery.k8s.io/v1", "EndpointSlice", &id.namespace, &id.name),
        // The kubelet also uses a Node's name as its UID in Events. `kubectl describe node` finds Events by it.
        About::Node => {
            let node = json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": node});
            ("default".to_owned(), node, "Prepare")
        }
    };
    // `kubectl describe` finds an Event by this UID.
    if let Some(uid) = uid {
        regarding["uid"] = (**uid).into();
    }
    let event = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": namespace, "name": name(to_post, &regarding)},
        "eventTime": format!("{at:.6}"),
        "reportingController": CONTROLLER,
        "reportingInstance": beginning(node, 128),
        "type": "Warning",
        "reason": event_note.reason,
        "action": action,
        "note": note(to_post, node),
        "regarding": regarding,
    });
    (namespace, event)
}

/// The name of the object, and a hash of the fact. All nodes derive the same name from the same fact. The API server
/// stores the first Event and answers the others with a 409.
///
/// An Event about a Node carries the name of that Node, so two nodes with the same problem have two Events.
fn name(QueuedNote { event_note, uid, fact }: &QueuedNote, regarding: &Value) -> String {
    let text = |field: &str| regarding[field].as_str().unwrap_or_default();
    let EventNote { reason, note, .. } = event_note;
    let fact = fact.as_deref().unwrap_or(note);
    let hash = hash(&[text("kind"), text("name"), uid.as_deref().unwrap_or_default(), reason, fact]);
    let object = beginning(text("name"), MAX_NAME - ".0123456789abcdef".len());
    format!("{}.{hash:016x}", object.trim_end_matches(['.', '-']))
}

/// FNV-1a is the same on every node and in every build. A tenant who constructs a collision mutes only their own
/// Events, since the name of the Event begins with the object's name.
fn hash(parts: &[&str]) -> u64 {
    // No UTF-8 text contains this byte.
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// If the text differs between nodes, the note names this node: the API server stores the Event of one node only.
fn note(QueuedNote { event_note, fact, .. }: &QueuedNote, node: &str) -> String {
    let EventNote { note, .. } = event_note;
    if fact.is_none() {
        return note.clone();
    }
    let found = format!("; found on node {}. Other nodes can have it too: see their logs", beginning(node, 128));
    cut(note, MAX_NOTE - found.len(), CUT_MARK).into_owned() + &found
}

pub(super) fn shortened(note: &str) -> String {
    let mut note = cut(note, MAX_NOTE, CUT_MARK).into_owned();
    note.shrink_to_fit();
    note
}
