//! The stanzas of the file, each with the flags that say the same.

use std::path::PathBuf;

use clap::ArgAction;
use serde::{Deserialize, Serialize};

use super::{BoundedInt, DefaultScheduler, ExcludeCidrs, GoDuration, boolean, duration, text};

/// `ipvs`.
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ipvs {
    /// How often everything is compared with the kernel, such as `30s` or `1m30s`
    #[arg(id = "ipvs-sync-period", long, value_name = "DURATION", default_value_t = Self::default().sync_period, value_parser = duration::parse_positive)]
    #[serde(with = "text")]
    pub sync_period: GoDuration,

    /// How long to wait at least from one change of the kernel to the next
    #[arg(id = "ipvs-min-sync-period", long, value_name = "DURATION", default_value_t = Self::default().min_sync_period)]
    #[serde(with = "text")]
    pub min_sync_period: GoDuration,

    /// How connections are spread over the endpoints
    #[arg(id = "ipvs-scheduler", long, value_name = "NAME", default_value_t = Self::default().scheduler)]
    #[serde(with = "text")]
    pub scheduler: DefaultScheduler,

    /// Address ranges of virtual servers that another program created: kube-ipvs does not change them
    #[arg(
        id = "ipvs-exclude-cidrs",
        long,
        value_name = "CIDR[,CIDR...]",
        default_value = "",
        hide_default_value = true,
        action = ArgAction::Append
    )]
    #[serde(rename = "excludeCIDRs", with = "text::list")]
    pub exclude_cidrs: ExcludeCidrs,

    /// Set arp_ignore to 1 and arp_announce to 2: no device answers for an address of another one
    #[arg(id = "ipvs-strict-arp", long, num_args = 0..=1, require_equals = true, action = ArgAction::Set, default_value = "false", default_missing_value = "true", hide_default_value = true, hide_possible_values = true, value_name = "BOOL", value_parser = boolean::parse)]
    #[serde(rename = "strictARP")]
    pub strict_arp: bool,

    /// How long IPVS remembers an idle TCP connection; 0: as long as conntrack does
    #[arg(id = "ipvs-tcp-timeout", long, value_name = "DURATION", default_value_t = Self::default().tcp_timeout)]
    #[serde(with = "text")]
    pub tcp_timeout: GoDuration,

    /// How long IPVS remembers a TCP connection after a FIN; 0: as long as conntrack does
    #[arg(id = "ipvs-tcpfin-timeout", long, value_name = "DURATION", default_value_t = Self::default().tcp_fin_timeout)]
    #[serde(with = "text")]
    pub tcp_fin_timeout: GoDuration,

    /// How long IPVS remembers a UDP flow; 0: as long as conntrack does
    #[arg(id = "ipvs-udp-timeout", long, value_name = "DURATION", default_value_t = Self::default().udp_timeout)]
    #[serde(with = "text")]
    pub udp_timeout: GoDuration,
}

impl Default for Ipvs {
    fn default() -> Self {
        Self {
            sync_period: GoDuration::seconds(30),
            min_sync_period: GoDuration::default(),
            scheduler: DefaultScheduler::default(),
            exclude_cidrs: ExcludeCidrs::default(),
            strict_arp: false,
            tcp_timeout: GoDuration::default(),
            tcp_fin_timeout: GoDuration::default(),
            udp_timeout: GoDuration::default(),
        }
    }
}

/// `iptables`, of which ipvs mode reads these.
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Iptables {
    /// Masquerade all traffic to ClusterIPs, that of pods too
    #[arg(id = "masquerade-all", long, num_args = 0..=1, require_equals = true, action = ArgAction::Set, default_value = "false", default_missing_value = "true", hide_default_value = true, hide_possible_values = true, value_name = "BOOL", value_parser = boolean::parse)]
    pub masquerade_all: bool,

    /// The bit of the packet mark that asks for masquerade
    #[arg(id = "iptables-masquerade-bit", long, value_name = "0..31", default_value_t = Self::default().masquerade_bit)]
    pub masquerade_bit: BoundedInt<0, 31>,
}

impl Default for Iptables {
    fn default() -> Self {
        Self { masquerade_all: false, masquerade_bit: BoundedInt::new(14) }
    }
}

/// `conntrack`: what is set on the host at the start. Values are raised, never lowered, as under kube-proxy.
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Conntrack {
    /// How many connections conntrack may hold for each processor; 0: leave the limit as it is
    #[arg(id = "conntrack-max-per-core", long, value_name = "NUMBER", default_value_t = Self::default().max_per_core)]
    pub max_per_core: BoundedInt<0, { i32::MAX }>,

    /// How many connections conntrack may hold at least
    #[arg(id = "conntrack-min", long, value_name = "NUMBER", default_value_t = Self::default().min)]
    pub min: BoundedInt<0, { i32::MAX }>,

    /// How long conntrack remembers an idle TCP connection; 0: leave it as it is
    #[arg(id = "conntrack-tcp-timeout-established", long, value_name = "DURATION", default_value_t = Self::default().tcp_established_timeout)]
    #[serde(with = "text")]
    pub tcp_established_timeout: GoDuration,

    /// How long conntrack remembers a TCP connection that waits for its second FIN; 0: leave it as it is
    #[arg(id = "conntrack-tcp-timeout-close-wait", long, value_name = "DURATION", default_value_t = Self::default().tcp_close_wait_timeout)]
    #[serde(with = "text")]
    pub tcp_close_wait_timeout: GoDuration,

    /// Let packets pass that conntrack takes for no part of any connection, and make it less strict
    #[arg(id = "conntrack-tcp-be-liberal", long, num_args = 0..=1, require_equals = true, action = ArgAction::Set, default_value = "false", default_missing_value = "true", hide_default_value = true, hide_possible_values = true, value_name = "BOOL", value_parser = boolean::parse)]
    pub tcp_be_liberal: bool,

    /// How long conntrack remembers a UDP flow without an answer; 0: leave it as it is
    #[arg(id = "conntrack-udp-timeout", long, value_name = "DURATION", default_value_t = Self::default().udp_timeout)]
    #[serde(with = "text")]
    pub udp_timeout: GoDuration,

    /// How long conntrack remembers a UDP flow with answers; 0: leave it as it is
    #[arg(id = "conntrack-udp-timeout-stream", long, value_name = "DURATION", default_value_t = Self::default().udp_stream_timeout)]
    #[serde(with = "text")]
    pub udp_stream_timeout: GoDuration,
}

impl Default for Conntrack {
    fn default() -> Self {
        Self {
            max_per_core: BoundedInt::new(32 * 1024),
            min: BoundedInt::new(128 * 1024),
            tcp_established_timeout: GoDuration::seconds(24 * 3600),
            tcp_close_wait_timeout: GoDuration::seconds(3600),
            tcp_be_liberal: false,
            udp_timeout: GoDuration::default(),
            udp_stream_timeout: GoDuration::default(),
        }
    }
}

/// `clientConnection`: how the API server is reached.
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConnection {
    /// The kubeconfig file; without it the cluster's own service account
    #[arg(id = "kubeconfig", long, value_name = "FILE", default_value = "", hide_default_value = true, value_parser = parse_path)]
    pub kubeconfig: PathBuf,

    /// The address of the API server, instead of the kubeconfig's
    #[arg(id = "master", long, value_name = "URL", default_value = "", hide_default_value = true)]
    #[serde(skip)]
    pub master: String,

    /// In what form the API server is to answer
    #[arg(id = "kube-api-content-type", long, value_name = "TYPE", default_value_t = Self::default().content_type, hide_default_value = true)]
    pub content_type: String,

    /// How many requests a second the API server is asked
    #[arg(id = "kube-api-qps", long, value_name = "NUMBER", default_value_t = Self::default().qps, allow_negative_numbers = true)]
    pub qps: f32,

    /// How many requests at once
    #[arg(id = "kube-api-burst", long, value_name = "NUMBER", default_value_t = Self::default().burst)]
    pub burst: BoundedInt<0, { i32::MAX }>,
}

impl Default for ClientConnection {
    fn default() -> Self {
        Self {
            kubeconfig: PathBuf::new(),
            master: String::new(),
            content_type: "application/vnd.kubernetes.protobuf".into(),
            qps: 5.0,
            burst: BoundedInt::new(10),
        }
    }
}

/// A path, or nothing.
fn parse_path(text: &str) -> Result<PathBuf, std::convert::Infallible> {
    Ok(text.into())
}
