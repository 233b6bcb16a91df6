use std::{fmt, str::FromStr};

/// The kernel's limit for names of schedulers, persistence engines and interfaces: 16 bytes with the terminating NUL
/// (`IP_VS_SCHEDNAME_MAXLEN` and similar constants).
const MAX: usize = 15;

/// A name that the kernel would reject or silently truncate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a kernel name has 1 to {MAX} bytes, without NUL, white space, control characters or slashes")]
pub struct InvalidName;

/// A short name stored in place, so that every type with a name is `Copy`.
///
/// Invariant: the first `length` bytes are UTF-8 without NUL; the rest are 0. So the derived order is that of the
/// strings.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Name {
    bytes: [u8; MAX],
    length: u8,
}

impl Name {
    const fn literal(text: &str) -> Self {
        let text = text.as_bytes();
        let mut bytes = [0; MAX];
        let mut at = 0;
        while at < text.len() && at < MAX {
            bytes[at] = text[at];
            at += 1;
        }
        Self { bytes, length: at as u8 }
    }

    fn new(text: &str) -> Result<Self, InvalidName> {
        let refused = |c: char| c.is_whitespace() || c.is_control() || c == '/';
        if text.is_empty() || text.len() > MAX || text.contains(refused) {
            return Err(InvalidName);
        }
        Ok(Self::literal(text))
    }

    fn as_str(&self) -> &str {
        self.bytes.get(..usize::from(self.length)).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

macro_rules! kernel_name {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Name);

        impl $name {
            /// Checks a name.
            ///
            /// # Errors
            ///
            /// [`InvalidName`] if it is empty, longer than 15 bytes, or contains NUL, white space, control characters
            /// or slashes. The constructor does not check whether the kernel knows the name.
            pub fn new(name: &str) -> Result<Self, InvalidName> {
                Name::new(name).map(Self)
            }

            /// The name.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(name: &str) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        #[cfg(feature = "serde")]
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = <String as serde::Deserialize>::deserialize(deserializer)?;
                Self::new(&name).map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.as_str())
            }
        }
    };
}

kernel_name! {
    /// How a virtual server chooses a destination for a new connection. The kernel loads the module `ip_vs_NAME`
    /// itself. If it finds no module, it returns `ENOENT`.
    ///
    /// ```
    /// use ipvs_netlink::Scheduler;
    ///
    /// assert_eq!(Scheduler::RR, "rr".parse()?);
    /// assert!(Scheduler::new("a-name-that-is-too-long").is_err());
    /// # Ok::<(), ipvs_netlink::InvalidName>(())
    /// ```
    Scheduler
}

impl Scheduler {
    /// Round robin.
    pub const RR: Self = Self(Name::literal("rr"));
    /// Weighted round robin.
    pub const WRR: Self = Self(Name::literal("wrr"));
    /// Least connections.
    pub const LC: Self = Self(Name::literal("lc"));
    /// Weighted least connections.
    pub const WLC: Self = Self(Name::literal("wlc"));
    /// Locality-based least connections.
    ///
    /// Load the modules of this scheduler and of [`LBLCR`](Self::LBLCR) in advance. If the kernel loads them itself
    /// while it deletes a network namespace, it can deadlock (seen on Linux 6.1).
    pub const LBLC: Self = Self(Name::literal("lblc"));
    /// Locality-based least connections with replication.
    pub const LBLCR: Self = Self(Name::literal("lblcr"));
    /// Destination hashing.
    pub const DH: Self = Self(Name::literal("dh"));
    /// Source hashing; see [`ServiceFlags::SH_PORT`](crate::ServiceFlags::SH_PORT).
    pub const SH: Self = Self(Name::literal("sh"));
    /// Shortest expected delay.
    pub const SED: Self = Self(Name::literal("sed"));
    /// Never queue.
    pub const NQ: Self = Self(Name::literal("nq"));
    /// Weighted fail-over: the destination of the highest weight.
    pub const FO: Self = Self(Name::literal("fo"));
    /// Weighted overflow: the destination of the highest weight until its connections reach the weight, then the next.
    pub const OVF: Self = Self(Name::literal("ovf"));
    /// Maglev hashing; see [`ServiceFlags::MH_PORT`](crate::ServiceFlags::MH_PORT).
    pub const MH: Self = Self(Name::literal("mh"));
    /// Power of two random choices (Linux 5.1).
    pub const TWOS: Self = Self(Name::literal("twos"));
    /// No scheduler: existing connections continue, and the kernel rejects new ones (Linux 4.3).
    pub const NONE: Self = Self(Name::literal("none"));
}

/// ipvsadm's default.
impl Default for Scheduler {
    fn default() -> Self {
        Self::WLC
    }
}

kernel_name! {
    /// A persistence engine: identifies a client by more than its address. The kernel loads the module `ip_vs_pe_NAME`
    /// itself. If it finds no module, it returns `ENOENT`.
    PersistenceEngine
}

impl PersistenceEngine {
    /// Identifies clients by the Call-ID of SIP messages; the only engine in the kernel's tree. For persistent UDP
    /// services.
    pub const SIP: Self = Self(Name::literal("sip"));
}

kernel_name! {
    /// The name of a network interface.
    InterfaceName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_names_the_kernel_would_reject_are_invalid() {
        for wrong in ["", "1234567890123456", "r r", "a\0", "a/b", "\u{7f}"] {
            assert_eq!(Scheduler::new(wrong), Err(InvalidName), "{wrong:?}");
        }
        for right in ["rr", "123456789012345", "é", "eth0.100", "ip-vs_x"] {
            assert_eq!(Scheduler::new(right).unwrap().as_str(), right);
        }
    }

    #[test]
    fn kernel_names_are_ordered_as_strings() {
        let mut names = ["wrr", "r", "rr", "mh", "ovf"].map(|name| Scheduler::new(name).unwrap());
        names.sort();
        assert_eq!(names.map(|name| name.to_string()), ["mh", "ovf", "r", "rr", "wrr"]);
        assert_eq!(format!("{:?} {:>4}|", Scheduler::RR, Scheduler::RR), "Scheduler(\"rr\")   rr|");
    }
}
