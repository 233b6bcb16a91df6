/// `--proxy-mode`: what there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// IPVS, which is also what an empty mode means here.
    #[default]
    Ipvs,
}

words!(Mode is "not what kube-ipvs does: allowed is ipvs, or nothing": Ipvs = "ipvs");
