//! Recordings: the inputs of the sync loop, the kernel's answers and the plans. The engine is deterministic, so a
//! replay of a recording makes the same plans on any machine.
//!
//! A recording has one JSON value in each line: an [`Entry`]. It has only fields of objects that the engine reads.
//!
//! | part | role |
//! |---|---|
//! | [`Recorded`] | the loop of the daemon, which records its inputs |
//! | `kernel` | the kernel of that loop, which records its answers |
//! | `file` | writes a recording of limited size, and reads one |
//! | [`replay()`] | feeds a recording to the engine of this version, and compares the plans |
//! | `anonymous` | replaces names and addresses |

mod anonymous;
mod file;
mod kernel;
mod recorded;
mod replay;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipvs_netlink::VirtualServer;
use proxier::{
    Completeness, Config, Plan,
    cluster::EndpointAddress,
    kernel::{KernelUnavailable, Report},
    linux::Drift,
    model::{Event, NodeAddress, VirtualServerKey},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use anonymous::anonymous;
pub use file::{Recording, create, read};
pub use recorded::Recorded;
pub use replay::{Difference, Replay, replay};

/// A line of a recording. Times count from the start of the daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Entry<'a> {
    /// The first line.
    Start {
        /// The version of kube-ipvs.
        version: Cow<'a, str>,
        /// The settings of the engine.
        config: Cow<'a, Config>,
        /// The addresses of the host.
        addresses: Cow<'a, BTreeSet<NodeAddress>>,
        /// Whether names and addresses were replaced. The engine orders real servers by a hash of them.
        #[serde(default)]
        anonymous: bool,
    },
    /// An object changed.
    Event(Cow<'a, Event>),
    /// The source says whether all objects are known.
    Complete(Cow<'a, Completeness>),
    /// The kernel reported changes by other programs.
    Notice {
        /// When the loop received them.
        at: Duration,
        /// The reported changes.
        drifts: Cow<'a, [Drift]>,
    },
    /// A sync begins. The following lines are the kernel's answers to it.
    Sync {
        /// When it began.
        at: Duration,
        /// Whether it precedes the first complete lists.
        early: bool,
    },
    /// The answer of an operation of the kernel.
    Answer(Answer),
    /// The sync is over.
    Synced {
        /// When it ended, if it changed the kernel.
        end: Option<Duration>,
    },
}

/// The kernel's answer to one call of the engine. `None` in an answer: it is as expected from earlier answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    /// The tables, the device and the sysctls exist.
    Prepared(Result<(), KernelUnavailable>),
    /// The parts of the state that differ from the expected state.
    State(Result<Map<String, Value>, KernelUnavailable>),
    /// The virtual servers that the engine asked for, without their real servers.
    VirtualServers(Result<Option<BTreeMap<VirtualServerKey, VirtualServer>>, KernelUnavailable>),
    /// The settings of the kernel are correct.
    Settings(Result<(), KernelUnavailable>),
    /// The connections of real servers.
    Connections(Result<Vec<(VirtualServerKey, EndpointAddress, u64)>, KernelUnavailable>),
    /// A plan was made.
    Applied {
        /// Its changes, as text.
        plan: Vec<String>,
        /// The changes that failed.
        report: Report,
    },
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.changes().iter().map(ToString::to_string).collect()
}
