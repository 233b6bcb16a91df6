use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// Where a server listens: an address, with its port or without.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Listen {
    /// At the usual place.
    #[default]
    Usual,
    /// Nowhere.
    Nowhere,
    /// At the usual port of an address.
    Address(IpAddr),
    /// There.
    At(SocketAddr),
}

impl Listen {
    /// The address, if it listens at all. `bind` says of which family the usual one is.
    pub(super) fn resolve(self, bind: IpAddr, usual: &Usual) -> Option<SocketAddr> {
        match self {
            Self::Nowhere => None,
            Self::At(address) => Some(address),
            Self::Address(address) => Some(SocketAddr::new(address, usual.port)),
            Self::Usual if bind.is_ipv4() => Some(SocketAddr::new(usual.ipv4.into(), usual.port)),
            Self::Usual => Some(SocketAddr::new(usual.ipv6.into(), usual.port)),
        }
    }
}

/// Where a server listens by default.
pub(super) struct Usual {
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    port: u16,
}

pub(super) const HEALTHZ: Usual =
    Usual { ipv4: Ipv4Addr::UNSPECIFIED, ipv6: Ipv6Addr::UNSPECIFIED, port: 10256 };
pub(super) const METRICS: Usual = Usual { ipv4: Ipv4Addr::LOCALHOST, ipv6: Ipv6Addr::LOCALHOST, port: 10249 };

/// What stands for nothing said, since an empty flag says something.
const USUAL: &str = "usual";

/// An empty flag turns the server off. In the file, an empty value means unset.
impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text {
            "" => return Ok(Self::Nowhere),
            USUAL => return Ok(Self::Usual),
            _ => {}
        }
        if let Ok(at) = text.parse() {
            return Ok(Self::At(at));
        }
        text.trim_start_matches('[').trim_end_matches(']').parse().map(Self::Address).map_err(|_| {
            format!(
                "{text:?} is not an address to listen at: allowed are such as 0.0.0.0:10256 or [::1]:10249"
            )
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usual => f.write_str(USUAL),
            Self::Nowhere => Ok(()),
            Self::Address(address) => address.fmt(f),
            Self::At(at) => at.fmt(f),
        }
    }
}
