//! The rules that keep this node silent in ARP about the addresses on our device.
//!
//! Linux answers on every device for every address that it has, and gives the source of a packet that waits for an
//! answer as its own. So each node would claim each VIP, whichever node announces it. The sysctls `arp_ignore` and
//! `arp_announce` stop that, for all addresses of the node and all programs on it. These rules are about VIPs alone.

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
    let asked = Rule::new("who asks for a VIP gets no answer", [about_vip(ArpField::Target), drop()]);
    // Who is asked notes the sender as the way to the sender's address. A probe has none (RFC 5227).
    let no_sender = set_arp_field(ArpField::Sender, [0; 4]);
    let asking =
        Rule::new("an ARP request does not announce a VIP", [about_vip(ArpField::Sender), counter(), no_sender]);
    vec![Chain::hooked("input", "filter", IN, 0, vec![asked]), Chain::hooked("output", "filter", OUT, 0, vec![asking])]
}
