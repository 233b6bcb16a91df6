use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    Chain, Verdict,
    names::{NODE_PORTS, SERVICES, is_of_iptables_mode},
};
use crate::model::Family;

/// A mode of kube-proxy on Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum KubeProxyMode {
    /// `--proxy-mode=ipvs`.
    Ipvs,
    /// `--proxy-mode=iptables`.
    Iptables,
    /// `--proxy-mode=nftables`.
    Nftables,
}

impl fmt::Display for KubeProxyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipvs => "ipvs",
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        })
    }
}

/// The families that kube-proxy serves, and the mode of each. `tables` are the families in which its nftables mode has
/// its table, which appears with the rules of the first sync. The other modes first make their chains. If kube-proxy
/// has Services, the rules that lead to them follow at the end of its first sync.
pub(crate) fn served_by_kube_proxy(chains: &[Chain], tables: &[Family]) -> BTreeMap<Family, KubeProxyMode> {
    let of_services = chains.iter().filter(|chain| (&*chain.id.table, &*chain.id.name) == SERVICES);
    let by_chain = of_services.filter_map(|chain| Some((chain.id.family, mode_of(chain)?)));
    by_chain.chain(tables.iter().map(|family| (*family, KubeProxyMode::Nftables))).collect()
}

/// The mode whose rules a chain for all packets to Services has.
fn mode_of(services: &Chain) -> Option<KubeProxyMode> {
    let leads_to_service = |verdict: &Verdict| match verdict {
        Verdict::Jump(to) => is_of_iptables_mode(SERVICES.0, to) && **to != *NODE_PORTS,
        _ => false,
    };
    if services.rules.iter().any(|rule| rule.uses_set) {
        return Some(KubeProxyMode::Ipvs);
    }
    services.rules.iter().any(|rule| leads_to_service(&rule.verdict)).then_some(KubeProxyMode::Iptables)
}

/// The modes in which kube-proxy has left objects on this node, by its ipsets, its chains and its tables.
pub(crate) fn modes(has_sets: bool, chains: &[Chain], tables: &[Family]) -> BTreeSet<KubeProxyMode> {
    let is_of_iptables = |chain: &Chain| is_of_iptables_mode(&chain.id.table, &chain.id.name);
    let found = [
        (KubeProxyMode::Ipvs, has_sets),
        (KubeProxyMode::Iptables, chains.iter().any(is_of_iptables)),
        (KubeProxyMode::Nftables, !tables.is_empty()),
    ];
    found.into_iter().filter(|(_, is_there)| *is_there).map(|(mode, _)| mode).collect()
}
