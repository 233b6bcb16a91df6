//! Events: what an operator must know, told at the Service or the Node that it is about.
//!
//! The log has all of this too. Events are for those who ask `kubectl get events` why a Service is not served.

mod event;
mod limits;
mod post;
mod recent;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, time::Duration};

use proxier::{
    FailedChange, Turn,
    desired::Skipped,
    model::{ServiceId, ServicePortId, SliceId},
};
use tokio::sync::mpsc::Sender;

use limits::Limits;
pub use post::post;
use recent::Recent;

/// What an announcement is about.
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
pub struct Announcement {
    /// What it is about.
    pub about: About,
    /// What has happened, in one word for machines, such as `AddressTaken`.
    pub reason: &'static str,
    /// The same for people.
    pub note: String,
}

/// An announcement, and the UID of its object where that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToPost {
    pub(crate) announcement: Announcement,
    pub(crate) uid: Option<Box<str>>,
}

/// How many may wait to be posted. What comes then is in the log only.
pub const WAITING: usize = 100;

/// Decides what is announced, and hands it to who posts it.
///
/// Nothing is said twice within an hour, as what fails is tried again and again; and of one object no more is said than
/// client-go would let through.
#[derive(Debug)]
pub struct Announcer {
    to_post: Sender<ToPost>,
    recent: Recent,
    limits: Limits,
    uids: HashMap<ServiceId, Box<str>>,
}

impl Announcer {
    /// Announces by way of a channel, at whose other end [`post()`] may be, or nobody.
    pub fn new(to_post: Sender<ToPost>) -> Self {
        Self { to_post, recent: Recent::default(), limits: Limits::default(), uids: HashMap::new() }
    }

    /// Takes in what a source tells: UIDs of Services, and what there is to be announced.
    pub fn told(&mut self, uids: Vec<(ServiceId, Option<Box<str>>)>, what: Vec<Announcement>, now: Duration) {
        for (service, uid) in uids {
            match uid {
                Some(uid) => self.uids.insert(service, uid),
                None => self.uids.remove(&service),
            };
        }
        what.into_iter().for_each(|announcement| self.announce(announcement, now));
    }

    /// Announces something. `now` is the time since any fixed moment.
    pub fn announce(&mut self, announcement: Announcement, now: Duration) {
        if self.recent.is_new(&announcement, now) && self.limits.allow(&announcement.about, now) {
            let uid = match &announcement.about {
                About::Service(id) => self.uids.get(id).cloned(),
                About::Slice(_) | About::Node => None,
            };
            // Full, or nobody posts: no reason to wait.
            let _ = self.to_post.try_send(ToPost { announcement, uid });
        }
    }

    /// Announces what came of a turn.
    pub fn turned(&mut self, turn: &Turn, now: Duration) {
        of_turn(turn).for_each(|announcement| self.announce(announcement, now));
    }
}

/// What there is to be announced of a turn.
fn of_turn(turn: &Turn) -> impl Iterator<Item = Announcement> {
    let unusable = turn.unusable.iter().map(|reason| Announcement {
        about: About::Node,
        reason: "KernelUnusable",
        note: reason.to_string(),
    });
    let skipped = turn.skipped.iter().filter_map(of_skipped);
    unusable.chain(skipped).chain(turn.failures.iter().map(of_failure))
}

fn of_skipped(skipped: &Skipped) -> Option<Announcement> {
    let reason = match skipped {
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
    };
    Some(Announcement { about: About::Service(skipped.service().clone()), reason, note: skipped.to_string() })
}

fn of_failure(failure: &FailedChange) -> Announcement {
    let about = failure.service.as_ref().map_or(About::Node, of_service);
    Announcement { about, reason: "SyncFailed", note: failure.to_string() }
}

fn of_service(port: &ServicePortId) -> About {
    About::Service(port.service.clone())
}
