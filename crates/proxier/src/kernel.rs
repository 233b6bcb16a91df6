//! The boundary between the decisions of the engine and their execution.
//!
//! [`LinuxKernel`](crate::linux::LinuxKernel) implements [`Kernel`], and an embedder can implement it too. A plan is
//! ordered, and most of its changes depend on earlier ones. So [`Kernel::apply`] applies it with [`in_phases`].

mod prerequisites;

use std::{borrow::Cow, collections::BTreeMap, io};

pub use prerequisites::in_phases;

use ipvs_netlink::VirtualServer;

use crate::{
    cluster::EndpointAddress,
    model::VirtualServerKey,
    plan::{Change, Plan},
    state::State,
};

/// A kernel that the engine reads and changes. Calls are synchronous: one owner makes one call at a time.
pub trait Kernel {
    /// Makes the prerequisites of every plan if they are missing: the device, the tables, the sysctls.
    ///
    /// # Errors
    ///
    /// If no plan could work: names the missing prerequisite and the remedy.
    fn prepare(&mut self) -> Result<(), KernelUnavailable>;

    /// Reads the state. A dump of the kernel can be incomplete, so the implementation queries each virtual server of
    /// `believed` that the dump lacks.
    ///
    /// # Errors
    ///
    /// If any part cannot be read: an unreadable state is never an empty one.
    fn read_state(&mut self, believed: &State) -> Result<State, KernelUnavailable>;

    /// Reads the given virtual servers, each by itself, without their real servers. One that does not exist is not in
    /// the result.
    ///
    /// # Errors
    ///
    /// If one of them cannot be read.
    fn virtual_servers(
        &mut self,
        keys: &[VirtualServerKey],
    ) -> Result<BTreeMap<VirtualServerKey, VirtualServer>, KernelUnavailable>;

    /// Corrects settings of the kernel, such as sysctls, that another program has changed.
    /// [`prepare`](Self::prepare) includes this. The engine also calls it every sync period between the reads of a
    /// large state. By default there are no settings.
    ///
    /// # Errors
    ///
    /// If a setting is wrong and cannot be corrected.
    fn correct_settings(&mut self) -> Result<(), KernelUnavailable> {
        Ok(())
    }

    /// Counts the connections of the real servers of the given virtual servers. A virtual server that does not exist
    /// has none.
    ///
    /// # Errors
    ///
    /// If the connections cannot be read.
    fn connections(&mut self, servers: &[VirtualServerKey]) -> Result<ConnectionCounts, KernelUnavailable>;

    /// Applies a plan with [`in_phases`], and continues after a failure.
    fn apply(&mut self, plan: &Plan) -> Report;
}

/// The connections through each real server, active and inactive ones together.
pub type ConnectionCounts = BTreeMap<(VirtualServerKey, EndpointAddress), u64>;

/// The kernel cannot be used at the moment. `Display` names the subject and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {reason}")]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct KernelUnavailable {
    subject: Cow<'static, str>,
    reason: Reason,
}

impl KernelUnavailable {
    /// An error about a subject that cannot be used, or about a step that was not done.
    pub fn new(subject: impl Into<Cow<'static, str>>, reason: impl Into<Reason>) -> Self {
        Self { subject: subject.into(), reason: reason.into() }
    }

    /// The unusable part of the kernel, such as `IPVS`, `nftables` or `sysctl`, or the step that was not done.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The reason, without the subject.
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// The kernel's errno, if it gave one. `EPERM` (1) and `EACCES` (13): the caller lacks CAP_NET_ADMIN. `ENOENT` (2)
    /// with the subject `IPVS`: the kernel has no IPVS.
    pub fn errno(&self) -> Option<i32> {
        self.reason.errno()
    }
}

/// The reason for a failure: a text, in the kernel's words if it gave any, and its errno. `Display` prints the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Reason {
    text: Cow<'static, str>,
    errno: Option<i32>,
}

impl Reason {
    /// A text, with the errno (positive, as in `errno.h`) if there is one.
    pub fn new(text: impl Into<Cow<'static, str>>, errno: Option<i32>) -> Self {
        Self { text: text.into(), errno }
    }

    /// The kernel's errno, if it gave one.
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }
}

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

/// The outcome of a plan. Every change that is not listed as a failure was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Report {
    /// The changes that were not made.
    pub failures: Vec<Failure>,
    /// Further changes that [`in_phases`] asked for because of the failures, and that were made.
    pub amended: Vec<Change>,
}

/// One change that was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Failure {
    /// Its index in the plan.
    pub change: usize,
    /// The consequence for the engine's knowledge of the kernel.
    pub cause: Cause,
    /// The reason, in the kernel's words if it gave any.
    pub reason: Reason,
}

/// The consequence of a failure for the engine's knowledge of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Cause {
    /// The change was not made.
    Rejected,
    /// The change was not tried, because an earlier change failed.
    NotTried,
    /// The change was not made, because the kernel does not have its scheduler.
    NoScheduler,
    /// The change was not made, because the object exists. Another program made it, unless kube-ipvs has recorded it:
    /// then a dump omitted it.
    Exists,
    /// It is unknown if the kernel made the change. The engine must read the kernel.
    Unknown,
}
