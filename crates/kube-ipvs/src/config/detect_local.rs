use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::text;

/// `--detect-local-mode`: how kube-ipvs recognizes packets from pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LocalMode {
    /// By source: a range of `--cluster-cidr`.
    #[default]
    ClusterCidr,
    /// By source: one of this Node's `spec.podCIDRs`.
    NodeCidr,
    /// By input interface: the pods' bridge.
    BridgeInterface,
    /// By input interface: the prefix of its name.
    InterfaceNamePrefix,
}

words! {
    LocalMode is "not a detect-local mode: use ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix":
    ClusterCidr = "ClusterCIDR",
    NodeCidr = "NodeCIDR",
    BridgeInterface = "BridgeInterface",
    InterfaceNamePrefix = "InterfaceNamePrefix"
}

/// The interface names for the modes `BridgeInterface` and `InterfaceNamePrefix`.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DetectLocal {
    /// The pods' bridge, for --detect-local-mode BridgeInterface
    #[arg(id = "pod-bridge-interface", long, value_name = "NAME", default_value = "")]
    #[serde(with = "text")]
    pub bridge_interface: InterfaceName,

    /// Prefix of the pods' interface names, for --detect-local-mode InterfaceNamePrefix
    #[arg(id = "pod-interface-name-prefix", long, value_name = "PREFIX", default_value = "")]
    #[serde(with = "text")]
    pub interface_name_prefix: InterfaceName,
}

/// The name of a network interface, or a prefix of names. It can be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceName(pub String);

impl FromStr for InterfaceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The kernel's rules: IFNAMSIZ less the final NUL, and `dev_valid_name`.
        if text.len() > 15 || text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
            return Err(format!(
                "{text:?} is not a valid name of an interface: use at most 15 bytes, without '/', ':' and blanks"
            ));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
