//! The rules. They are the same whatever the number of Services: all that varies are set elements.

use netlink_packet_netfilter::nftables::{Expressions, InetHookNumber};

use super::{
    chain::{Chain, Rule},
    expression::*,
};
use crate::{
    linux::{LocalDetector, Settings},
    model::{Family, Protocol},
    set::{
        ALLOWED, GATEWAYS, HAIRPIN, HEALTH_CHECKS, KeySet, OUTSIDE, POD_SOURCES, REMOTE_PODS, SERVICE_RANGES,
        SHORT_CIRCUITS, VIPS,
    },
};

/// A port that no program listens on, `tcpmux`.
const CLOSED_PORT: u16 = 1;

/// The number that stands for a protocol between two hooks. No protocol has this number.
fn hidden(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 250,
        Protocol::Udp => 251,
        Protocol::Sctp => 252,
    }
}

/// All chains of one family, those first that others refer to.
///
/// IPVS sits at 98 and 99 in input and at -99 and -98 in output. Our chains come before, except those that see what
/// IPVS has left: `show`, `unscheduled` and `unallocated`. The kernel runs all nat chains of a hook at one place, -100
/// in prerouting and output, whatever their priority, which orders them among themselves. So `input` sees where a short
/// cut has led, and `output` sees what the process asked for.
pub(super) fn chains(family: Family, settings: &Settings) -> Vec<Chain> {
    use InetHookNumber::{Forward, LocalIn, LocalOut, PostRouting, PreRouting};
    let rules = Rules { family, settings };
    vec![
        Chain::plain("refuse", rules.refuse()),
        Chain::plain("unserved", rules.unserved()),
        Chain::plain("to-service", rules.to_service()),
        Chain::plain("from-node", rules.sent_by_node()),
        Chain::plain("hide", rules.hide()),
        Chain::hooked("firewall-in", "filter", PreRouting, -110, rules.firewall_in()),
        Chain::hooked("nat-in", "nat", PreRouting, -105, rules.nat(rules.inside(), Vec::new())),
        Chain::hooked("nat-out", "nat", LocalOut, -105, rules.nat(Vec::new(), rules.lost())),
        Chain::hooked("input", "filter", LocalIn, 90, rules.input()),
        Chain::hooked("own-answers", "filter", LocalIn, 95, rules.own_answers()),
        Chain::hooked("show", "filter", LocalIn, 100, rules.show()),
        Chain::hooked("unscheduled", "filter", LocalIn, 105, rules.unscheduled_in()),
        Chain::hooked("output", "filter", LocalOut, -150, rules.output()),
        Chain::hooked("unallocated", "filter", LocalOut, 0, rules.unallocated_out()),
        Chain::hooked("forward", "filter", Forward, 0, rules.forward()),
        Chain::hooked("masquerade", "nat", PostRouting, 100, rules.masquerade()),
        Chain::hooked("clear-mark", "filter", PostRouting, 110, rules.clear_mark()),
    ]
}

/// The rules of one family.
struct Rules<'a> {
    family: Family,
    settings: &'a Settings,
}

impl Rules<'_> {
    fn refuse(&self) -> Vec<Rule> {
        vec![
            Rule::new(
                "SCTP goes on: the node itself aborts it, see nat-in and nat-out",
                [protocol_is(Protocol::Sctp.number()), vec![accept()]],
            ),
            // TCP ignores an ICMP error while the client's own connect() is still on the stack, as between two
            // namespaces of one host, and then tries again after a second; hosts also limit their rate.
            Rule::new("TCP by a reset", [protocol_is(Protocol::Tcp.number()), vec![counter(), reset()]]),
            Rule::new("everything else by ICMP", [vec![counter(), reject(self.family)]]),
        ]
    }

    fn unserved(&self) -> Vec<Rule> {
        const ICMP: u8 = 1;
        const ICMP_V6: u8 = 58;
        let icmp = match self.family {
            Family::V4 => ICMP,
            Family::V6 => ICMP_V6,
        };
        let mut rules = Vec::new();
        if self.settings.vip_ping {
            rules.push(Rule::new("VIPs answer pings", [protocol_is(icmp), vec![accept()]]));
        }
        rules.extend([
            Rule::new("load balancers ask for health", [self.key_in_set(HEALTH_CHECKS), vec![accept()]]),
            Rule::new("a virtual server of another program", [self.key_in(KeySet::Foreign), vec![accept()]]),
            Rule::new(
                "ports without a virtual server, this node's own listeners included",
                [state_new(), vec![goto("refuse")]],
            ),
        ]);
        rules
    }

    fn to_service(&self) -> Vec<Rule> {
        let mut rules = self.nobody_there();
        let drop = vec![counter(), drop()];
        let comment = "no endpoints on this node, and the policy is Local: no short circuit has led here";
        rules.push(Rule::new(comment, [self.key_in(KeySet::NoLocalEndpointsExternal), state_new(), drop]));
        rules.push(self.mark_if(
            "the endpoint sees this node, whichever client asks",
            self.key_in(KeySet::MasqueradeAlways),
        ));
        if self.settings.masquerade_all {
            rules.push(self.mark_if("masquerade-all", self.key_in(KeySet::ClusterIps)));
        }
        rules.push(Rule::new("pods keep their address", [self.inside(), vec![return_()]]));
        let outside = "ClusterIPs: what comes from outside the cluster";
        rules.push(self.mark_if(outside, [self.outside(), self.key_in(KeySet::ClusterIps)].concat()));
        rules.push(self.mark_if("external traffic that any node may answer", self.key_in(KeySet::External)));
        rules
    }

    fn sent_by_node(&self) -> Vec<Rule> {
        let mut rules = vec![self.firewall()];
        rules.extend(self.nobody_there());
        rules.push(self.mark_if("a node process takes the VIP itself as its source", self.source_in(VIPS)));
        let own_address = "or the node's address, which others may have no way to";
        rules.push(self.mark_if(own_address, self.key_in(KeySet::MasqueradeAlways)));
        if self.settings.masquerade_all {
            rules.push(self.mark_if("masquerade-all", self.key_in(KeySet::ClusterIps)));
        }
        rules
    }

    /// The rules that reject or drop new connections that no endpoint takes.
    fn nobody_there(&self) -> Vec<Rule> {
        vec![
            Rule::new(
                "reached by a short circuit only",
                [self.key_in(KeySet::ShortCircuitTarget), not_diverted(), vec![goto("refuse")]],
            ),
            Rule::new(
                "no endpoints: refuse at once",
                [self.key_in(KeySet::NoEndpoints), state_new(), vec![goto("refuse")]],
            ),
            Rule::new(
                "no endpoints on this node, and the policy is Local",
                [self.key_in(KeySet::NoLocalEndpoints), state_new(), vec![counter(), drop()]],
            ),
        ]
    }

    fn firewall_in(&self) -> Vec<Rule> {
        let mut rules = vec![self.established()];
        if self.family == Family::V4 {
            // Where 127.0.0.1 is routed, hosts of the LAN would reach what listens there (CVE-2020-8558). The rule is
            // there always: the sysctl outlives the program that needed it.
            rules.push(Rule::new(
                "127.0.0.1 is for processes of this node",
                [to_localhost(), comes_not_by("lo"), vec![counter(), drop()]],
            ));
        }
        rules.push(self.firewall());
        rules
    }

    fn firewall(&self) -> Rule {
        let with_source = [&KEY[..], &[Field::Source]].concat();
        let not_allowed = [load(self.family, &with_source), vec![is_not_in(ALLOWED)]].concat();
        let drop = vec![counter(), drop()];
        Rule::new("loadBalancerSourceRanges", [self.key_in(KeySet::Firewall), not_allowed, drop])
    }

    /// `inside`: what tells that a packet comes from within the cluster. `lost`: what tells that it goes by a default
    /// route, where that is known.
    fn nat(&self, inside: Vec<Expressions>, lost: Vec<Expressions>) -> Vec<Rule> {
        // Linux's SCTP does not listen to ICMP errors about ports, but to an abort, which the node's own stack
        // gives at a port that is closed.
        let abort = |comment, condition, to_closed| {
            Rule::new(comment, [protocol_is(Protocol::Sctp.number()), condition, vec![counter()], to_closed])
        };
        let closed = || dnat_to_port(self.family, CLOSED_PORT);
        let not_in = |set: KeySet| [load(self.family, &KEY), vec![is_not_in(set.name())]].concat();
        let not_served = [not_in(KeySet::Served), not_in(KeySet::Foreign)].concat();
        let mut rules = vec![
            abort(
                "SCTP without endpoints: aborted by the node itself",
                self.key_in(KeySet::NoEndpoints),
                closed(),
            ),
            abort(
                "SCTP to what is reached by a short circuit only",
                self.key_in(KeySet::ShortCircuitTarget),
                closed(),
            ),
            abort("SCTP to a port without a virtual server", [self.to_vip(), not_served].concat(), closed()),
        ];
        if self.settings.refuse_unallocated {
            // The address is not this node's, so that the port alone would not lead to its stack.
            let unallocated = [self.not_to_vip(), self.unallocated(), lost].concat();
            let closed = redirect_to_port(CLOSED_PORT);
            rules.push(abort("SCTP to an unallocated ClusterIP", unallocated, closed));
        }
        if !inside.is_empty() {
            let elsewhere = [self.source_in(REMOTE_PODS), vec![return_()]];
            rules.push(Rule::new(
                "a pod of another node is outside: the policy Local is for it too",
                elsewhere,
            ));
        }
        let to_node = [inside.clone(), self.key_in(KeySet::MasqueradeInside)].concat();
        rules.push(self.mark_if("a pod of another node gets its answer by way of this one", to_node));
        let divert = dnat_by(self.family, SHORT_CIRCUITS);
        rules
            .push(Rule::new("the policy Local is for outsiders: others get all endpoints", [inside, divert]));
        rules
    }

    fn input(&self) -> Vec<Rule> {
        vec![
            self.established(),
            Rule::new("a virtual server of ours", [self.key_in(KeySet::Served), vec![goto("to-service")]]),
            Rule::new("a VIP, and nothing that it serves", [self.to_vip(), vec![goto("unserved")]]),
        ]
    }

    /// Answers to the node's own connections. IPVS takes a SYN+ACK and any datagram for a first packet, and so the
    /// answer to a connection that left from a node port for a client of that. What conntrack calls an answer may be a
    /// client's question too: after a server's late answer, which conntrack took for a first packet. So it counts
    /// where the connection was opened from.
    fn own_answers(&self) -> Vec<Rule> {
        let not_in = |set: KeySet| [original_key(self.family), vec![is_not_in(set.name())]].concat();
        let not_by_ipvs = [not_in(KeySet::Served), not_in(KeySet::Foreign)].concat();
        let from_node_port = [original_source(self.family), vec![is_in(KeySet::Served.name())]].concat();
        // The chain `show` would turn them into TCP, UDP or SCTP, behind all rules that match these protocols.
        let from_outside = Protocol::ALL.map(|protocol| {
            let numbered = next_header_is(self.family, hidden(protocol));
            Rule::new(
                "a protocol number of the chain hide, from outside",
                [numbered, vec![counter(), drop()]],
            )
        });
        let mut rules = Vec::from(from_outside);
        rules.push(Rule::new("no answer", [in_original_direction(), vec![accept()]]));
        rules.push(Rule::new(
            "an answer to a node port that no virtual server sent there: IPVS must not see it",
            [from_node_port, not_by_ipvs, vec![goto("hide")]],
        ));
        rules
    }

    /// IPVS lets pass what is of a protocol that it does not know.
    fn hide(&self) -> Vec<Rule> {
        let hide = |protocol: Protocol| {
            let (known, unknown) = (protocol.number(), hidden(protocol));
            Rule::new("until it is past IPVS", self.replace_protocol(known, unknown))
        };
        Protocol::ALL.into_iter().map(hide).collect()
    }

    fn show(&self) -> Vec<Rule> {
        let show = |protocol: Protocol| {
            let (known, unknown) = (protocol.number(), hidden(protocol));
            Rule::new("it is past IPVS", self.replace_protocol(unknown, known))
        };
        Protocol::ALL.into_iter().map(show).collect()
    }

    /// Rejects packets that IPVS was to schedule and did not. Their virtual server is not made yet, the kernel rejected
    /// it, or another program removed it. Or the client sends from port 20, which IPVS ignores. Without these rules,
    /// the node's own listeners would get the packets.
    ///
    /// What is part of no connection the node itself resets: its reset goes back the way that the packet came, by a
    /// short circuit too.
    fn unscheduled(&self) -> [Rule; 2] {
        let first_packets = [
            [protocol_is(Protocol::Tcp.number()), opens_tcp()].concat(),
            protocol_is(Protocol::Udp.number()),
        ];
        first_packets.map(|first_packet| {
            let to_server = [self.to_vip(), self.key_in(KeySet::Served)].concat();
            // Without NAT a packet keeps the VIP also when IPVS has scheduled it.
            let by_nat = [load(self.family, &KEY), vec![is_not_in(KeySet::DirectReturn.name())]].concat();
            let comment = "IPVS did not schedule it: no listener of this node gets what is for a Service";
            Rule::new(comment, [first_packet, to_server, by_nat, vec![goto("refuse")]])
        })
    }

    fn unscheduled_in(&self) -> Vec<Rule> {
        [self.established()].into_iter().chain(self.unscheduled()).collect()
    }

    fn replace_protocol(&self, from: u8, to: u8) -> [Vec<Expressions>; 2] {
        [next_header_is(self.family, from), set_next_header(self.family, to)]
    }

    fn output(&self) -> Vec<Rule> {
        vec![
            self.established(),
            Rule::new("a virtual server of ours", [self.key_in(KeySet::Served), vec![goto("from-node")]]),
            Rule::new("a VIP, and nothing that it serves", [self.to_vip(), vec![goto("unserved")]]),
        ]
    }

    fn unallocated_out(&self) -> Vec<Rule> {
        let mut rules = self.unscheduled_in();
        rules.push(Rule::new("a VIP: it has been judged in output", [self.to_vip(), vec![accept()]]));
        rules.extend(self.refuse_unallocated());
        rules
    }

    fn forward(&self) -> Vec<Rule> {
        let mut rules = vec![self.established()];
        if !self.settings.tcp_be_liberal {
            let answer = load(self.family, &[Field::Source, Field::Protocol, Field::SourcePort]);
            let answered_directly = vec![is_in(KeySet::DirectReturn.name()), accept()];
            let comment = "an answer to what came another way, as by a tunnel";
            rules.push(Rule::new(comment, [answer, answered_directly]));
            let drop = vec![counter(), drop()];
            // Else a late packet that conntrack does not know would reach the client with the pod's address, and the
            // client would reset the connection.
            rules.push(Rule::new("no part of any connection", [state_invalid(), drop]));
        }
        rules.extend(self.refuse_unallocated());
        rules
    }

    /// Rejects packets that are not handled yet, if the node would send them to a router that sends them back. If
    /// another route leads to an address, that address is in use, whatever the ServiceCIDR says. So is an address that
    /// a virtual server has chosen.
    fn refuse_unallocated(&self) -> Option<Rule> {
        let not_in = |set: KeySet| [original_key(self.family), vec![is_not_in(set.name())]].concat();
        let not_translated = [not_in(KeySet::Served), not_in(KeySet::Foreign)].concat();
        let refused = [self.unallocated(), state_new(), self.lost(), not_translated, vec![goto("refuse")]];
        let comment = "an unallocated ClusterIP: the packet would loop between nodes and router";
        self.settings.refuse_unallocated.then(|| Rule::new(comment, refused))
    }

    /// To an address of a ServiceCIDR that no pod has.
    fn unallocated(&self) -> Vec<Expressions> {
        let not_to_pod = [load(self.family, &[Field::Destination]), vec![is_not_in(POD_SOURCES)]].concat();
        [self.in_service_range(), not_to_pod].concat()
    }

    /// By way of a default gateway.
    fn lost(&self) -> Vec<Expressions> {
        vec![next_hop(self.family), is_in(GATEWAYS)]
    }

    fn masquerade(&self) -> Vec<Rule> {
        use Field::{Destination, Port, Protocol, Source};
        let to_itself =
            [load(self.family, &[Source, Destination, Protocol, Port]), vec![is_in(HAIRPIN)]].concat();
        let masquerade = || vec![counter(), masquerade()];
        vec![
            Rule::new("asked for by the mark", [mark_has(self.settings.masquerade_mark()), masquerade()]),
            Rule::new("a pod that reaches itself through a Service", [to_itself, masquerade()]),
        ]
    }

    fn clear_mark(&self) -> Vec<Rule> {
        // In a chain of its own: the nat chain sees the first packet of a connection only, and later ones would
        // leave the node marked.
        let mark = self.settings.masquerade_mark();
        vec![Rule::new("ours alone to see", [mark_has(mark), clear_mark(mark)])]
    }

    fn established(&self) -> Rule {
        Rule::new("established connections", [state_established(), vec![accept()]])
    }

    fn mark_if(&self, comment: &'static str, condition: Vec<Expressions>) -> Rule {
        Rule::new(comment, [condition, set_mark(self.settings.masquerade_mark())])
    }

    fn key_in(&self, set: KeySet) -> Vec<Expressions> {
        self.key_in_set(set.name())
    }

    fn key_in_set(&self, name: &str) -> Vec<Expressions> {
        [load(self.family, &KEY), vec![is_in(name)]].concat()
    }

    fn to_vip(&self) -> Vec<Expressions> {
        [load(self.family, &[Field::Destination]), vec![is_in(VIPS)]].concat()
    }

    fn not_to_vip(&self) -> Vec<Expressions> {
        [load(self.family, &[Field::Destination]), vec![is_not_in(VIPS)]].concat()
    }

    fn in_service_range(&self) -> Vec<Expressions> {
        [load(self.family, &[Field::Destination]), vec![is_in(SERVICE_RANGES)]].concat()
    }

    /// What tells that a packet comes from within the cluster.
    fn inside(&self) -> Vec<Expressions> {
        match &self.settings.local_detector {
            LocalDetector::Sources => self.source_in(POD_SOURCES),
            LocalDetector::Bridge(name) => comes_by(name, false),
            LocalDetector::InterfacePrefix(prefix) => comes_by(prefix, true),
        }
    }

    /// What tells that a packet which does not come from within the cluster comes from outside.
    fn outside(&self) -> Vec<Expressions> {
        match &self.settings.local_detector {
            LocalDetector::Sources => self.source_in(OUTSIDE),
            LocalDetector::Bridge(_) | LocalDetector::InterfacePrefix(_) => Vec::new(),
        }
    }

    fn source_in(&self, set: &str) -> Vec<Expressions> {
        [load(self.family, &[Field::Source]), vec![is_in(set)]].concat()
    }
}
