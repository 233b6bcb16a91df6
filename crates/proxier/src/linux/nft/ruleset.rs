//! The rules. They do not depend on the number of Services: only set elements do.

mod conditions;

use std::ops::RangeInclusive;

use super::{
    chain::{Chain, Hook, Rule},
    expression::*,
};
use crate::{
    linux::Settings,
    model::{Family, Protocol},
    set::{
        ALLOWED, GATEWAYS, HAIRPIN, HEALTH_CHECKS, KeySet, POD_SOURCES, REMOTE_PODS, SERVICE_RANGES, SHORT_CIRCUITS,
        VIPS,
    },
};

/// A port on which no program listens (`tcpmux`).
const CLOSED_PORT: u16 = 1;

/// All placeholders.
const HIDDEN: RangeInclusive<u8> = 250..=252;

/// The placeholder for a protocol between the chains `hide` and `show`. No protocol has this number.
fn hidden(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 250,
        Protocol::Udp => 251,
        Protocol::Sctp => 252,
    }
}

/// All chains of one family. A chain comes after the chains that it refers to.
///
/// IPVS has the priorities 98 and 99 in input, and -99 and -98 in output. In these hooks, the chains `unscheduled` and
/// `unallocated` come after IPVS, the others before it. The kernel runs all nat chains of a hook at one priority, -100
/// in prerouting and output. Their own priorities only order them among each other. So `input` sees the destination
/// after a short circuit, and `output` sees the destination that the process chose.
pub(super) fn chains(family: Family, settings: &Settings) -> Vec<Chain> {
    use Hook::{Forward, LocalIn, LocalOut, PostRouting, PreRouting};
    let rules = Rules { family, settings };
    vec![
        Chain::plain("reject-chain", rules.reject_chain()),
        Chain::plain("unserved", rules.unserved()),
        Chain::plain("to-service", rules.to_service()),
        Chain::plain("from-node", rules.sent_by_node()),
        Chain::plain("hide", rules.hide()),
        Chain::plain("own-answers", rules.own_answers()),
        Chain::plain("show", rules.show()),
        Chain::hooked("firewall-in", "filter", PreRouting, -110, rules.firewall_in()),
        Chain::hooked("nat-in", "nat", PreRouting, -105, rules.nat(rules.inside(), all([]))),
        Chain::hooked("nat-out", "nat", LocalOut, -105, rules.nat(all([]), rules.lost())),
        Chain::hooked("input", "filter", LocalIn, 90, rules.input()),
        Chain::hooked("unscheduled", "filter", LocalIn, 100, rules.unscheduled_in()),
        Chain::hooked("output", "filter", LocalOut, -150, rules.output()),
        Chain::hooked("unallocated", "filter", LocalOut, -97, rules.unallocated_out()),
        Chain::hooked("forward", "filter", Forward, 0, rules.forward()),
        Chain::hooked("masquerade", "nat", PostRouting, 100, rules.masquerade()),
        Chain::hooked("clear-mark", "filter", PostRouting, 110, rules.clear_mark()),
    ]
}

struct Rules<'a> {
    family: Family,
    settings: &'a Settings,
}

impl Rules<'_> {
    fn reject_chain(&self) -> Vec<Rule> {
        vec![
            Rule::new(
                "accept SCTP: the node itself aborts it, see nat-in and nat-out",
                [protocol_is(Protocol::Sctp.number()), accept()],
            ),
            // TCP ignores an ICMP error while the client's connect() is still on the stack, as between two namespaces
            // of one host. It would then retry after a second. Hosts also limit the rate of ICMP errors.
            Rule::new("reject TCP by a reset", [protocol_is(Protocol::Tcp.number()), reset()]),
            Rule::new("reject other protocols by ICMP", [reject(self.family)]),
        ]
    }

    fn unserved(&self) -> Vec<Rule> {
        const ICMP: u8 = 1;
        const ICMP_V6: u8 = 58;
        let icmp = by(self.family, ICMP, ICMP_V6);
        let mut rules = Vec::new();
        if self.settings.vip_ping {
            rules.push(Rule::new("VIPs answer pings", [protocol_is(icmp), accept()]));
        }
        rules.extend([
            Rule::new("health checks of load balancers", [self.has_in(KEY, HEALTH_CHECKS), accept()]),
            Rule::new("a virtual server of another program", [self.key_in(KeySet::Foreign), accept()]),
            Rule::new(
                "a port without a virtual server, even if this node listens on it",
                [state_new(), goto("reject-chain")],
            ),
        ]);
        rules
    }

    fn to_service(&self) -> Vec<Rule> {
        let mut rules = self.without_endpoints();
        let comment = "policy Local, no endpoint on this node, and no short circuit";
        rules.push(Rule::new(comment, [self.key_in(KeySet::NoLocalEndpointsExternal), state_new(), drop()]));
        rules.push(
            self.mark_if("masquerade all clients: the endpoint sees this node", self.key_in(KeySet::MasqueradeAlways)),
        );
        if self.settings.masquerade_all {
            rules.push(self.mark_if("masquerade-all", self.key_in(KeySet::ClusterIps)));
        }
        rules.push(Rule::new("pods keep their source address", [self.inside(), return_()]));
        let outside = "masquerade clients outside the cluster that use a ClusterIP";
        rules.push(self.mark_if(outside, all([self.outside(), self.key_in(KeySet::ClusterIps)])));
        rules.push(
            self.mark_if("masquerade clients of external addresses with policy Cluster", self.key_in(KeySet::External)),
        );
        rules
    }

    fn sent_by_node(&self) -> Vec<Rule> {
        let mut rules = vec![self.firewall()];
        rules.extend(self.without_endpoints());
        rules.push(self.mark_if("masquerade node processes whose source is the VIP itself", self.source_in(VIPS)));
        let elsewhere = "masquerade node processes whose source can be a ClusterIP on another link";
        rules.push(self.mark_if(elsewhere, self.to_cluster_ip_elsewhere()));
        let own_address = "masquerade node processes: endpoints can lack a route to their source";
        rules.push(self.mark_if(own_address, self.key_in(KeySet::MasqueradeAlways)));
        if self.settings.masquerade_all {
            rules.push(self.mark_if("masquerade-all", self.key_in(KeySet::ClusterIps)));
        }
        rules
    }

    /// The rules that reject or drop new connections for lack of endpoints.
    fn without_endpoints(&self) -> Vec<Rule> {
        vec![
            Rule::new(
                "reject clients that took no short circuit",
                [self.key_in(KeySet::ShortCircuitTarget), not_diverted(), goto("reject-chain")],
            ),
            Rule::new(
                "no endpoints: reject at once",
                [self.key_in(KeySet::NoEndpoints), state_new(), goto("reject-chain")],
            ),
            Rule::new(
                "policy Local, and no endpoint on this node",
                [self.key_in(KeySet::NoLocalEndpoints), state_new(), drop()],
            ),
        ]
    }

    fn firewall_in(&self) -> Vec<Rule> {
        let mut rules = vec![self.established()];
        if self.family == Family::V4 {
            // With `route_localnet`, hosts of the LAN would reach listeners on 127.0.0.1 (CVE-2020-8558). The rule is
            // always present, because the sysctl outlives the program that set it.
            rules.push(Rule::new(
                "only processes of this node reach 127.0.0.1",
                [to_localhost(), comes_not_by("lo"), drop()],
            ));
        }
        rules.push(self.firewall());
        rules
    }

    fn firewall(&self) -> Rule {
        use Field::{Destination, Port, Protocol, Source};
        let not_allowed = self.has_not_in([Destination, Protocol, Port, Source], ALLOWED);
        Rule::new("loadBalancerSourceRanges", [self.key_in(KeySet::Firewall), not_allowed, drop()])
    }

    /// `inside` matches packets from within the cluster. `lost` matches packets that take a default route, in hooks
    /// that know the route.
    fn nat(&self, inside: Expressions, lost: Expressions) -> Vec<Rule> {
        // Linux's SCTP ignores ICMP port errors and obeys an ABORT. The node's own stack sends an ABORT for a closed
        // port.
        let abort = |comment, condition, to_closed| {
            Rule::new(comment, [protocol_is(Protocol::Sctp.number()), condition, counter(), to_closed])
        };
        let closed = || dnat_to_port(self.family, CLOSED_PORT);
        let not_served = all([self.key_not_in(KeySet::Served), self.key_not_in(KeySet::Foreign)]);
        let mut rules = vec![
            abort("SCTP without endpoints: the node itself aborts it", self.key_in(KeySet::NoEndpoints), closed()),
            abort("SCTP that took no short circuit", self.key_in(KeySet::ShortCircuitTarget), closed()),
            abort("SCTP to a port without a virtual server", all([self.to_vip(), not_served]), closed()),
        ];
        if self.settings.reject_unallocated_cluster_ips {
            // A DNAT of the port alone would not reach the node's stack, because the address is not local.
            let unallocated = all([self.has_not_in([Field::Destination], VIPS), self.unallocated(), lost]);
            let closed = redirect_to_port(CLOSED_PORT);
            rules.push(abort("SCTP to an unallocated ClusterIP", unallocated, closed));
        }
        if !inside.is_empty() {
            let elsewhere = [self.source_in(REMOTE_PODS), return_()];
            rules.push(Rule::new("the policy Local applies to pods of other nodes", elsewhere));
        }
        let to_node = all([inside.clone(), self.key_in(KeySet::MasqueradeInside)]);
        rules.push(self.mark_if("masquerade clients in the cluster: answers return through this node", to_node));
        let divert = dnat_by(self.family, SHORT_CIRCUITS);
        rules.push(Rule::new(
            "short circuit: clients in the cluster get all endpoints despite policy Local",
            [inside, divert],
        ));
        rules
    }

    /// The first rules see packets of known connections too, unlike the others.
    fn input(&self) -> Vec<Rule> {
        // Otherwise `show` would turn them into TCP, UDP or SCTP after all rules that match these protocols.
        let from_outside = "drop packets from outside with a protocol number of the chain hide";
        let mut rules = vec![
            Rule::new(from_outside, [next_header_in(self.family, HIDDEN), drop()]),
            Rule::new("an answer, perhaps to this node's own connection", [in_reply_direction(), goto("own-answers")]),
        ];
        rules.extend(self.to_own_addresses("to-service"));
        rules
    }

    fn output(&self) -> Vec<Rule> {
        self.to_own_addresses("from-node").into()
    }

    /// `served` is the chain for packets to a virtual server.
    fn to_own_addresses(&self, served: &str) -> [Rule; 4] {
        [
            self.established(),
            self.untracked(),
            Rule::new("a virtual server of kube-ipvs", [self.key_in(KeySet::Served), goto(served)]),
            Rule::new("a VIP, on a port that kube-ipvs does not serve", [self.to_vip(), goto("unserved")]),
        ]
    }

    /// Hides packets from IPVS that another program takes for itself. It has a ClusterIP on a link of its own, and
    /// exempts its ports there from conntrack, as `NodeLocal DNSCache` does. Otherwise IPVS would send them past that
    /// program. Without conntrack, `forward` would also drop the endpoint's SYN+ACK.
    fn untracked(&self) -> Rule {
        let comment = "an untracked packet to a ClusterIP on another link: hide it from IPVS";
        Rule::new(comment, [state_untracked(), self.to_cluster_ip_elsewhere(), goto("hide")])
    }

    /// Matches a port of a ClusterIP that kube-ipvs has not bound, because another link of the node has it.
    fn to_cluster_ip_elsewhere(&self) -> Expressions {
        all([self.key_in(KeySet::ClusterIps), self.has_not_in([Field::Destination], VIPS)])
    }

    /// Hides replies to this node's own connections from IPVS. IPVS takes a SYN+ACK or any datagram for a first packet.
    /// So it would treat a reply to a connection from a node port as a client's packet to that node port.
    ///
    /// The direction in conntrack does not identify a reply: after a server's late packet, conntrack takes a client's
    /// packet for the reply. So the rule matches the source of the connection.
    fn own_answers(&self) -> Vec<Rule> {
        let from_node_port = all([original_source(self.family), is_in(KeySet::Served.name())]);
        vec![Rule::new(
            "an answer to this node's own connection from a node port: hide it from IPVS",
            [from_node_port, self.originally_not_served(), goto("hide")],
        )]
    }

    /// IPVS ignores packets of unknown protocols.
    fn hide(&self) -> Vec<Rule> {
        self.replace_protocols("hide it from IPVS", |protocol| (protocol.number(), hidden(protocol)))
    }

    fn show(&self) -> Vec<Rule> {
        self.replace_protocols("restore it after IPVS", |protocol| (hidden(protocol), protocol.number()))
    }

    fn replace_protocols(&self, comment: &'static str, numbers: impl Fn(Protocol) -> (u8, u8)) -> Vec<Rule> {
        let replace = |protocol| {
            let (from, to) = numbers(protocol);
            Rule::new(comment, [next_header_is(self.family, from), set_next_header(self.family, to)])
        };
        Protocol::ALL.into_iter().map(replace).collect()
    }

    /// Rejects packets that IPVS did not schedule. Their virtual server is not made yet, the kernel rejected it, or
    /// another program removed it. Or the client sends from port 20, which IPVS ignores. Without these rules, the
    /// packets would reach listeners of this node.
    ///
    /// The node's own stack resets TCP packets that belong to no connection. Its reset takes the reverse path of the
    /// packet, also through a short circuit.
    fn unscheduled(&self) -> [Rule; 2] {
        let first_packets =
            [all([protocol_is(Protocol::Tcp.number()), opens_tcp()]), protocol_is(Protocol::Udp.number())];
        first_packets.map(|first_packet| {
            let to_server = all([self.to_vip(), self.key_in(KeySet::Served)]);
            // Without NAT, a packet that IPVS scheduled still has the VIP as its destination.
            let by_nat = self.key_not_in(KeySet::DirectReturn);
            let comment = "IPVS did not schedule it: no listener of this node gets packets for a Service";
            Rule::new(comment, [first_packet, to_server, by_nat, goto("reject-chain")])
        })
    }

    /// A hidden packet leaves by `goto`: after a `jump`, the other rules would still see the placeholder as its
    /// protocol. None of them applies to it.
    fn unscheduled_in(&self) -> Vec<Rule> {
        let is_hidden = Rule::new("hidden from IPVS", [next_header_in(self.family, HIDDEN), goto("show")]);
        [is_hidden, self.established()].into_iter().chain(self.unscheduled()).collect()
    }

    fn unallocated_out(&self) -> Vec<Rule> {
        let mut rules = self.unscheduled_in();
        rules.push(Rule::new("a VIP: the chain output has handled it", [self.to_vip(), accept()]));
        rules.extend(self.reject_unallocated_cluster_ips());
        rules
    }

    fn forward(&self) -> Vec<Rule> {
        let mut rules = vec![self.established()];
        if !self.settings.tcp_be_liberal {
            let from = [Field::Source, Field::Protocol, Field::SourcePort];
            let answer = self.has_in(from, KeySet::DirectReturn.name());
            let comment = "an endpoint's direct answer, for example to a tunneled packet";
            rules.push(Rule::new(comment, [answer, accept()]));
            // Otherwise a late packet that conntrack does not know would reach the client with the pod's address, and
            // the client would reset the connection.
            rules.push(Rule::new("drop packets that conntrack calls invalid", [state_invalid(), drop()]));
        }
        rules.extend(self.reject_unallocated_cluster_ips());
        rules
    }

    /// Rejects new connections to unallocated ClusterIPs that the node would send to a router, which sends them back.
    /// An address to which another route leads is in use, regardless of the ServiceCIDR. So is an address that a
    /// virtual server selected.
    fn reject_unallocated_cluster_ips(&self) -> Option<Rule> {
        let lost = all([self.unallocated(), state_new(), self.lost()]);
        let unallocated = [lost, self.originally_not_served(), goto("reject-chain")];
        let comment = "an unallocated ClusterIP: the packet would loop between nodes and router";
        self.settings.reject_unallocated_cluster_ips.then(|| Rule::new(comment, unallocated))
    }

    /// Matches a destination in a ServiceCIDR that is not a pod's address.
    fn unallocated(&self) -> Expressions {
        let to = [Field::Destination];
        all([self.has_in(to, SERVICE_RANGES), self.has_not_in(to, POD_SOURCES)])
    }

    /// Matches a default gateway as the next hop.
    fn lost(&self) -> Expressions {
        all([next_hop(self.family), is_in(GATEWAYS)])
    }

    fn masquerade(&self) -> Vec<Rule> {
        use Field::{Destination, Port, Protocol, Source};
        let to_itself = self.has_in([Source, Destination, Protocol, Port], HAIRPIN);
        vec![
            Rule::new("masquerade by the mark", [mark_has(self.settings.masquerade_mark()), masquerade()]),
            Rule::new("a pod that reaches itself through a Service", [to_itself, masquerade()]),
        ]
    }

    fn clear_mark(&self) -> Vec<Rule> {
        // A separate filter chain, because the nat chain sees only the first packet of a connection. Later packets
        // would leave the node with the mark.
        let mark = self.settings.masquerade_mark();
        vec![Rule::new("clear the masquerade mark", [mark_has(mark), clear_mark(mark)])]
    }

    fn established(&self) -> Rule {
        Rule::new("established connections", [state_established(), accept()])
    }

    fn mark_if(&self, comment: &'static str, condition: Expressions) -> Rule {
        Rule::new(comment, [condition, set_mark(self.settings.masquerade_mark())])
    }
}
