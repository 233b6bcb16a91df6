//! The names of what a proxy makes in the kernel.

/// The names of our nftables tables, one for each family, and of the device that holds our VIPs.
///
/// Two proxies in one network namespace need different names, and different files for [`Settings::record`]. What they
/// still share:
///
/// * Sysctls and the timeouts of IPVS. Give both the same [`Timeouts`](super::Timeouts).
/// * Virtual servers. One of a key belongs to the proxy that makes it first.
/// * Addresses. Each takes the other's VIPs for addresses of the host, so name the addresses of node ports
///   ([`NodePortAddresses::Chosen`](crate::NodePortAddresses::Chosen)).
/// * Unallocated addresses. If both have Services of one ServiceCIDR, turn [`Settings::refuse_unallocated`] off: each
///   would abort SCTP to the other's ClusterIPs.
/// * Answers that one hides from IPVS, those to the node's own connections from a node port. The other drops them.
///
/// [`Settings::record`]: super::Settings::record
/// [`Settings::refuse_unallocated`]: super::Settings::refuse_unallocated
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    table: Box<str>,
    device: Box<str>,
}

/// Why the kernel or the tools of the field would not take a name, or why it is not free.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name of the tables.
    #[error("{0:?} is no name for an nftables table: allowed are letters, digits, '-', '_' and '.', first a letter")]
    Table(String),
    /// Another program has tables of this name.
    #[error("the nftables table {0} is another program's: choose another name")]
    TableOfOthers(String),
    /// The name of the device.
    #[error("{0:?} is no name for a device: allowed are up to 15 letters, digits, '-', '_' and '.'")]
    Device(String),
}

/// kube-proxy's name for the device too, so that a takeover finds the VIPs there.
const DEVICE: &str = "kube-ipvs0";
const TABLE: &str = "kube-ipvs";

/// Of iptables on nftables, and of kube-proxy's nftables mode. What is in a table of ours and not ours is removed.
const TABLES_OF_OTHERS: [&str; 6] = ["filter", "nat", "mangle", "raw", "security", "kube-proxy"];

/// The longest names that the kernel takes, in bytes (`NFT_NAME_MAXLEN`, `IFNAMSIZ`).
const LONGEST_TABLE: usize = 255;
const LONGEST_DEVICE: usize = 15;

impl Names {
    /// # Errors
    ///
    /// When a name is none, or another program's.
    pub fn new(table: &str, device: &str) -> Result<Self, NameError> {
        let is_allowed = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        let has_letter = |name: &str| name.starts_with(|c: char| c.is_ascii_alphabetic());
        if !has_letter(table) || !is_allowed(table) || table.len() > LONGEST_TABLE {
            return Err(NameError::Table(table.into()));
        }
        if TABLES_OF_OTHERS.contains(&table) {
            return Err(NameError::TableOfOthers(table.into()));
        }
        // The kernel takes neither an empty name nor one or two dots.
        let is_dots = device.bytes().all(|byte| byte == b'.');
        if is_dots || !is_allowed(device) || device.len() > LONGEST_DEVICE {
            return Err(NameError::Device(device.into()));
        }
        Ok(Self { table: table.into(), device: device.into() })
    }

    /// The name of the nftables tables, by default `kube-ipvs`.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The name of the device, by default `kube-ipvs0`.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Whether kube-proxy gives its device the same name.
    pub(super) fn has_device_of_kube_proxy(&self) -> bool {
        *self.device == *DEVICE
    }
}

impl Default for Names {
    fn default() -> Self {
        Self { table: TABLE.into(), device: DEVICE.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_and_nft_take() {
        assert_eq!(Names::new(TABLE, DEVICE), Ok(Names::default()));
        for (table, device) in [("a", "0"), ("Proxy_2.b", "proxy-2.b_c-d.e"), (&"t".repeat(255), ".d")] {
            let names = Names::new(table, device).unwrap();
            assert_eq!((names.table(), names.device()), (table, device));
        }
    }

    #[test]
    fn other_names_are_refused_with_what_is_allowed() {
        for table in ["", "2a", "-a", "a b", "a/b", "a{", "ä", "a\n", &"t".repeat(256)] {
            assert_eq!(Names::new(table, DEVICE), Err(NameError::Table(table.into())));
        }
        for device in ["", ".", "..", "a b", "a/b", "a:0", "veth%d", "a\t", "ä", "sixteen-bytes-16"] {
            assert_eq!(Names::new(TABLE, device), Err(NameError::Device(device.into())));
        }
        assert_eq!(
            Names::new(TABLE, "sixteen-bytes-16").unwrap_err().to_string(),
            "\"sixteen-bytes-16\" is no name for a device: allowed are up to 15 letters, digits, '-', '_' and '.'"
        );
        assert_eq!(
            Names::new("filter", DEVICE).unwrap_err().to_string(),
            "the nftables table filter is another program's: choose another name"
        );
    }
}
