//! The names of a proxy's objects in the kernel.

/// The names of the nftables tables, one table for each family, and of the device that holds the VIPs.
///
/// Two proxies in one network namespace need different names, and different files for [`Settings::record`]. They still
/// share:
///
/// * Sysctls and the timeouts of IPVS. Give both the same [`Timeouts`](super::Timeouts).
/// * Virtual servers. The first proxy that makes a virtual server owns it.
/// * Addresses. Each proxy takes the other's VIPs for addresses of the host, so name the addresses of node ports
///   ([`NodePortAddresses::Chosen`](crate::NodePortAddresses::Chosen)).
/// * Unallocated addresses. If both have Services of one ServiceCIDR, turn [`Settings::refuse_unallocated`] off: each
///   would abort SCTP to the other's ClusterIPs.
/// * Replies to the node's own connections from a node port. One proxy hides them from IPVS, and the other drops them.
///
/// [`Settings::record`]: super::Settings::record
/// [`Settings::refuse_unallocated`]: super::Settings::refuse_unallocated
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    table: Box<str>,
    device: Box<str>,
}

/// A name that the kernel or the `nft` tool does not accept, or that another program uses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name of the tables is invalid.
    #[error(
        "{0:?} is not a valid name for an nftables table: begin with a letter, and use letters, digits, '-', '_' \
             and '.'"
    )]
    Table(String),
    /// Another program has tables of this name.
    #[error("another program uses the nftables table {0}: choose another name")]
    TableOfOthers(String),
    /// The name of the device is invalid.
    #[error("{0:?} is not a valid name for a device: use up to 15 letters, digits, '-', '_' and '.'")]
    Device(String),
}

/// The name of kube-proxy's device, so that a takeover finds the VIPs there.
const DEVICE: &str = "kube-ipvs0";
const TABLE: &str = "kube-ipvs";

/// Tables of iptables-nft, and of kube-proxy's nftables mode. kube-ipvs removes unknown chains from its own tables.
const TABLES_OF_OTHERS: [&str; 6] = ["filter", "nat", "mangle", "raw", "security", "kube-proxy"];

/// In bytes (`NFT_NAME_MAXLEN`, `IFNAMSIZ`).
const LONGEST_TABLE: usize = 255;
const LONGEST_DEVICE: usize = 15;

impl Names {
    /// # Errors
    ///
    /// If a name is invalid or belongs to another program.
    pub fn new(table: &str, device: &str) -> Result<Self, NameError> {
        let is_allowed = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        let has_letter = |name: &str| name.starts_with(|c: char| c.is_ascii_alphabetic());
        if !has_letter(table) || !is_allowed(table) || table.len() > LONGEST_TABLE {
            return Err(NameError::Table(table.into()));
        }
        if TABLES_OF_OTHERS.contains(&table) {
            return Err(NameError::TableOfOthers(table.into()));
        }
        // The kernel accepts neither an empty name nor one or two dots.
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
    fn names_valid_for_kernel_and_nft_are_accepted() {
        assert_eq!(Names::new(TABLE, DEVICE), Ok(Names::default()));
        for (table, device) in [("a", "0"), ("Proxy_2.b", "proxy-2.b_c-d.e"), (&"t".repeat(255), ".d")] {
            let names = Names::new(table, device).unwrap();
            assert_eq!((names.table(), names.device()), (table, device));
        }
    }

    #[test]
    fn invalid_names_are_rejected_with_the_allowed_characters() {
        for table in ["", "2a", "-a", "a b", "a/b", "a{", "ä", "a\n", &"t".repeat(256)] {
            assert_eq!(Names::new(table, DEVICE), Err(NameError::Table(table.into())));
        }
        for device in ["", ".", "..", "a b", "a/b", "a:0", "veth%d", "a\t", "ä", "sixteen-bytes-16"] {
            assert_eq!(Names::new(TABLE, device), Err(NameError::Device(device.into())));
        }
        assert_eq!(
            Names::new(TABLE, "sixteen-bytes-16").unwrap_err().to_string(),
            "\"sixteen-bytes-16\" is not a valid name for a device: use up to 15 letters, digits, '-', '_' and '.'"
        );
        assert_eq!(
            Names::new("filter", DEVICE).unwrap_err().to_string(),
            "another program uses the nftables table filter: choose another name"
        );
    }
}
