use std::collections::BTreeSet;

use super::{Chain, names::SERVICES};
use crate::model::Family;

/// The families that kube-proxy's ipvs mode serves by rules in nftables. kube-proxy first makes its chains and empty
/// ipsets. If it has Services, the rules that look up ports follow at the end of its first sync.
pub(crate) fn served_by_kube_proxy(chains: &[Chain]) -> BTreeSet<Family> {
    let of_services = chains.iter().filter(|chain| (&*chain.id.table, &*chain.id.name) == SERVICES);
    let at_work = of_services.filter(|chain| chain.rules.iter().any(|rule| rule.uses_set));
    at_work.map(|chain| chain.id.family).collect()
}
