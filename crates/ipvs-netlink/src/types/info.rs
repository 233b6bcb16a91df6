use std::fmt;

/// The version of IPVS and the size of its connection table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Info {
    /// The version of IPVS. It has been 1.2.1 since 2004, so it does not reveal the kernel's features.
    pub version: Version,
    /// How many rows the connection hash table has; set when the module is loaded (`conn_tab_bits`).
    pub connection_table_size: u32,
}

/// A version of IPVS; `Display` prints `1.2.1`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First number.
    pub major: u8,
    /// Second number.
    pub minor: u8,
    /// Third number.
    pub patch: u8,
}

impl Version {
    /// Decodes the kernel's code, which has one byte for each number.
    pub const fn from_code(code: u32) -> Self {
        Self { major: (code >> 16) as u8, minor: (code >> 8) as u8, patch: code as u8 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}
