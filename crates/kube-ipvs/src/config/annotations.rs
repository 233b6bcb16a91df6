use std::{fmt, str::FromStr, time::Duration};

use super::OwnFlags;

/// `--annotations`: which of the annotations `kube-ipvs.io/…` count on this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Annotations {
    /// Those that concern nothing but their own Service.
    #[default]
    Safe,
    /// All of them.
    All,
    /// None.
    Off,
}

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

/// What the operator lets Services choose by annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnotationPolicy {
    /// Which annotations count.
    pub annotations: Annotations,
    /// `--drain-cap`, which no Service can go beyond.
    pub drain_cap: Duration,
}

impl Default for AnnotationPolicy {
    fn default() -> Self {
        OwnFlags::default().annotation_policy()
    }
}
