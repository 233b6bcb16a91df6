//! The configuration: settings of kube-proxy from flags or a file, and settings that only kube-ipvs has.
//!
//! Each field of [`Configuration`] has a flag (clap) and a name in the file (serde). An empty flag (`--cluster-cidr=`,
//! as templates of DaemonSets often render it) counts as unset, as in kube-proxy. An empty address for health checks or
//! metrics is the exception: it turns that server off. If a flag is repeated, its last value counts. Repeated list
//! flags are joined, except `--cluster-cidr`.

#[macro_use]
mod words;

pub(crate) mod boolean;
mod cidr;
mod detect_local;
mod duration;
mod file;
mod gates;
mod groups;
mod hostname;
mod listen;
mod logging;
mod mode;
mod options;
mod own;
mod ports;
mod retired;
mod scheduler;
#[cfg(test)]
mod tests;
mod text;
mod whole;
mod without_effect;

pub use cidr::{ClusterCidrs, NodePorts, Ranges};
pub use detect_local::{DetectLocal, InterfaceName, LocalMode};
pub use file::{File, read, write};
pub use gates::FeatureGates;
pub use groups::{ClientConnection, Conntrack, Iptables, Ipvs};
pub use hostname::NodeName;
pub use listen::Listen;
pub use logging::{LogFormat, Logging};
pub use mode::Mode;
pub use options::{LoadedConfig, Options};
pub use own::OwnFlags;
pub use ports::PortRanges;
pub use scheduler::DefaultScheduler;
pub use whole::BoundedInt;

pub use proxier_kubernetes::GoDuration;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::{
    ArgAction::{Append, Set},
    Args, Command, FromArgMatches,
};
use proxier::{
    Config, PodSources,
    linux::{LocalDetector, Settings, Timeouts},
};
use serde::{Deserialize, Deserializer, Serialize, de::Error};

/// The settings of kube-proxy that affect kube-ipvs, and those that only kube-ipvs has.
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[command(next_help_heading = "Flags of kube-proxy")]
#[serde(rename_all = "camelCase", default)]
pub struct Configuration {
    /// Name of this node; if not given, the host's name
    #[arg(id = "hostname-override", long, value_name = "NAME", default_value = "")]
    #[serde(with = "text")]
    pub hostname_override: NodeName,

    /// Only `ipvs`
    #[arg(id = "proxy-mode", long, value_name = "ipvs", default_value = "ipvs", hide = true)]
    #[serde(with = "text")]
    pub mode: Mode,

    /// Which of the node's addresses serve node ports: ranges, `primary`, `localhost` and `all`, in any combination; if
    /// not given, all addresses except localhost
    #[arg(id = "nodeport-addresses", long, value_name = "CIDR|primary|localhost|all[,...]", default_value = "", action = Append)]
    #[serde(with = "text::list")]
    pub node_port_addresses: NodePorts,

    /// Feature gates of Kubernetes. AllowServiceExternalIPs has an effect; kube-ipvs accepts and ignores the others of
    /// kube-proxy
    #[arg(id = "feature-gates", long, value_name = "GATE=BOOL[,...]", default_value = "", action = Append)]
    pub feature_gates: FeatureGates,

    /// How to recognize traffic from pods: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix
    #[arg(id = "detect-local-mode", long, value_name = "MODE", default_value = "ClusterCIDR")]
    #[serde(with = "text")]
    pub detect_local_mode: LocalMode,

    /// Address ranges of the pods, for --detect-local-mode ClusterCIDR: kube-ipvs masquerades traffic to a ClusterIP
    /// from any other source
    #[arg(id = "cluster-cidr", long, value_name = "CIDR[,CIDR]", default_value = "")]
    #[serde(rename = "clusterCIDR", with = "text")]
    pub cluster_cidr: ClusterCidrs,

    /// Parameters of `--detect-local-mode`.
    #[command(flatten)]
    pub detect_local: DetectLocal,

    /// IPVS.
    #[command(flatten)]
    pub ipvs: Ipvs,

    /// Masquerade.
    #[command(flatten)]
    pub iptables: Iptables,

    /// conntrack.
    #[command(flatten)]
    pub conntrack: Conntrack,

    /// The API server.
    #[command(flatten)]
    pub client_connection: ClientConnection,

    /// IP address whose family selects the default addresses for health checks and metrics
    #[arg(id = "bind-address", long, value_name = "IP", default_value = "0.0.0.0", value_parser = parse_bind_address)]
    #[serde(deserialize_with = "read_bind_address")]
    pub bind_address: IpAddr,

    /// Address for health checks: 0.0.0.0:10256 if not given; off if empty
    #[arg(
        id = "healthz-bind-address",
        long,
        value_name = "IP[:PORT]",
        default_value = "default",
        hide_default_value = true
    )]
    #[serde(with = "text")]
    pub healthz_bind_address: Listen,

    /// Address for metrics: 127.0.0.1:10249 if not given; off if empty
    #[arg(
        id = "metrics-bind-address",
        long,
        value_name = "IP[:PORT]",
        default_value = "default",
        hide_default_value = true
    )]
    #[serde(with = "text")]
    pub metrics_bind_address: Listen,

    /// Exit if kube-ipvs cannot listen at one of these addresses
    #[arg(id = "bind-address-hard-fail", long, value_name = "BOOL", default_value = "false", action = Set, value_parser = boolean::parse)]
    pub bind_address_hard_fail: bool,

    /// How reluctant the kernel is to kill this process when memory runs out, from -1000 (never) to 1000
    #[arg(id = "oom-score-adj", long, value_name = "NUMBER", default_value = "-999")]
    pub oom_score_adj: BoundedInt<-1000, 1000>,

    /// Logs.
    #[command(flatten)]
    pub logging: Logging,

    /// Settings that only kube-ipvs has.
    #[command(flatten)]
    #[serde(skip)]
    pub own: OwnFlags,
}

/// Takes defaults from the flags, so that each default is written once.
macro_rules! default_by_flags {
    ($($flags:ident),*) => {$(
        impl Default for $flags {
            fn default() -> Self {
                let command = <Self as Args>::augment_args(Command::new("defaults").no_binary_name(true));
                let matches = command.try_get_matches_from([""; 0]);
                matches.and_then(|matches| Self::from_arg_matches(&matches)).expect("all defaults are valid")
            }
        }
    )*};
}
default_by_flags!(ClientConnection, Configuration, Conntrack, Iptables, Ipvs, Logging, OwnFlags);

impl Configuration {
    /// Conflicts between values that are valid on their own.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let Ipvs { sync_period, min_sync_period, .. } = &self.ipvs;
        if min_sync_period > sync_period {
            problems.push(format!(
                "ipvs.minSyncPeriod (--ipvs-min-sync-period) is {min_sync_period}: it must not exceed ipvs.syncPeriod \
                 (--ipvs-sync-period), which is {sync_period}"
            ));
        }
        let watch = self.own.watch_timeout;
        if !(GoDuration::seconds(1)..=GoDuration::seconds(230)).contains(&watch) {
            problems.push(format!("--watch-timeout is {watch}: it must be from 1s to 230s"));
        }
        let DetectLocal { bridge_interface, interface_name_prefix } = &self.detect_local;
        let mode = self.detect_local_mode;
        let (name, field, flag) = match mode {
            LocalMode::ClusterCidr | LocalMode::NodeCidr => return problems,
            LocalMode::BridgeInterface => (bridge_interface, "bridgeInterface", "--pod-bridge-interface"),
            LocalMode::InterfaceNamePrefix => {
                (interface_name_prefix, "interfaceNamePrefix", "--pod-interface-name-prefix")
            }
        };
        if name.0.is_empty() {
            problems.push(format!("detectLocal.{field} ({flag}) is missing: detectLocalMode {mode} needs it"));
        }
        problems
    }

    /// The settings that decide the desired state.
    ///
    /// # Errors
    ///
    /// When this node's name is unknown.
    pub fn engine(&self) -> anyhow::Result<Config> {
        let mut config = Config::new(&self.hostname_override.resolve()?);
        config.node_ports = self.node_port_addresses.addresses.clone();
        config.pod_sources = match self.detect_local_mode {
            LocalMode::ClusterCidr => PodSources::Ranges(self.cluster_cidr.0.clone()),
            LocalMode::NodeCidr => PodSources::OwnNode,
            LocalMode::BridgeInterface | LocalMode::InterfaceNamePrefix => PodSources::default(),
        };
        config.localhost_node_ports = self.own.localhost_node_ports || self.node_port_addresses.localhost;
        config.scoped_arp = self.own.scoped_arp;
        config.scheduler = self.ipvs.scheduler.0;
        config.exclude_cidrs = self.ipvs.exclude_cidrs.0.clone();
        config.allow_external_ips = self.feature_gates.allow_service_external_ips();
        config.external_ip_ranges = self.own.external_ip_ranges.0.clone();
        config.reserved_ports = self.own.reserved_ports.0.clone();
        config.max_virtual_servers = self.own.max_virtual_servers.get() as usize;
        config.sync_period = self.ipvs.sync_period.0;
        config.min_sync_period = self.ipvs.min_sync_period.0;
        config.drain_cap = self.own.drain_cap.0;
        Ok(config)
    }

    /// The settings that decide how kube-ipvs programs the kernel.
    pub fn kernel(&self) -> Settings {
        let DetectLocal { bridge_interface, interface_name_prefix } = &self.detect_local;
        Settings {
            masquerade_bit: self.iptables.masquerade_bit.get() as u8,
            masquerade_all: self.iptables.masquerade_all,
            local_detector: match self.detect_local_mode {
                LocalMode::ClusterCidr | LocalMode::NodeCidr => LocalDetector::Sources,
                LocalMode::BridgeInterface => LocalDetector::Bridge(bridge_interface.0.clone()),
                LocalMode::InterfaceNamePrefix => LocalDetector::InterfacePrefix(interface_name_prefix.0.clone()),
            },
            tcp_be_liberal: self.conntrack.tcp_be_liberal,
            vip_ping: self.own.vip_ping,
            reject_unallocated_cluster_ips: self.own.reject_unallocated_cluster_ips,
            strict_arp: self.ipvs.strict_arp,
            timeouts: Timeouts {
                tcp: self.ipvs.tcp_timeout.if_set(),
                tcp_fin: self.ipvs.tcp_fin_timeout.if_set(),
                udp: self.ipvs.udp_timeout.if_set(),
            },
            takeover: self.own.takeover,
            ..Settings::default()
        }
    }

    /// The listen address for health checks, unless they are off.
    pub fn healthz_listen(&self) -> Option<SocketAddr> {
        self.healthz_bind_address.resolve(self.bind_address, &listen::HEALTHZ)
    }

    /// The listen address for metrics, unless they are off.
    pub fn metrics_listen(&self) -> Option<SocketAddr> {
        self.metrics_bind_address.resolve(self.bind_address, &listen::METRICS)
    }
}

fn parse_bind_address(text: &str) -> Result<IpAddr, String> {
    match text {
        "" => Ok(Ipv4Addr::UNSPECIFIED.into()),
        _ => text
            .parse()
            .map_err(|_| format!("{text:?} is not an IP address: use an address such as 0.0.0.0, 192.168.0.1 or ::")),
    }
}

fn read_bind_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    parse_bind_address(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}
