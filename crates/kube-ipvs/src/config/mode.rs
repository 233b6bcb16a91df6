/// `--proxy-mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// IPVS. An empty mode also means IPVS.
    #[default]
    Ipvs,
}

words!(Mode is "not a mode of kube-ipvs: use ipvs, or leave it empty": Ipvs = "ipvs");
