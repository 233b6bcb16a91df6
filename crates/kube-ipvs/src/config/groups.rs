//! The sections of the configuration file, each with its equivalent flags.

use std::path::PathBuf;

use clap::{
    ArgAction::{Append, Set},
    builder::{StringValueParser, TypedValueParser},
};
use serde::{Deserialize, Serialize};

use super::{BoundedInt, DefaultScheduler, GoDuration, Ranges, boolean, duration, text};

/// `ipvs`.
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ipvs {
    /// How often kube-ipvs compares the whole kernel with the desired state, such as `30s` or `1m30s`. If the state is
    /// large, less often
    #[arg(id = "ipvs-sync-period", long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse_positive)]
    #[serde(with = "text")]
    pub sync_period: GoDuration,

    /// Minimum time from one change of the kernel to the next
    #[arg(id = "ipvs-min-sync-period", long, value_name = "DURATION", default_value = "0s")]
    #[serde(with = "text")]
    pub min_sync_period: GoDuration,

    /// The IPVS scheduler, which spreads connections over the endpoints
    #[arg(id = "ipvs-scheduler", long, value_name = "NAME", default_value = "rr")]
    #[serde(with = "text")]
    pub scheduler: DefaultScheduler,

    /// Address ranges of virtual servers that another program created: kube-ipvs does not change them
    #[arg(id = "ipvs-exclude-cidrs", long, value_name = "CIDR[,CIDR...]", default_value = "", action = Append)]
    #[serde(rename = "excludeCIDRs", with = "text::list")]
    pub exclude_cidrs: Ranges,

    /// Set arp_ignore to 1 and arp_announce to 2, so that no device answers for an address of another device
    #[arg(id = "ipvs-strict-arp", long, value_name = "BOOL", default_value = "false", action = Set, value_parser = boolean::parse)]
    #[serde(rename = "strictARP")]
    pub strict_arp: bool,

    /// How long IPVS remembers an idle TCP connection; 0: as long as conntrack does
    #[arg(id = "ipvs-tcp-timeout", long, value_name = "DURATION", default_value = "0s")]
    #[serde(with = "text")]
    pub tcp_timeout: GoDuration,

    /// How long IPVS remembers a TCP connection after a FIN; 0: as long as conntrack does
    #[arg(id = "ipvs-tcpfin-timeout", long, value_name = "DURATION", default_value = "0s")]
    #[serde(with = "text")]
    pub tcp_fin_timeout: GoDuration,

    /// How long IPVS remembers a UDP flow; 0: as long as conntrack does
    #[arg(id = "ipvs-udp-timeout", long, value_name = "DURATION", default_value = "0s")]
    #[serde(with = "text")]
    pub udp_timeout: GoDuration,
}

/// `iptables`: the fields that ipvs mode reads.
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Iptables {
    /// Masquerade all traffic to ClusterIPs, including that of pods
    #[arg(id = "masquerade-all", long, value_name = "BOOL", default_value = "false", action = Set, value_parser = boolean::parse)]
    pub masquerade_all: bool,

    /// The bit of the packet mark that requests masquerade
    #[arg(id = "iptables-masquerade-bit", long, value_name = "0..31", default_value = "14")]
    pub masquerade_bit: BoundedInt<0, 31>,
}

/// `conntrack`: settings of the host that kube-ipvs applies at start. It raises values and never lowers them, as
/// kube-proxy does.
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Conntrack {
    /// Maximum number of connections in conntrack per processor; 0: leave the limit unchanged
    #[arg(id = "conntrack-max-per-core", long, value_name = "NUMBER", default_value = "32768")]
    pub max_per_core: BoundedInt<0, { i32::MAX }>,

    /// Lower bound of conntrack's limit of connections
    #[arg(id = "conntrack-min", long, value_name = "NUMBER", default_value = "131072")]
    pub min: BoundedInt<0, { i32::MAX }>,

    /// How long conntrack remembers an idle TCP connection; 0: leave it unchanged
    #[arg(id = "conntrack-tcp-timeout-established", long, value_name = "DURATION", default_value = "24h0m0s")]
    #[serde(with = "text")]
    pub tcp_established_timeout: GoDuration,

    /// How long conntrack remembers a TCP connection that waits for its second FIN; 0: leave it unchanged
    #[arg(id = "conntrack-tcp-timeout-close-wait", long, value_name = "DURATION", default_value = "1h0m0s")]
    #[serde(with = "text")]
    pub tcp_close_wait_timeout: GoDuration,

    /// Let packets pass that conntrack assigns to no connection, and make conntrack less strict
    #[arg(id = "conntrack-tcp-be-liberal", long, value_name = "BOOL", default_value = "false", action = Set, value_parser = boolean::parse)]
    pub tcp_be_liberal: bool,

    /// How long conntrack remembers a UDP flow without an answer; 0: leave it unchanged
    #[arg(id = "conntrack-udp-timeout", long, value_name = "DURATION", default_value = "0s")]
    #[serde(with = "text")]
    pub udp_timeout: GoDuration,

    /// How long conntrack remembers a UDP flow with answers; 0: leave it unchanged
    #[arg(id = "conntrack-udp-timeout-stream", long, value_name = "DURATION", default_value = "0s")]
    #[serde(with = "text")]
    pub udp_stream_timeout: GoDuration,
}

/// `clientConnection`: the connection to the API server.
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConnection {
    /// The kubeconfig file; if not given, the service account of the pod
    #[arg(id = "kubeconfig", long, value_name = "FILE", default_value = "", value_parser = StringValueParser::new().map(PathBuf::from))]
    pub kubeconfig: PathBuf,

    /// The URL of the API server; overrides that in the kubeconfig
    #[arg(id = "master", long, value_name = "URL", default_value = "")]
    #[serde(skip)]
    pub master: String,

    /// Content type that kube-ipvs requests from the API server
    #[arg(
        id = "kube-api-content-type",
        long,
        value_name = "TYPE",
        default_value = "application/vnd.kubernetes.protobuf",
        hide_default_value = true
    )]
    pub content_type: String,

    /// Maximum rate of requests to the API server, per second
    #[arg(id = "kube-api-qps", long, value_name = "NUMBER", default_value = "5")]
    pub qps: f32,

    /// Maximum number of requests to the API server at once
    #[arg(id = "kube-api-burst", long, value_name = "NUMBER", default_value = "10")]
    pub burst: BoundedInt<0, { i32::MAX }>,
}
