use std::fmt;

/// What IPVS says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Info {
    /// The version of IPVS, which has been 1.2.1 since 2004: no sign of what the kernel can do.
    pub version: Version,
    /// How many rows the connection hash table has. It is set when the module is loaded (`conn_tab_bits`).
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
    /// From the kernel's code, one byte a number.
    pub const fn from_code(code: u32) -> Self {
        Self { major: (code >> 16) as u8, minor: (code >> 8) as u8, patch: code as u8 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}
