//! kube-proxy's flags, spelled as kube-proxy spells them.
//!
//! A flag that is given empty (`--cluster-cidr=`, as templates of DaemonSets often end up) is as good as
//! absent, and of a flag that is given twice the last one counts: kube-proxy's flag library does the same.

mod cidr;
mod duration;
mod hostname;
mod scheduler;
#[cfg(test)]
mod tests;

pub use cidr::{ClusterCidrs, ExcludeCidrs};
pub use duration::{ParseGoDurationError, format_go_duration, parse_go_duration};
pub use hostname::{HostnameError, NodeName};
pub(crate) use scheduler::parse as parse_scheduler;

use std::time::Duration;

use ipvs_netlink::Scheduler;
use proxier::NodePortAddresses;

/// The flags that decide what is programmed. `run`, `diff` and `explain` flatten them into theirs.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "What is served, as kube-proxy's flags say it")]
pub struct ProxyFlags {
    /// Name of this node, instead of the host's own name
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true,
        overrides_with = "hostname_override"
    )]
    pub hostname_override: NodeName,

    /// Address ranges of the pods: traffic to a ClusterIP from anywhere else is masqueraded
    #[arg(
        long,
        value_name = "CIDR[,CIDR]",
        default_value = "",
        hide_default_value = true,
        overrides_with = "cluster_cidr"
    )]
    pub cluster_cidr: ClusterCidrs,

    /// Which of the node's addresses serve node ports: ranges, or `primary`; all of them if not given
    #[arg(
        long,
        value_name = "CIDR[,CIDR...]|primary",
        default_value = "",
        hide_default_value = true,
        value_parser = cidr::parse_node_port_addresses,
        overrides_with = "nodeport_addresses"
    )]
    pub nodeport_addresses: NodePortAddresses,

    /// How connections are spread over the endpoints
    #[arg(long, value_name = "NAME", default_value = "rr", value_parser = scheduler::parse, overrides_with = "ipvs_scheduler")]
    pub ipvs_scheduler: Scheduler,

    /// Ranges of virtual servers that somebody else made and that are to be left alone
    #[arg(
        long,
        value_name = "CIDR[,CIDR...]",
        default_value = "",
        hide_default_value = true,
        overrides_with = "ipvs_exclude_cidrs"
    )]
    pub ipvs_exclude_cidrs: ExcludeCidrs,

    /// How often everything is compared with the kernel, such as `30s` or `1m30s`
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse_positive, overrides_with = "ipvs_sync_period")]
    pub ipvs_sync_period: Duration,
}

impl Default for ProxyFlags {
    fn default() -> Self {
        Self {
            hostname_override: NodeName::default(),
            cluster_cidr: ClusterCidrs::default(),
            nodeport_addresses: NodePortAddresses::All,
            ipvs_scheduler: Scheduler::RR,
            ipvs_exclude_cidrs: ExcludeCidrs::default(),
            ipvs_sync_period: Duration::from_secs(30),
        }
    }
}
