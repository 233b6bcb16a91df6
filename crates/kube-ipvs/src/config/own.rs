use clap::ArgAction::Set;
use proxier_kubernetes::{AnnotationPolicy, Annotations};

use super::{BoundedInt, GoDuration, PortRanges, Ranges, boolean};

/// What kube-proxy does not have. These are flags only, and count beside a file too.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "What kube-proxy does not have")]
pub struct OwnFlags {
    /// Keep silent in ARP for the addresses on kube-ipvs0, whatever the sysctls say
    #[arg(id = "scoped-arp", long, value_name = "BOOL", default_value = "false", action = Set, value_parser = boolean::parse)]
    pub scoped_arp: bool,

    /// Whether VIPs answer pings
    #[arg(id = "vip-ping", long, value_name = "BOOL", default_value = "true", action = Set, value_parser = boolean::parse)]
    pub vip_ping: bool,

    /// Refuse connections to addresses of a ServiceCIDR that no Service has and that only a default route leads to
    #[arg(id = "refuse-unallocated", long, value_name = "BOOL", default_value = "true", action = Set, value_parser = boolean::parse)]
    pub refuse_unallocated: bool,

    /// Serve node ports on 127.0.0.1 too, for processes of this node
    #[arg(id = "localhost-nodeports", long, value_name = "BOOL", default_value = "false", action = Set, value_parser = boolean::parse)]
    pub localhost_node_ports: bool,

    /// Go on with what kube-proxy's ipvs mode made, without dropping a connection, and remove what it left
    #[arg(id = "takeover", long, value_name = "BOOL", default_value = "true", action = Set, value_parser = boolean::parse)]
    pub takeover: bool,

    /// Which annotations kube-ipvs.io/… count: those that concern their own Service only (safe), all, or none (off)
    #[arg(id = "annotations", long, value_name = "safe|all|off", default_value = "safe")]
    pub annotations: Annotations,

    /// How long an endpoint that left without terminating may keep its connections
    #[arg(id = "drain-cap", long, value_name = "DURATION", default_value = "10m0s")]
    pub drain_cap: GoDuration,

    /// How long a watch of the API server lasts, from 1s to 230s: a connection that has died without a sign is
    /// noticed then
    #[arg(id = "watch-timeout", long, value_name = "DURATION", default_value = "2m0s")]
    pub watch_timeout: GoDuration,

    /// The only ranges in which external IPs are served; all if not given
    #[arg(id = "external-ip-ranges", long, value_name = "CIDR[,CIDR...]", default_value = "")]
    pub external_ip_ranges: Ranges,

    /// Ports of this node's own addresses that no external IP takes
    #[arg(id = "reserved-ports", long, value_name = "PORT[-PORT][,...]", default_value_t = PortRanges::default())]
    pub reserved_ports: PortRanges,

    /// How many virtual servers one Service can have; the rest is left out and reported
    #[arg(id = "max-virtual-servers-per-service", long, value_name = "NUMBER", default_value = "10000")]
    pub max_virtual_servers: BoundedInt<1, 1_000_000>,

    /// After how long without contact with the API server an Event says so and /readyz is 503; 0: never
    #[arg(id = "out-of-contact-limit", long, value_name = "DURATION", default_value = "10m0s")]
    pub out_of_contact_limit: GoDuration,

    /// How many Services have metrics of their traffic, the oldest ones; 0: none
    #[arg(id = "service-metrics-limit", long, value_name = "NUMBER", default_value = "50")]
    pub service_metrics_limit: BoundedInt<0, 1_000_000>,
}

impl OwnFlags {
    /// What Services may choose by annotations.
    pub fn annotation_policy(&self) -> AnnotationPolicy {
        AnnotationPolicy { annotations: self.annotations, drain_cap: self.drain_cap.0 }
    }
}
