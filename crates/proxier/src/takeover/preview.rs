use std::{collections::BTreeSet, fmt, net::IpAddr};

use super::{Kept, KubeProxyMode, NFTABLES_MODE};
use crate::model::{Family, VirtualServerKey};

/// The objects that a takeover would adopt, remove and keep. `Display` prints one per line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Preview {
    /// The modes in which kube-proxy has left objects.
    pub modes: BTreeSet<KubeProxyMode>,
    /// The virtual servers to adopt.
    pub servers: BTreeSet<VirtualServerKey>,
    /// The addresses on `kube-ipvs0` to adopt.
    pub vips: BTreeSet<IpAddr>,
    /// The chains to remove: family, table and name.
    pub chains: Vec<(Family, Box<str>, Box<str>)>,
    /// The families in which kube-proxy's nftables table goes.
    pub tables: Vec<Family>,
    /// The ipsets to remove.
    pub sets: Vec<String>,
    /// The objects that stay, each with the reason.
    pub kept: Vec<Kept>,
}

impl fmt::Display for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.modes.iter().try_for_each(|mode| writeln!(f, "kube-proxy's {mode} mode has left objects here"))?;
        self.servers.iter().try_for_each(|key| writeln!(f, "adopt virtual server {key}"))?;
        self.vips.iter().try_for_each(|address| writeln!(f, "adopt address {address}"))?;
        for (family, table, chain) in &self.chains {
            writeln!(f, "remove chain {} {table} {chain}", nft_name(*family))?;
        }
        for family in &self.tables {
            writeln!(f, "remove table {} {NFTABLES_MODE}", nft_name(*family))?;
        }
        self.sets.iter().try_for_each(|set| writeln!(f, "remove ipset {set}"))?;
        self.kept.iter().try_for_each(|kept| writeln!(f, "keep: {kept}"))
    }
}

/// The family's name in nftables.
fn nft_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}
