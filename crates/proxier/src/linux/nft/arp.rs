//! ARP rules for the addresses on the kube-ipvs device.
//!
//! By default, Linux answers ARP on every device for every local address. It also names a packet's source address in
//! the ARP request for the packet's next hop. So each node would claim each VIP, regardless of which node announces it.
//! The sysctls `arp_ignore` and `arp_announce` stop that for all addresses of the node. These rules apply only to VIPs.

use super::{
    chain::{Chain, Hook, Rule},
    expression::{ArpField, all, arp_field, counter, drop, is_arp_request, is_in, set_arp_field},
};
use crate::set::ARP_IGNORE;

/// `NF_ARP_IN` and `NF_ARP_OUT`.
const IN: Hook = Hook::Other(0);
const OUT: Hook = Hook::Other(1);

pub(super) fn chains() -> Vec<Chain> {
    let about_vip = |field| all([is_arp_request(), arp_field(field), is_in(ARP_IGNORE)]);
    let asked = Rule::new("do not answer ARP requests for VIPs", [about_vip(ArpField::Target), drop()]);
    // The receiver of an ARP request learns the way to the sender's address. A probe has no sender address (RFC 5227).
    let no_sender = set_arp_field(ArpField::Sender, [0; 4]);
    let asking = Rule::new("do not announce VIPs in ARP requests", [about_vip(ArpField::Sender), counter(), no_sender]);
    vec![Chain::hooked("input", "filter", IN, 0, vec![asked]), Chain::hooked("output", "filter", OUT, 0, vec![asking])]
}
