//! The edge between what is decided and what is done.
//!
//! [`LinuxKernel`](crate::linux::LinuxKernel) is a [`Kernel`], and another program can write one of its own. A plan
//! stands in its order, and most of its changes rest on earlier ones. So [`Kernel::apply`] has three duties, and the
//! engine relies on them:
//!
//! * It tries no change that [`FailedPrerequisites::stops`], and reports it as [`Cause::NotTried`].
//! * It gives every change that it did not make to [`FailedPrerequisites::note`].
//! * After the failures of one [`Phase`](crate::plan::Phase) it carries out what [`amends`] returns for them, and
//!   reports what it did of that as `amended`.

mod prerequisites;

use std::{borrow::Cow, collections::BTreeMap, io};

pub use prerequisites::{FailedPrerequisites, amends};

use crate::{
    cluster::EndpointAddress,
    model::VirtualServerKey,
    plan::{Change, Plan},
    state::State,
};

/// A kernel that can be read and changed. Synchronous: one owner calls it, one call at a time.
pub trait Kernel {
    /// Makes what every plan stands on, where it is not there: the device, the tables, the sysctls.
    ///
    /// # Errors
    ///
    /// When a plan could not work at all, with what is missing and what to do.
    fn prepare(&mut self) -> Result<(), KernelUnavailable>;

    /// Reads the state. A list of the kernel's can lack what is there: what of `believed` it lacks is asked for by
    /// itself.
    ///
    /// # Errors
    ///
    /// When any part of it cannot be read: an unreadable state is never an empty one.
    fn observe(&mut self, believed: &State) -> Result<State, KernelUnavailable>;

    /// Counts the connections of the real servers of some virtual servers. One that is gone has none.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    fn connections(&mut self, servers: &[VirtualServerKey]) -> Result<ConnectionCounts, KernelUnavailable>;

    /// Carries out a plan, going on past what fails. It has the three duties that the [module](self) names.
    fn apply(&mut self, plan: &Plan) -> Report;
}

/// How many connections go through a real server, established and dying ones together.
pub type ConnectionCounts = BTreeMap<(VirtualServerKey, EndpointAddress), u64>;

/// The kernel cannot be used at all, for now. `Display` says what of it, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {reason}")]
pub struct KernelUnavailable {
    subject: Cow<'static, str>,
    reason: Reason,
}

impl KernelUnavailable {
    /// Says what cannot be used, or was not done, and why.
    pub fn new(subject: impl Into<Cow<'static, str>>, reason: impl Into<Reason>) -> Self {
        Self { subject: subject.into(), reason: reason.into() }
    }

    /// What cannot be used, or was not done: mostly a part of the kernel such as `IPVS`, `nftables` or `sysctl`.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Why, without the subject.
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// The kernel's errno, if it gave one. `EPERM` (1) and `EACCES` (13): the caller lacks CAP_NET_ADMIN. `ENOENT` (2)
    /// with the subject `IPVS`: the kernel has no IPVS.
    pub fn errno(&self) -> Option<i32> {
        self.reason.errno()
    }
}

/// Why the kernel did not do something: a text, in the kernel's words where it has any, and its errno. `Display` prints
/// the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Reason {
    text: Cow<'static, str>,
    errno: Option<i32>,
}

impl Reason {
    /// A text, and the errno (positive, as in `errno.h`) if there is one.
    pub fn new(text: impl Into<Cow<'static, str>>, errno: Option<i32>) -> Self {
        Self { text: text.into(), errno }
    }

    /// The kernel's errno, if it gave one.
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }
}

/// Without an errno.
impl From<&'static str> for Reason {
    fn from(text: &'static str) -> Self {
        Self::new(text, None)
    }
}

impl From<io::Error> for Reason {
    fn from(error: io::Error) -> Self {
        Self::new(error.to_string(), error.raw_os_error())
    }
}

/// What became of a plan. Everything that is not listed was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What failed.
    pub failures: Vec<Failure>,
    /// What was done besides, because something failed: see [`amends`].
    pub amended: Vec<Change>,
}

/// One change that was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its place in the plan.
    pub change: usize,
    /// What that means for what is known of the kernel.
    pub cause: Cause,
    /// Why.
    pub reason: Reason,
}

/// What a failure means for what is known of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// It was not made, and that is all.
    Refused,
    /// It was not tried, because of what failed before it.
    NotTried,
    /// It was not made: the kernel does not have its scheduler.
    NoScheduler,
    /// The kernel did not make it because it exists. Another program made it, unless it is recorded as ours: then a
    /// list left it out.
    Exists,
    /// It is unknown whether the kernel made it. The engine must read the kernel.
    Unknown,
}
