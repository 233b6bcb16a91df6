use std::{fmt, net::Ipv4Addr};

use crate::Family;

/// Sends later connections of a client to the destination of its first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Persistence {
    /// Seconds after the client's last connection ended. The kernel counts timer ticks in 32 bits, so more than about
    /// 49 days (at 1,000 ticks a second) wraps around.
    pub timeout: u32,
    /// Which clients count as one.
    pub netmask: Netmask,
}

impl Persistence {
    /// Persistence for each client address separately.
    pub const fn seconds(timeout: u32) -> Self {
        Self { timeout, netmask: Netmask::HOST }
    }
}

/// Which clients of a persistent virtual server count as one: those with equal addresses under this mask.
///
/// The kernel uses a 32-bit mask for IPv4 and a prefix length for IPv6; an IPv4 mask can have holes. Equivalent masks
/// compare equal: a /32 of IPv4 and a /128 of IPv6 are [`Netmask::HOST`].
///
/// ```
/// use ipvs_netlink::Netmask;
///
/// assert_eq!(Netmask::v4([255, 255, 255, 0].into()), Netmask::v4_prefix(24));
/// assert_eq!(Netmask::v6_prefix(128), Netmask::HOST);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Netmask(Kind);

/// Invariant: equivalent masks have one representation, so that the derived comparisons hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Kind {
    Host,
    V4(Ipv4Addr),
    V6(u32),
}

impl Netmask {
    /// Each client address separately, in both families.
    pub const HOST: Self = Self(Kind::Host);

    /// A mask of IPv4.
    pub const fn v4(mask: Ipv4Addr) -> Self {
        match mask.to_bits() {
            u32::MAX => Self::HOST,
            _ => Self(Kind::V4(mask)),
        }
    }

    /// A prefix length of IPv4; more than 32 counts as 32.
    pub const fn v4_prefix(length: u8) -> Self {
        match u32::MAX.checked_shr(length as u32) {
            Some(rest) => Self::v4(Ipv4Addr::from_bits(!rest)),
            None => Self::HOST,
        }
    }

    /// A prefix length of IPv6. The kernel rejects 0 and more than 128 (`EINVAL`).
    pub const fn v6_prefix(length: u8) -> Self {
        match length {
            128 => Self::HOST,
            _ => Self(Kind::V6(length as u32)),
        }
    }

    /// The value of `IPVS_SVC_ATTR_NETMASK`: for IPv4 the mask in network byte order, for IPv6 the prefix length in
    /// host byte order. A mask of IPv4 for an IPv6 service becomes 0, which the kernel rejects. A prefix length of IPv6
    /// for an IPv4 service counts as one of IPv4.
    pub const fn to_wire(self, family: Family) -> [u8; 4] {
        match (family, self.0) {
            (Family::V4, Kind::Host) => [0xff; 4],
            (Family::V4, Kind::V4(mask)) => mask.octets(),
            (Family::V4, Kind::V6(length)) => match u32::MAX.checked_shr(length) {
                Some(rest) => (!rest).to_be_bytes(),
                None => [0xff; 4],
            },
            (Family::V6, Kind::Host) => 128u32.to_ne_bytes(),
            (Family::V6, Kind::V4(_)) => [0; 4],
            (Family::V6, Kind::V6(length)) => length.to_ne_bytes(),
        }
    }

    /// Decodes `IPVS_SVC_ATTR_NETMASK` of a service of this family.
    pub const fn from_wire(family: Family, wire: [u8; 4]) -> Self {
        match family {
            Family::V4 => Self::v4(Ipv4Addr::from_bits(u32::from_be_bytes(wire))),
            Family::V6 => match u32::from_ne_bytes(wire) {
                128 => Self::HOST,
                length => Self(Kind::V6(length)),
            },
        }
    }
}

impl Default for Netmask {
    fn default() -> Self {
        Self::HOST
    }
}

/// `host`, the mask of IPv4 or the prefix length of IPv6 (`/64`).
impl fmt::Display for Netmask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Host => f.pad("host"),
            Kind::V4(mask) => mask.fmt(f),
            Kind::V6(length) => write!(f, "/{length}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netmask_wire_form_depends_on_the_family() {
        assert_eq!(Netmask::HOST.to_wire(Family::V4), [255; 4]);
        assert_eq!(Netmask::HOST.to_wire(Family::V6), 128u32.to_ne_bytes());
        assert_eq!(Netmask::v4_prefix(20).to_wire(Family::V4), [255, 255, 240, 0]);
        assert_eq!(Netmask::v4_prefix(0).to_wire(Family::V4), [0; 4]);
        assert_eq!(Netmask::v6_prefix(64).to_wire(Family::V6), 64u32.to_ne_bytes());
    }

    #[test]
    fn equivalent_netmasks_compare_equal() {
        for length in 0..=200 {
            let v4 = Netmask::v4_prefix(length);
            assert_eq!(Netmask::from_wire(Family::V4, v4.to_wire(Family::V4)), v4);
            let v6 = Netmask::v6_prefix(length);
            assert_eq!(Netmask::from_wire(Family::V6, v6.to_wire(Family::V6)), v6);
        }
        assert_eq!(Netmask::v4_prefix(32), Netmask::HOST);
        assert_eq!(Netmask::v4_prefix(33), Netmask::HOST);
    }

    #[test]
    fn netmask_of_the_other_family_becomes_zero_or_an_ipv4_prefix() {
        assert_eq!(Netmask::v4_prefix(24).to_wire(Family::V6), [0; 4]);
        assert_eq!(Netmask::v6_prefix(24).to_wire(Family::V4), [255, 255, 255, 0]);
        assert_eq!(Netmask::v6_prefix(64).to_wire(Family::V4), [255; 4]);
    }
}
