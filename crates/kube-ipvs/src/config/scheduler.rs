use std::{fmt, str::FromStr};

/// What Linux has, each as module `ip_vs_NAME`.
const KNOWN: [&str; 14] =
    ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "mh", "fo", "ovf", "twos"];

/// `--ipvs-scheduler`: the name of a scheduler of IPVS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchedulerName(&'static str);

impl SchedulerName {
    /// The name as the kernel knows it.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl Default for SchedulerName {
    fn default() -> Self {
        Self("rr")
    }
}

impl fmt::Display for SchedulerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl FromStr for SchedulerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.trim();
        if name.is_empty() {
            return Ok(Self::default());
        }
        match KNOWN.iter().find(|known| **known == name) {
            Some(known) => Ok(Self(known)),
            None => Err(format!("{name:?} is not a scheduler of IPVS: allowed are {}", KNOWN.join(", "))),
        }
    }
}
