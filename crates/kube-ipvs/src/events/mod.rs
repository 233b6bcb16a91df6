//! Reports facts to operators, as Events about a Service or Node and as log lines.
//!
//! Tenants decide how much kube-ipvs has to report. This module limits the number of reports per object, their length,
//! and the memory that kube-ipvs spends on them.

mod cut;
mod event;
mod hint;
mod limits;
mod lines;
mod post;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, time::Duration};

use proxier::{
    SyncReport,
    cluster::Claim,
    desired::Skipped,
    model::{ServiceId, SliceId},
};
use tokio::sync::mpsc::Sender;

use event::shortened;
pub use hint::with_hint;
use limits::{Budget, Budgets, Limits};
pub use lines::{Line, LogLines};
pub use post::{Pace, post};

/// The object that an Event regards.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum About {
    /// A Service.
    Service(ServiceId),
    /// An EndpointSlice.
    Slice(SliceId),
    /// The Node that kube-ipvs runs on.
    Node,
}

/// A fact for operators, which becomes an Event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventNote {
    /// The object that it regards.
    pub about: About,
    /// The machine-readable reason, such as `AddressInUse`.
    pub reason: &'static str,
    /// The human-readable text.
    pub note: String,
}

/// A note to post as an Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedNote {
    pub(crate) event_note: EventNote,
    /// The UID of a Service, if it is known.
    pub(crate) uid: Option<Box<str>>,
    /// Identifies the fact if its note differs between nodes.
    pub(crate) fact: Option<String>,
}

/// A `healthCheckNodePort` that is in use. Its note can name an address, so it differs between nodes.
pub(crate) const PORT_UNAVAILABLE: &str = "HealthCheckNodePortUnavailable";

/// How many notes can queue up for posting. If the queue is full, only the log has the fact.
pub const QUEUE_CAPACITY: usize = 100;

/// The budgets for Events. Each node has these budgets, and all nodes record the same facts of a Service.
///
/// client-go allows 25 Events per object and source, and does not limit the objects of a tenant.
const BUDGETS: Budgets = Budgets {
    object: Budget { burst: 10, one_more: Duration::from_secs(300) },
    namespace: Budget { burst: 30, one_more: Duration::from_secs(60) },
    all: Budget { burst: 120, one_more: Duration::from_secs(10) },
};

/// How long a fact is not repeated: a little longer than an API server keeps an Event by default. An earlier repeat
/// would meet the old Event, which expires soon after.
const REPEATS: Budget = Budget { burst: 1, one_more: Duration::from_secs(70 * 60) };

/// Decides which facts to record, and queues them for posting.
///
/// kube-ipvs keeps retrying a failed change, so a fact is recorded once in 70 minutes.
#[derive(Debug)]
pub struct EventRecorder {
    to_post: Sender<QueuedNote>,
    repeats: Limits,
    limits: Limits,
    uids: HashMap<ServiceId, Box<str>>,
}

impl EventRecorder {
    /// Queues notes in a channel. A receiver such as [`post()`] is optional.
    pub fn new(to_post: Sender<QueuedNote>) -> Self {
        let repeats = Limits::new(Budgets { object: REPEATS, namespace: REPEATS, all: REPEATS });
        Self { to_post, repeats, limits: Limits::new(BUDGETS), uids: HashMap::new() }
    }

    /// Stores the UIDs of Services, and records the notes of a source.
    pub fn take_notes(&mut self, uids: Vec<(ServiceId, Option<Box<str>>)>, notes: Vec<EventNote>, now: Duration) {
        for (service, uid) in uids {
            match uid {
                Some(uid) => self.uids.insert(service, uid),
                None => self.uids.remove(&service),
            };
        }
        notes.into_iter().for_each(|event_note| self.record(event_note, now));
    }

    /// Records a note. `now` is the time since any fixed moment.
    pub fn record(&mut self, EventNote { about, reason, note }: EventNote, now: Duration) {
        let fact = (reason == PORT_UNAVAILABLE).then(String::new);
        self.tell(about, reason, || (note, fact), now);
    }

    /// Records the outcome of a sync.
    pub fn record_sync(&mut self, report: &SyncReport, now: Duration) {
        if let Some(unavailable) = &report.unavailable {
            self.tell(About::Node, "KernelUnavailable", || (unavailable.to_string(), None), now);
        }
        for skipped in &report.skipped {
            if let Some(reason) = reason(skipped) {
                let about = About::Service(skipped.service().clone());
                self.tell(about, reason, || (with_hint(skipped), fact(skipped)), now);
            }
        }
        for failure in &report.failures {
            let port = failure.service.as_ref();
            let about = port.map_or(About::Node, |port| About::Service(port.service.clone()));
            // The error text can differ between nodes.
            self.tell(about, "SyncFailed", || (failure.to_string(), port.map(ToString::to_string)), now);
        }
    }

    /// Records a fact, unless it is a repeat or a budget is exhausted. `words` builds the note, and the identity of the
    /// fact if the note differs between nodes. It runs only if there is room.
    fn tell(
        &mut self,
        about: About,
        reason: &'static str,
        words: impl FnOnce() -> (String, Option<String>),
        now: Duration,
    ) {
        let namespace = about.namespace();
        // The last quarter of the queue is reserved for the Node, so that no Service can silence it.
        let reserve = if about == About::Node { 0 } else { self.to_post.max_capacity() / 4 };
        // If the queue is full, for example without an API server, the fact is dropped.
        if self.to_post.capacity() <= reserve || !self.limits.has_room(&about, namespace, now) {
            return;
        }
        let (note, fact) = words();
        let uid = match &about {
            About::Service(id) => self.uids.get(id).cloned(),
            About::Slice(_) | About::Node => None,
        };
        let identity = (&about, &uid, reason, fact.as_deref().unwrap_or(&note));
        if !self.repeats.has_room(&identity, None, now) || !self.limits.allow(&about, namespace, now) {
            return;
        }
        self.repeats.allow(&identity, None, now);
        let event_note = EventNote { note: shortened(&note), about, reason };
        let _ = self.to_post.try_send(QueuedNote { event_note, uid, fact });
    }
}

impl About {
    fn namespace(&self) -> Option<&str> {
        match self {
            Self::Service(id) => Some(&id.namespace),
            Self::Slice(id) => Some(&id.namespace),
            Self::Node => None,
        }
    }
}

/// The reason of the Event; `None` if no Event is due.
fn reason(skipped: &Skipped) -> Option<&'static str> {
    Some(match skipped {
        Skipped::AddressInUse { .. } => "AddressInUse",
        Skipped::AddressRejected { .. } | Skipped::ReservedPort { .. } => "AddressRejected",
        Skipped::TooManyVirtualServers { .. } => "TooManyVirtualServers",
        Skipped::ForeignVirtualServer { .. } => "ForeignVirtualServer",
        Skipped::NoNodePortAddress { .. } => "NoNodePortAddress",
        Skipped::ForwardingIgnored { .. }
        | Skipped::DatagramSchedulingIgnored { .. }
        | Skipped::SchedulerMissing { .. }
        | Skipped::WeightsIgnored { .. }
        | Skipped::HashOptionsIgnored { .. } => "AnnotationNotApplied",
        // `NodeAddress` is no problem: another Node serves the address. The log has the others.
        _ => return None,
    })
}

/// Identifies a fact whose text differs between nodes. A node port has another address on each node, and which
/// endpoints are remote depends on the node.
fn fact(skipped: &Skipped) -> Option<String> {
    match skipped {
        Skipped::ForeignVirtualServer { port, .. } => Some(port.to_string()),
        Skipped::DatagramSchedulingIgnored { port, .. } => Some(format!("{port} datagrams")),
        Skipped::ForwardingIgnored { port, .. } => Some(format!("{port} forwarding")),
        Skipped::TooManyVirtualServers { .. } => Some("too many".into()),
        Skipped::ReservedPort { port, key } => Some(format!("{port} reserved {}", key.port)),
        Skipped::AddressInUse { port, claim: Claim::VirtualServer(key), by, is_of_node: true } => {
            Some(format!("{port} {} {} taken by {by}", key.protocol, key.port))
        }
        _ => None,
    }
}
