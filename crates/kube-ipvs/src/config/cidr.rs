use std::{fmt, str::FromStr};

use ipnet::IpNet;
use proxier::NodePortAddresses;

use super::text::{items, join};

/// A list of address ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(pub Vec<IpNet>);

impl FromStr for Ranges {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        items(text).map(parse_range).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(&self.0))
    }
}

/// `--cluster-cidr`: the address ranges of pods, at most one per family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterCidrs(pub Vec<IpNet>);

impl FromStr for ClusterCidrs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Ranges(ranges) = text.parse()?;
        let v4 = ranges.iter().filter(|range| range.addr().is_ipv4()).count();
        if v4 > 1 || ranges.len() - v4 > 1 {
            return Err("at most one IPv4 and one IPv6 range are allowed".into());
        }
        Ok(Self(ranges))
    }
}

impl fmt::Display for ClusterCidrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(&self.0))
    }
}

/// `--nodeport-addresses`: ranges and the words `primary`, `localhost` and `all`, in any combination. An empty list
/// means all addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodePorts {
    /// The addresses at which other hosts reach node ports.
    pub addresses: NodePortAddresses,
    /// Whether 127.0.0.1 serves node ports too, for local processes.
    pub localhost: bool,
}

const ALL: &str = "all";
const LOCALHOST: &str = "localhost";
const PRIMARY: &str = "primary";

impl FromStr for NodePorts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut all, mut localhost, mut primary) = (false, false, false);
        let mut ranges = Vec::new();
        for item in items(text) {
            match item {
                ALL => all = true,
                LOCALHOST => localhost = true,
                PRIMARY => primary = true,
                _ => match parse_range(item) {
                    Ok(range) => ranges.push(range),
                    Err(error) => return Err(format!("{error}, or {PRIMARY}, {LOCALHOST} or {ALL}")),
                },
            }
        }
        let is_unset = !localhost && !primary && ranges.is_empty();
        let addresses = match all || is_unset {
            true => NodePortAddresses::All,
            false => NodePortAddresses::Chosen { primary, ranges },
        };
        Ok(Self { addresses, localhost })
    }
}

impl fmt::Display for NodePorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut items: Vec<String> = Vec::new();
        let mut word = |is_said: bool, word: &str| items.extend(is_said.then(|| word.to_owned()));
        match &self.addresses {
            NodePortAddresses::All => word(self.localhost, ALL),
            NodePortAddresses::Chosen { primary, .. } => word(*primary, PRIMARY),
        }
        word(self.localhost, LOCALHOST);
        if let NodePortAddresses::Chosen { ranges, .. } = &self.addresses {
            items.extend(ranges.iter().map(ToString::to_string));
        }
        f.write_str(&items.join(","))
    }
}

/// Drops the bits beyond the prefix, as Go's `net.ParseCIDR` does: `10.1.2.3/8` is `10.0.0.0/8`.
fn parse_range(item: &str) -> Result<IpNet, String> {
    item.parse::<IpNet>()
        .map(|range| range.trunc())
        .map_err(|_| format!("{item:?} is not an address range: use a range such as 10.244.0.0/16 or fd00:10::/64"))
}
