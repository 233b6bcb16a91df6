//! `--against kube-proxy=PATH[,mode]`: the program to compare with.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};

const PROGRAM: &str = "kube-proxy";
/// The first is the default.
const MODES: [&str; 3] = ["nftables", "ipvs", "iptables"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) path: PathBuf,
    /// The mode of kube-proxy.
    pub(super) mode: &'static str,
}

impl FromStr for Peer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (program, rest) = text.split_once('=').context("write kube-proxy=PATH")?;
        ensure!(program == PROGRAM, "{program:?} is unknown: there is only {PROGRAM}");
        let (path, mode) = rest.split_once(',').unwrap_or((rest, MODES[0]));
        ensure!(!path.is_empty(), "the path is empty");
        let Some(mode) = MODES.into_iter().find(|known| *known == mode) else {
            bail!("{mode:?} is no mode of {PROGRAM}: there are {}", MODES.join(", "));
        };
        Ok(Self { path: path.into(), mode })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_without_a_mode_is_kube_proxy_in_nftables_mode() {
        let parse = |text: &str| text.parse::<Peer>().unwrap();
        assert_eq!(parse("kube-proxy=/a/b"), Peer { path: "/a/b".into(), mode: "nftables" });
        assert_eq!(parse("kube-proxy=b,ipvs"), Peer { path: "b".into(), mode: "ipvs" });
    }

    #[test]
    fn peer_with_an_unknown_program_or_mode_is_refused() {
        let error = |text: &str| text.parse::<Peer>().unwrap_err().to_string();
        assert_eq!(error("/a/b"), "write kube-proxy=PATH");
        assert_eq!(error("cilium=/a/b"), "\"cilium\" is unknown: there is only kube-proxy");
        assert_eq!(error("kube-proxy=,ipvs"), "the path is empty");
        let modes = "\"userspace\" is no mode of kube-proxy: there are nftables, ipvs, iptables";
        assert_eq!(error("kube-proxy=/a,userspace"), modes);
    }
}
