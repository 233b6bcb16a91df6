//! The annotations that the operator allows.

use std::{fmt, str::FromStr, time::Duration};

use crate::GoDuration;

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
            _ => Err(format!("{text:?} is not one of safe, all, off")),
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
    /// Sets an option, which has its default so far. `needed` is the least policy that allows other values.
    pub(crate) fn set<T: PartialEq>(&self, option: &mut T, value: T, needed: Annotations) -> Result<(), String> {
        if *option == value {
            return Ok(());
        }
        match (self.annotations, needed) {
            (Annotations::All, _) | (Annotations::Safe, Annotations::Safe) => {
                *option = value;
                Ok(())
            }
            (Annotations::Off, _) => Err("this node allows no annotations (--annotations=off)".into()),
            (Annotations::Safe, _) => {
                Err("this value needs --annotations=all, and this node has --annotations=safe".into())
            }
        }
    }

    /// A drain time, unless it is longer than the drain cap.
    pub(crate) fn capped(&self, GoDuration(time): GoDuration) -> Result<Duration, String> {
        if time > self.drain_cap {
            let cap = GoDuration(self.drain_cap);
            return Err(format!("is longer than --drain-cap, {cap}, which applies instead"));
        }
        Ok(time)
    }
}
