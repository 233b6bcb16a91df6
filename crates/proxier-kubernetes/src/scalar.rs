//! Scalar values: ports, protocols, addresses, seconds.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::{NonZeroU16, NonZeroU32},
};

use ipnet::IpNet;
use proxier::model;
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

use crate::{Invalid, remarks::quoted};

/// Reads a whole number. An error names the value that was found, and `describe` names the expected one.
fn number<'de, D: Deserializer<'de>>(deserializer: D, describe: &'static str) -> Result<i64, D::Error> {
    struct Number(&'static str);
    impl Visitor<'_> for Number {
        type Value = i64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_i64<E: Error>(self, value: i64) -> Result<i64, E> {
            Ok(value)
        }
        fn visit_u64<E: Error>(self, value: u64) -> Result<i64, E> {
            value.try_into().map_err(|_| E::custom(format_args!("{value} is not {}", self.0)))
        }
        fn visit_f64<E: Error>(self, value: f64) -> Result<i64, E> {
            if value.abs() >= u64::MAX as f64 {
                return Err(E::custom(format_args!("a number this large is not {}", self.0)));
            }
            Err(E::custom(format_args!("{value} is not {}", self.0)))
        }
        fn visit_str<E: Error>(self, value: &str) -> Result<i64, E> {
            let is_number = value.parse::<i64>().is_ok();
            let hint = if is_number { "; write it without quotes" } else { "" };
            Err(E::custom(format_args!("{} is not {}{hint}", quoted(value), self.0)))
        }
        fn visit_unit<E: Error>(self) -> Result<i64, E> {
            Err(E::custom(format_args!("the value is missing: it must be {}", self.0)))
        }
    }
    deserializer.deserialize_any(Number(describe))
}

pub(crate) fn text<'de, D, T>(
    deserializer: D,
    describe: &'static str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    struct Text<F>(&'static str, F);
    impl<T, F: FnOnce(&str) -> Result<T, String>> Visitor<'_> for Text<F> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_str<E: Error>(self, value: &str) -> Result<T, E> {
            (self.1)(value).map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Text(describe, parse))
}

const A_PORT: &str = "a port: 1 to 65535";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Port(pub(crate) NonZeroU16);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        AnyPort::deserialize(deserializer)?.usable().map(Self).map_err(D::Error::custom)
    }
}

/// A port in a field that the API server does not validate: any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AnyPort(i64);

impl AnyPort {
    /// The port, or why it is invalid.
    pub(crate) fn usable(self) -> Result<NonZeroU16, String> {
        let port = u16::try_from(self.0).ok().and_then(NonZeroU16::new);
        port.ok_or_else(|| format!("{} is not {A_PORT}", self.0))
    }
}

impl<'de> Deserialize<'de> for AnyPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number(deserializer, A_PORT).map(Self)
    }
}

/// A node port: 0 to 65535, where 0 means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodePort(pub(crate) Option<NonZeroU16>);

impl<'de> Deserialize<'de> for NodePort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const WANTED: &str = "a node port: 1 to 65535";
        let value = number(deserializer, WANTED)?;
        u16::try_from(value)
            .map(|port| Self(NonZeroU16::new(port)))
            .map_err(|_| D::Error::custom(format_args!("{value} is not {WANTED}")))
    }
}

/// The timeout of an affinity: 1 to 86400 seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) NonZeroU32);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const WANTED: &str = "a timeout: 1 to 86400 seconds";
        let value = number(deserializer, WANTED)?;
        u32::try_from(value)
            .ok()
            .filter(|seconds| *seconds <= 86_400)
            .and_then(NonZeroU32::new)
            .map(Self)
            .ok_or_else(|| D::Error::custom(format_args!("{value} is not {WANTED}")))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Protocol(pub(crate) model::Protocol);

impl Default for Protocol {
    fn default() -> Self {
        Self(model::Protocol::Tcp)
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "a protocol: TCP, UDP or SCTP", |name| {
            let unknown = |_| format!("unknown protocol {}: use TCP, UDP or SCTP", quoted(name));
            name.parse().map(Self).map_err(unknown)
        })
    }
}

/// An address of a Service or an endpoint, or a text that is no address: a host name in a slice of type `FQDN`, or
/// `None` as a clusterIP. The field decides about the meaning of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// An IPv4 address mapped into IPv6 is an IPv4 address here, as in Kubernetes.
    Ip(IpAddr),
    /// An address with a different meaning on every host, and its kind.
    Reserved(IpAddr, &'static str),
    Text(Box<str>),
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "an IP address", |value| {
            let Some(address) = parse_ip(value) else { return Ok(Self::Text(value.into())) };
            let address = address.to_canonical();
            Ok(reserved(address).map_or(Self::Ip(address), |what| Self::Reserved(address, what)))
        })
    }
}

impl Address {
    /// For fields that require an address of a Service or an endpoint: the address, or why it is invalid.
    pub(crate) fn usable(&self) -> Result<IpAddr, String> {
        match self {
            Self::Ip(address) => Ok(*address),
            Self::Reserved(address, what) => {
                Err(format!("{address} is {what}: neither a Service nor an endpoint can have it"))
            }
            Self::Text(text) => Err(not_an_address(text)),
        }
    }
}

/// Ignores leading zeros in the numbers of an IPv4 address. The API server does so in fields that it validates by Go's
/// former rules (`k8s.io/utils/net.ParseIPSloppy`).
pub(crate) fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| {
        let numbers = text.split('.').map(|number| match number.trim_start_matches('0') {
            "" if !number.is_empty() => "0",
            rest => rest,
        });
        numbers.collect::<Vec<_>>().join(".").parse().ok().map(IpAddr::V4)
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range(pub(crate) IpNet);

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer, "an address range", |value| parse_range(value).map(Self))
    }
}

/// Drops bits beyond the prefix, as Go's `net.ParseCIDR` does: `10.1.2.3/8` is `10.0.0.0/8`. Allows surrounding blanks,
/// as the API server does in some of its fields.
pub(crate) fn parse_range(text: &str) -> Result<IpNet, String> {
    let range = || {
        let (address, length) = text.trim().split_once('/')?;
        IpNet::new(parse_ip(address)?, length.parse().ok()?).ok()
    };
    range().map(|range| range.trunc()).ok_or_else(|| {
        let hint = match parse_ip(text.trim()) {
            Some(address) => format!("it has no prefix length. For this address alone, write {}", IpNet::from(address)),
            None => "use a range such as 10.244.0.0/16 or fd00:10::/64".into(),
        };
        format!("{} is not an address range: {hint}", quoted(text))
    })
}

pub(crate) fn one_of_each_family(ranges: &[Range], field: &str) -> Result<Vec<IpNet>, Invalid> {
    let is_v4 = |range: &Range| range.0.addr().is_ipv4();
    if let [first, second] = ranges
        && is_v4(first) == is_v4(second)
    {
        let message = "has the same family as the first: use at most one of each";
        return Err(Invalid::new(format!("{field}[1]"), message));
    }
    Ok(ranges.iter().map(|range| range.0).collect())
}

/// The kind of an address that no Service and no endpoint can have, because it has a different meaning on every host.
/// The API server rejects most of these in most of its fields.
fn reserved(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    match address {
        _ if address.is_unspecified() => Some("the unspecified address"),
        _ if address.is_loopback() => Some("a loopback address (127.0.0.0/8, ::1)"),
        _ if address.is_multicast() => Some("a multicast address (224.0.0.0/4, ff00::/8)"),
        _ if link_local => Some("a link-local address (169.254.0.0/16, fe80::/10)"),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("the broadcast address"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// For fields that require an address: why the text is not one.
pub(crate) fn not_an_address(text: &str) -> String {
    let hint = match text.split_once(['/', '%']) {
        Some((address, _)) if address.parse::<Ipv4Addr>().is_ok() || address.parse::<Ipv6Addr>().is_ok() => {
            format!(": write {address} alone")
        }
        _ => String::new(),
    };
    format!("{} is not an IP address{hint}", quoted(text))
}
