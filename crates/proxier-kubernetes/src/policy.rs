//! The annotations that the operator allows.

use std::{fmt, mem::take, str::FromStr, time::Duration};

use ipvs_netlink::Scheduler;
use proxier::model::{Forwarding, ServiceOptions, UdpScheduling, Weight};

use crate::{
    Reasons,
    annotations::{WEIGHT, invalid},
    format_go_duration,
};

/// The schedulers that any Service can choose: kube-proxy's own examples, whose modules the kernel loads without harm.
const SAFE_SCHEDULERS: [Scheduler; 6] =
    [Scheduler::RR, Scheduler::WRR, Scheduler::LC, Scheduler::WLC, Scheduler::SH, Scheduler::MH];

/// Which of the annotations `kube-ipvs.io/…` have an effect on this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Annotations {
    /// Annotations that affect only their own Service.
    #[default]
    Safe,
    /// All annotations. Users who can write Services can then make every node load scheduler modules and tunnel
    /// packets.
    All,
    /// No annotations.
    Off,
}

/// The values of kube-ipvs' `--annotations`: `safe`, `all` or `off`. Empty is the default.
impl FromStr for Annotations {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "safe" | "" => Ok(Self::Safe),
            "all" => Ok(Self::All),
            "off" => Ok(Self::Off),
            _ => Err(format!("{text:?} is none of safe, all, off")),
        }
    }
}

impl fmt::Display for Annotations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safe => "safe",
            Self::All => "all",
            Self::Off => "off",
        })
    }
}

/// The choices that the operator allows Services to make by annotations. Messages name the flags by which kube-ipvs
/// sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnotationPolicy {
    /// Which annotations have an effect: `--annotations`.
    pub annotations: Annotations,
    /// The longest allowed `max-drain-time`: `--drain-cap`. It should equal
    /// [`Config::drain_cap`](proxier::Config::drain_cap).
    pub drain_cap: Duration,
}

/// The safe annotations, and ten minutes, as in [`proxier::Config`].
impl Default for AnnotationPolicy {
    fn default() -> Self {
        Self { annotations: Annotations::Safe, drain_cap: Duration::from_secs(600) }
    }
}

impl AnnotationPolicy {
    /// Removes the options that the Service is not allowed to choose.
    pub(crate) fn restrict(&self, options: &mut ServiceOptions, ignored: &mut Reasons) {
        let mut refuse = |name: &str, message: String| ignored.extend([invalid(name, message)]);
        if options.max_drain_time.take_if(|time| *time > self.drain_cap).is_some() {
            let cap = format_go_duration(self.drain_cap);
            refuse("max-drain-time", format!("is longer than --drain-cap, {cap}, which counts instead"));
        }
        if self.annotations == Annotations::All {
            return;
        }
        let mut refuse = |name| refuse(name, self.refusal());
        if options.scheduler.take_if(|scheduler| !self.allows(*scheduler)).is_some() {
            refuse("scheduler");
        }
        if take(&mut options.forwarding) != Forwarding::Masq {
            refuse("forwarding");
        }
        if take(&mut options.udp_scheduling) != UdpScheduling::Flow {
            refuse("udp-scheduling");
        }
        if self.annotations == Annotations::Off {
            let weights = [
                (options.hash_on.is_some(), "hash-on"),
                (options.hash_fallback.is_some(), "hash-fallback"),
                (options.local_weight != 1, "local-endpoint-weight"),
                (!options.node_weights.is_empty(), "node-weights"),
                (options.max_drain_time.is_some(), "max-drain-time"),
            ];
            weights.iter().filter(|(is_chosen, _)| *is_chosen).for_each(|(_, name)| refuse(name));
            *options = ServiceOptions::DEFAULT;
        }
    }

    pub(crate) fn restrict_weight(&self, weight: &mut Weight, ignored: &mut Reasons) {
        if self.annotations == Annotations::Off && *weight != 1 {
            *weight = 1;
            ignored.extend([invalid(WEIGHT, self.refusal())]);
        }
    }

    fn allows(&self, scheduler: Scheduler) -> bool {
        self.annotations == Annotations::Safe && SAFE_SCHEDULERS.contains(&scheduler)
    }

    fn refusal(&self) -> String {
        match self.annotations {
            Annotations::Off => "no annotation counts on this node (--annotations=off)".into(),
            annotations => format!("this node allows it only with --annotations=all, and has {annotations}"),
        }
    }
}
