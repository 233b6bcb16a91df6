/// `--proxy-mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// IPVS. An empty mode also means IPVS.
    #[default]
    Ipvs,
}

words!(Mode is "not what kube-ipvs does: allowed is ipvs, or nothing": Ipvs = "ipvs");
