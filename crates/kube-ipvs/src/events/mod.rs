//! What an operator must know: Events at the Service or the Node that they are about, and lines of the log.
//!
//! Tenants decide what kube-ipvs has to report. So this is the one place that limits it: how much kube-ipvs reports
//! about one object, how long a report may be, and what kube-ipvs keeps of it.

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
pub use lines::{Line, Lines};
pub use post::{Pace, post};

/// What an event_note is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum About {
    /// A Service.
    Service(ServiceId),
    /// An EndpointSlice.
    Slice(SliceId),
    /// The Node that we run on.
    Node,
}

/// Something that an operator must know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventNote {
    /// What it is about.
    pub about: About,
    /// What has happened, in one word for machines, such as `AddressTaken`.
    pub reason: &'static str,
    /// The same for people.
    pub note: String,
}

/// An event_note that is to be posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToPost {
    pub(crate) event_note: EventNote,
    /// The UID of its object where that is known.
    pub(crate) uid: Option<Box<str>>,
    /// What makes it the same fact for every node, where that is not the note.
    pub(crate) fact: Option<String>,
}

/// A `healthCheckNodePort` that is in use. Its note differs from node to node: it may name an address.
pub(crate) const PORT_TAKEN: &str = "HealthCheckNodePortTaken";

/// How many may wait to be posted. What comes then is in the log only.
pub const QUEUE_CAPACITY: usize = 100;

/// How many Events are made. Every node has these budgets, and all of them record the same facts of Services.
///
/// client-go allows 25 for an object, each of its own node, and nothing limits how many objects a tenant has.
const BUDGETS: Budgets = Budgets {
    object: Budget { burst: 10, one_more: Duration::from_secs(300) },
    namespace: Budget { burst: 30, one_more: Duration::from_secs(60) },
    all: Budget { burst: 120, one_more: Duration::from_secs(10) },
};

/// How long a fact is not told again: a little longer than an API server keeps an Event by default. Told earlier it
/// would find the Event of before still there, which goes soon after.
const REPEATS: Budget = Budget { burst: 1, one_more: Duration::from_secs(70 * 60) };

/// Decides what is recorded, and hands it to who posts it.
///
/// It records no fact twice within an hour, because kube-ipvs retries a failed change again and again.
#[derive(Debug)]
pub struct EventRecorder {
    to_post: Sender<ToPost>,
    /// What room there is for each fact.
    repeats: Limits,
    limits: Limits,
    uids: HashMap<ServiceId, Box<str>>,
}

impl EventRecorder {
    /// Records through a channel. [`post()`] may read from it, or no task at all.
    pub fn new(to_post: Sender<ToPost>) -> Self {
        let repeats = Limits::new(Budgets { object: REPEATS, namespace: REPEATS, all: REPEATS });
        Self { to_post, repeats, limits: Limits::new(BUDGETS), uids: HashMap::new() }
    }

    /// Takes in what a source tells: UIDs of Services, and what there is to be recorded.
    pub fn told(&mut self, uids: Vec<(ServiceId, Option<Box<str>>)>, what: Vec<EventNote>, now: Duration) {
        for (service, uid) in uids {
            match uid {
                Some(uid) => self.uids.insert(service, uid),
                None => self.uids.remove(&service),
            };
        }
        what.into_iter().for_each(|event_note| self.record(event_note, now));
    }

    /// Records something. `now` is the time since any fixed moment.
    pub fn record(&mut self, EventNote { about, reason, note }: EventNote, now: Duration) {
        let fact = (reason == PORT_TAKEN).then(String::new);
        self.tell(about, reason, || (note, fact), now);
    }

    /// Records what came of a sync.
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
            // The kernel of each node has its own words.
            self.tell(about, "SyncFailed", || (failure.to_string(), port.map(ToString::to_string)), now);
        }
    }

    /// Records a fact, unless that was done not long ago or there is no room for it. Its words, and what makes it the
    /// same fact for every node where that is not the note, are only asked for where there may be.
    fn tell(
        &mut self,
        about: About,
        reason: &'static str,
        words: impl FnOnce() -> (String, Option<String>),
        now: Duration,
    ) {
        let namespace = about.namespace();
        // The last quarter is the Node's own: no Service keeps it silent.
        let reserve = if about == About::Node { 0 } else { self.to_post.max_capacity() / 4 };
        // Where the channel is full, or where there is no API server, it does not wait.
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
        let _ = self.to_post.try_send(ToPost { event_note, uid, fact });
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

/// Under which reason something is recorded that a Service does not get.
fn reason(skipped: &Skipped) -> Option<&'static str> {
    Some(match skipped {
        Skipped::Taken { .. } => "AddressTaken",
        Skipped::Refused { .. } | Skipped::ReservedPort { .. } => "AddressRefused",
        Skipped::TooMany { .. } => "TooManyVirtualServers",
        Skipped::Foreign { .. } => "ForeignVirtualServer",
        Skipped::NoNodeAddress { .. } => "NoNodePortAddress",
        Skipped::Forwarding { .. }
        | Skipped::OnePacket { .. }
        | Skipped::Scheduler { .. }
        | Skipped::Weights { .. }
        | Skipped::Hash { .. } => "AnnotationNotHonoured",
        // All is well: that Node serves it.
        Skipped::NodeAddress { .. } => return None,
        // The reasons before it are Events; these are in the log.
        Skipped::More { .. } => return None,
        // It is in the log.
        _ => return None,
    })
}

/// What makes it the same fact for every node, where each has its own words for it: with a node port the address is
/// the node's own, and which endpoints are elsewhere depends on where one is.
fn fact(skipped: &Skipped) -> Option<String> {
    match skipped {
        Skipped::Foreign { port, .. } => Some(port.to_string()),
        Skipped::OnePacket { port, .. } => Some(format!("{port} datagrams")),
        Skipped::Forwarding { port, .. } => Some(format!("{port} forwarding")),
        Skipped::TooMany { .. } => Some("too many".into()),
        Skipped::ReservedPort { port, key } => Some(format!("{port} reserved {}", key.port)),
        Skipped::Taken { port, claim: Claim::VirtualServer(key), by, is_of_node: true } => {
            Some(format!("{port} {} {} taken by {by}", key.protocol, key.port))
        }
        _ => None,
    }
}
