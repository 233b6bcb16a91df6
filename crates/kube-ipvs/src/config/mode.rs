use std::{fmt, str::FromStr};

/// `--proxy-mode`: what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// IPVS, which is also what an empty mode means here.
    Ipvs,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" | "ipvs" => Ok(Self::Ipvs),
            _ => Err(format!("{text:?} is not what kube-ipvs does: allowed is ipvs, or nothing")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ipvs")
    }
}
