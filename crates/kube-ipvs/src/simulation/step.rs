//! The steps of a run. They are data: a run prints, is read back, and can be shortened.

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
    /// Whether the kernel lacks the scheduler `sh`.
    pub(super) lacks_sh: bool,
}

impl Default for World {
    fn default() -> Self {
        Self { period: 30, min_sync: 0, drain: 60, scoped_arp: false, localhost: false, lacks_sh: false }
    }
}

/// An action of a user, a controller, the API server, the kernel, another program or a client. If it is not possible,
/// nothing happens, so every part of a run is a run.
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
    /// The controllers spread the endpoints of a Service over so many slices of each family.
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

    /// The API server sends so many events of a watch, or the list if the watch needs one.
    Deliver {
        which: Which,
        count: u8,
    },
    /// The API server sends everything.
    DeliverAll,
    /// The API server repeats an event of the past.
    Again {
        which: Which,
        back: u8,
    },
    /// An event is lost until the next list.
    Lose(Which),
    /// The watch has ended, and its version has expired.
    Relist(Which),
    Outage,
    Answers,
    /// etcd is restored to its state so many writes ago.
    Restore(u8),

    /// Milliseconds pass.
    Advance(u32),
    /// Milliseconds pass while the loop does not run.
    Hang(u32),
    /// The wall clock jumps by seconds.
    Wall(i32),
    /// kube-ipvs is killed and starts again.
    Kill,

    /// An incident at this change of the next plan.
    Strike {
        at: u8,
        blow: Blow,
    },
    /// The kernel rejects all changes with this text.
    Refuse(String),
    /// The kernel answers no change with this text, and makes none.
    Ignore(String),
    /// The next list lacks the objects with this text.
    Unlist(String),
    Unreadable,
    /// All faults of the kernel end.
    Calm,
    /// Another program acts.
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
    /// All faults end, and time passes. Then everything must be in order.
    Settle,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Blow {
    /// The kernel rejects the change with this errno.
    Refuse(i32),
    Unanswered,
    Unconfirmed,
    Deaf,
    Kill,
}

/// An action of another program. A number chooses one of the objects.
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
    /// It makes a virtual server of its own under a key that a Service can have.
    AddServer(u8),
    /// It makes an address of its own on `kube-ipvs0`.
    AddAddress(u8),
    /// It removes a virtual server of its own.
    RemoveOwnServer(u8),
}

/// The settings and the steps.
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
