//! The names of a proxy's objects in the kernel.

/// The names of the nftables tables, one table for each family, and of the device that holds the VIPs.
///
/// If there are more than 4,096 VIPs, further devices hold the others. Their names have a number at the end, such as
/// `kube-ipvs0-1`.
///
/// Two proxies in one network namespace need different names, and different files for [`Settings::record`]. They still
/// share:
///
/// * Sysctls and the timeouts of IPVS. Give both the same [`Timeouts`](super::Timeouts).
/// * Virtual servers. The first proxy that makes a virtual server owns it.
/// * Addresses. Each proxy takes the other's VIPs for addresses of the host, so name the addresses of node ports
///   ([`NodePortAddresses::Chosen`](crate::NodePortAddresses::Chosen)).
/// * Unallocated addresses. If both have Services of one ServiceCIDR, turn
///   [`Settings::reject_unallocated_cluster_ips`] off: each would abort SCTP to the other's ClusterIPs.
/// * Replies to the node's own connections from a node port. One proxy hides them from IPVS, and the other drops them.
///
/// [`Settings::record`]: super::Settings::record
/// [`Settings::reject_unallocated_cluster_ips`]: super::Settings::reject_unallocated_cluster_ips
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
    #[error("{0:?} is not a valid name for a device: use up to 11 letters, digits, '-', '_' and '.'")]
    Device(String),
}

/// The name of kube-proxy's device, so that a takeover finds the VIPs there.
const DEVICE: &str = "kube-ipvs0";
const TABLE: &str = "kube-ipvs";

/// Tables of iptables-nft, and of kube-proxy's nftables mode. kube-ipvs removes unknown chains from its own tables.
const TABLES_OF_OTHERS: [&str; 6] = ["filter", "nat", "mangle", "raw", "security", "kube-proxy"];

/// In bytes (`NFT_NAME_MAXLEN`).
const LONGEST_TABLE: usize = 255;
/// In bytes: `IFNAMSIZ`, without the zero at the end and the number of a further device.
const LONGEST_DEVICE: usize = 15 - "-999".len();

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

    /// The name of the device with this number. Device 0 holds all VIPs, unless there are many.
    pub(super) fn numbered_device(&self, number: usize) -> String {
        if number == 0 { self.device.to_string() } else { format!("{}-{number}", self.device) }
    }

    pub(super) fn is_device(&self, name: &str) -> bool {
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty();
        let rest = name.strip_prefix(&*self.device);
        rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('-').is_some_and(is_number))
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
        for (table, device) in [("a", "0"), ("Proxy_2.b", "proxy-2.b_c"), (&"t".repeat(255), ".d")] {
            let names = Names::new(table, device).unwrap();
            assert_eq!((names.table(), names.device()), (table, device));
        }
    }

    #[test]
    fn further_devices_have_a_number_at_the_end() {
        let names = Names::default();
        for number in [0, 1, 999] {
            let device = names.numbered_device(number);
            assert!(names.is_device(&device) && device.len() < 16, "{device}");
        }
        for other in ["kube-ipvs", "kube-ipvs1", "kube-ipvs0-", "kube-ipvs0-a", "kube-ipvs01"] {
            assert!(!names.is_device(other), "{other}");
        }
    }

    #[test]
    fn invalid_names_are_rejected_with_the_allowed_characters() {
        for table in ["", "2a", "-a", "a b", "a/b", "a{", "ä", "a\n", &"t".repeat(256)] {
            assert_eq!(Names::new(table, DEVICE), Err(NameError::Table(table.into())));
        }
        for device in ["", ".", "..", "a b", "a/b", "a:0", "veth%d", "a\t", "ä", "twelve-bytes"] {
            assert_eq!(Names::new(TABLE, device), Err(NameError::Device(device.into())));
        }
        assert_eq!(
            Names::new(TABLE, "twelve-bytes").unwrap_err().to_string(),
            "\"twelve-bytes\" is not a valid name for a device: use up to 11 letters, digits, '-', '_' and '.'"
        );
        assert_eq!(
            Names::new("filter", DEVICE).unwrap_err().to_string(),
            "another program uses the nftables table filter: choose another name"
        );
    }
}
