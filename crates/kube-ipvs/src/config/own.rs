use std::path::PathBuf;

use clap::ArgAction::Set;
use proxier_kubernetes::{AnnotationPolicy, Annotations};

use super::{BoundedInt, GoDuration, PortRanges, Ranges, boolean};

/// Settings that kube-proxy does not have. They are flags only, and count beside a file too.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Flags that kube-proxy does not have")]
pub struct OwnFlags {
    /// Suppress ARP for the addresses on kube-ipvs0, regardless of the sysctls
    #[arg(id = "scoped-arp", long, value_name = "BOOL", default_value = "false", action = Set, value_parser = boolean::parse)]
    pub scoped_arp: bool,

    /// Let VIPs answer pings
    #[arg(id = "vip-ping", long, value_name = "BOOL", default_value = "true", action = Set, value_parser = boolean::parse)]
    pub vip_ping: bool,

    /// Reject connections to addresses of a ServiceCIDR that no Service has and that only a default route reaches
    #[arg(id = "reject-unallocated-cluster-ips", long, value_name = "BOOL", default_value = "true", action = Set, value_parser = boolean::parse)]
    pub reject_unallocated_cluster_ips: bool,

    /// Serve node ports on 127.0.0.1 too, for local processes
    #[arg(id = "localhost-nodeports", long, value_name = "BOOL", default_value = "false", action = Set, value_parser = boolean::parse)]
    pub localhost_node_ports: bool,

    /// Take over from kube-proxy's ipvs mode without dropping a connection, and remove its leftovers
    #[arg(id = "takeover", long, value_name = "BOOL", default_value = "true", action = Set, value_parser = boolean::parse)]
    pub takeover: bool,

    /// Which annotations kube-ipvs.io/… have an effect: those that affect only their own Service (safe), all, or none
    /// (off)
    #[arg(id = "annotations", long, value_name = "safe|all|off", default_value = "safe")]
    pub annotations: Annotations,

    /// How long an endpoint that left without terminating can keep its connections
    #[arg(id = "drain-cap", long, value_name = "DURATION", default_value = "10m0s")]
    pub drain_cap: GoDuration,

    /// How long a watch of the API server lasts, from 1s to 230s; by then kube-ipvs detects a silently broken
    /// connection
    #[arg(id = "watch-timeout", long, value_name = "DURATION", default_value = "2m0s")]
    pub watch_timeout: GoDuration,

    /// Address ranges in which kube-ipvs serves external IPs; if not given, all addresses
    #[arg(id = "external-ip-ranges", long, value_name = "CIDR[,CIDR...]", default_value = "")]
    pub external_ip_ranges: Ranges,

    /// Ports of this node's addresses that kube-ipvs does not serve for external IPs
    #[arg(id = "reserved-ports", long, value_name = "PORT[-PORT][,...]", default_value_t = PortRanges::default())]
    pub reserved_ports: PortRanges,

    /// Maximum number of virtual servers of a Service; kube-ipvs leaves out the rest and reports it
    #[arg(id = "max-virtual-servers-per-service", long, value_name = "NUMBER", default_value = "10000")]
    pub max_virtual_servers: BoundedInt<1, 1_000_000>,

    /// After this time without contact with the API server, kube-ipvs records an Event and /readyz answers 503; 0:
    /// never
    #[arg(id = "out-of-contact-limit", long, value_name = "DURATION", default_value = "10m0s")]
    pub out_of_contact_limit: GoDuration,

    /// How many Services have traffic metrics, oldest first; 0: none
    #[arg(id = "service-metrics-limit", long, value_name = "NUMBER", default_value = "50")]
    pub service_metrics_limit: BoundedInt<0, 1_000_000>,

    /// Record the inputs, the kernel's answers and the plans in this new file, for `kube-ipvs replay`
    #[arg(id = "record", long, value_name = "FILE")]
    pub record: Option<PathBuf>,

    /// The recording ends at this size, in MiB
    #[arg(id = "record-limit", long, value_name = "NUMBER", default_value = "64")]
    pub record_limit: BoundedInt<1, 100_000>,
}

impl OwnFlags {
    /// The policy for annotations of Services.
    pub fn annotation_policy(&self) -> AnnotationPolicy {
        AnnotationPolicy { annotations: self.annotations, drain_cap: self.drain_cap.0 }
    }
}
