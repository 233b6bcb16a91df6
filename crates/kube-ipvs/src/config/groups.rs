//! The stanzas of the file, each with the flags that say the same.

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
    /// How often everything is compared with the kernel, such as `30s` or `1m30s`
    #[arg(id = "ipvs-sync-period", long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse_positive)]
    #[serde(with = "text")]
    pub sync_period: GoDuration,

    /// How long to wait at least from one change of the kernel to the next
    #[arg(id = "ipvs-min-sync-period", long, value_name = "DURATION", default_value = "0s")]
    #[serde(with = "text")]
    pub min_sync_period: GoDuration,

    /// How connections are spread over the endpoints
    #[arg(id = "ipvs-scheduler", long, value_name = "NAME", default_value = "rr")]
    #[serde(with = "text")]
    pub scheduler: DefaultScheduler,

    /// Address ranges of virtual servers that another program created: kube-ipvs does not change them
    #[arg(id = "ipvs-exclude-cidrs", long, value_name = "CIDR[,CIDR...]", default_value = "", action = Append)]
    #[serde(rename = "excludeCIDRs", with = "text::list")]
    pub exclude_cidrs: Ranges,

    /// Set arp_ignore to 1 and arp_announce to 2: no device answers for an address of another one
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

/// `iptables`, of which ipvs mode reads these.
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Iptables {
    /// Masquerade all traffic to ClusterIPs, that of pods too
    #[arg(id = "masquerade-all", long, value_name = "BOOL", default_value = "false", action = Set, value_parser = boolean::parse)]
    pub masquerade_all: bool,

    /// The bit of the packet mark that asks for masquerade
    #[arg(id = "iptables-masquerade-bit", long, value_name = "0..31", default_value = "14")]
    pub masquerade_bit: BoundedInt<0, 31>,
}

/// `conntrack`: what is set on the host at the start. Values are raised, never lowered, as under kube-proxy.
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Conntrack {
    /// How many connections conntrack may hold for each processor; 0: leave the limit as it is
    #[arg(id = "conntrack-max-per-core", long, value_name = "NUMBER", default_value = "32768")]
    pub max_per_core: BoundedInt<0, { i32::MAX }>,

    /// How many connections conntrack may hold at least
    #[arg(id = "conntrack-min", long, value_name = "NUMBER", default_value = "131072")]
    pub min: BoundedInt<0, { i32::MAX }>,

    /// How long conntrack remembers an idle TCP connection; 0: leave it as it is
    #[arg(id = "conntrack-tcp-timeout-established", long, value_name = "DURATION", default_value = "24h0m0s")]
    #[serde(with = "text")]
    pub tcp_established_timeout: GoDuration,

    /// How long conntrack remembers a TCP connection that waits for its second FIN; 0: leave it as it is
    #[arg(id = "conntrack-tcp-timeout-close-wait", long, value_name = "DURATION", default_value = "1h0m0s")]
    #[serde(with = "text")]
    pub tcp_close_wait_timeout: GoDuration,

    /// Let packets pass that conntrack takes for no part of any connection, and make it less strict
    #[arg(id = "conntrack-tcp-be-liberal", long, value_name = "BOOL", default_value = "false", action = Set, value_parser = boolean::parse)]
    pub tcp_be_liberal: bool,

    /// How long conntrack remembers a UDP flow without an answer; 0: leave it as it is
    #[arg(id = "conntrack-udp-timeout", long, value_name = "DURATION", default_value = "0s")]
    #[serde(with = "text")]
    pub udp_timeout: GoDuration,

    /// How long conntrack remembers a UDP flow with answers; 0: leave it as it is
    #[arg(id = "conntrack-udp-timeout-stream", long, value_name = "DURATION", default_value = "0s")]
    #[serde(with = "text")]
    pub udp_stream_timeout: GoDuration,
}

/// `clientConnection`: how the API server is reached.
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConnection {
    /// The kubeconfig file; without it the cluster's own service account
    #[arg(id = "kubeconfig", long, value_name = "FILE", default_value = "", value_parser = StringValueParser::new().map(PathBuf::from))]
    pub kubeconfig: PathBuf,

    /// The address of the API server, instead of the kubeconfig's
    #[arg(id = "master", long, value_name = "URL", default_value = "")]
    #[serde(skip)]
    pub master: String,

    /// In what form the API server is to answer
    #[arg(
        id = "kube-api-content-type",
        long,
        value_name = "TYPE",
        default_value = "application/vnd.kubernetes.protobuf",
        hide_default_value = true
    )]
    pub content_type: String,

    /// How many requests a second the API server is asked
    #[arg(id = "kube-api-qps", long, value_name = "NUMBER", default_value = "5")]
    pub qps: f32,

    /// How many requests at once
    #[arg(id = "kube-api-burst", long, value_name = "NUMBER", default_value = "10")]
    pub burst: BoundedInt<0, { i32::MAX }>,
}
