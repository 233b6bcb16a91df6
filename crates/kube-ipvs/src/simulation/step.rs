//! The steps of a run, as data: a run can be printed, parsed and shortened.

use std::fmt;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::objects::{PodState, Shape, Which};

/// The settings of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct World {
    /// `--ipvs-sync-period`, in seconds.
    pub(super) period: u64,
    /// `--ipvs-min-sync-period`, in milliseconds.
    pub(super) min_sync: u64,
    /// `--drain-cap`, in seconds.
    pub(super) drain: u64,
    pub(super) scoped_arp: bool,
    pub(super) localhost: bool,
    pub(super) lacks_sh: bool,
}

impl Default for World {
    fn default() -> Self {
        Self { period: 30, min_sync: 0, drain: 60, scoped_arp: false, localhost: false, lacks_sh: false }
    }
}

/// An action of a user, a controller, the API server, the kernel, another program or a client. If it is not possible,
/// it has no effect. So a run without some of its steps is a run, too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Step {
    /// A user creates or changes a Service. The controllers write its slices.
    Service(Shape),
    DeleteService(u8),
    /// A pod appears or changes. The controllers write the slices.
    Pod {
        service: u8,
        pod: u8,
        local: bool,
        state: PodState,
    },
    /// A pod ends.
    Gone {
        service: u8,
        pod: u8,
    },
    /// The controllers spread the endpoints of a Service over `parts` slices of each family.
    Slices {
        service: u8,
        parts: u8,
    },
    DeleteSlices(u8),
    /// The stored object of a Service, or one of its slices, becomes invalid.
    Invalid {
        which: Which,
        service: u8,
    },
    Node {
        pods: u8,
        leaving: bool,
    },
    DeleteNode,
    Cidr(u8),
    DeleteCidr(u8),

    /// The API server sends `count` events of a watch, or the list if the watch needs one.
    Deliver {
        which: Which,
        count: u8,
    },
    /// The API server sends all outstanding events and lists.
    DeliverAll,
    /// The API server repeats an earlier event.
    Again {
        which: Which,
        back: u8,
    },
    /// A watch loses its next event. Only a list makes up for it.
    Lose(Which),
    /// A watch has ended and its version has expired, so it must list.
    Relist(Which),
    Outage,
    Answers,
    /// A restore of etcd undoes this number of writes.
    Restore(u8),

    /// Milliseconds pass.
    Advance(u32),
    /// Milliseconds pass while the sync loop does not run.
    Hang(u32),
    /// The wall clock jumps by seconds.
    Wall(i32),
    /// kube-ipvs is killed and starts again.
    Kill,

    /// A fault at this change of the next plan.
    Fault {
        at: u8,
        kind: Fault,
    },
    /// The kernel rejects all changes whose text contains this one.
    Reject(String),
    /// The kernel neither makes nor answers the changes whose text contains this one.
    Ignore(String),
    /// The next list lacks the objects whose text contains this one.
    Unlist(String),
    Unreadable,
    /// All faults of the kernel end.
    Calm,
    Others(Act),
    /// Another program acts at this change of the next plan.
    During {
        at: u8,
        act: Act,
    },

    /// A client, inside or outside the cluster, connects to a virtual server.
    Open {
        client: u8,
        server: u8,
        inside: bool,
    },
    Close(u8),
    /// All faults end, time passes, and the simulation checks the final state.
    Settle,
}

/// A fault at one change: see [`proxier::fake::Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fault {
    /// The kernel rejects the change with this errno.
    Reject(i32),
    Unanswered,
    AnswerLost,
    AnswersLost,
    Kill,
}

/// An action of another program. The number chooses the object.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Act {
    /// `ipvsadm --clear`
    ClearIpvs,
    /// `nft flush ruleset`
    FlushRuleset,
    /// `ip link delete kube-ipvs0`
    DeleteDevice,
    DeleteServer(u8),
    DeleteRealServer(u8),
    DisableRealServer(u8),
    DeleteElement(u8),
    RenameElement(u8),
    DeleteAddress(u8),
    AddElement(u8),
    /// It makes a virtual server under a key that a Service can have.
    AddServer(u8),
    /// It binds an address to `kube-ipvs0` that no Service has.
    AddAddress(u8),
    /// It removes a virtual server that it made.
    RemoveOwnServer(u8),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    pub(super) world: World,
    pub(super) steps: Vec<Step>,
}

/// The text of a case: the settings, then one step a line.
impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |json: serde_json::Result<String>| json.map_err(|_| fmt::Error);
        writeln!(f, "{}", line(serde_json::to_string(&self.world))?)?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{}", line(serde_json::to_string(step))?))
    }
}

impl Run {
    /// Reads a case. Lines that begin with `#` are comments.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let world = serde_json::from_str(lines.next().context("an empty case")?)?;
        let step = |line: &str| serde_json::from_str(line).with_context(|| format!("the step {line}"));
        Ok(Self { world, steps: lines.map(step).collect::<Result<_, _>>()? })
    }
}
