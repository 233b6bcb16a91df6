use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// The address at which a server listens, with or without a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Listen {
    /// The default address and port.
    #[default]
    Default,
    /// The server is off.
    Disabled,
    /// This address, at the default port.
    Address(IpAddr),
    /// This address and port.
    Socket(SocketAddr),
}

impl Listen {
    /// Returns the listen address, unless the server is off. The family of `bind` selects the default address.
    pub(super) fn resolve(self, bind: IpAddr, defaults: &[SocketAddr; 2]) -> Option<SocketAddr> {
        let default = defaults[usize::from(bind.is_ipv6())];
        match self {
            Self::Disabled => None,
            Self::Socket(address) => Some(address),
            Self::Address(address) => Some(SocketAddr::new(address, default.port())),
            Self::Default => Some(default),
        }
    }
}

/// Default listen addresses, for IPv4 and IPv6.
pub(super) const HEALTHZ: [SocketAddr; 2] = both(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED, 10256);
pub(super) const METRICS: [SocketAddr; 2] = both(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST, 10249);

const fn both(v4: Ipv4Addr, v6: Ipv6Addr, port: u16) -> [SocketAddr; 2] {
    [SocketAddr::new(IpAddr::V4(v4), port), SocketAddr::new(IpAddr::V6(v6), port)]
}

/// Stands for an unset flag, because an empty flag turns the server off.
const DEFAULT: &str = "default";

/// An empty flag turns the server off. In the file, an empty value means unset.
impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text {
            "" => return Ok(Self::Disabled),
            DEFAULT => return Ok(Self::Default),
            _ => {}
        }
        if let Ok(at) = text.parse() {
            return Ok(Self::Socket(at));
        }
        text.trim_start_matches('[').trim_end_matches(']').parse().map(Self::Address).map_err(|_| {
            format!("{text:?} is not an address to listen on: use an address such as 0.0.0.0:10256 or [::1]:10249")
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str(DEFAULT),
            Self::Disabled => Ok(()),
            Self::Address(address) => address.fmt(f),
            Self::Socket(at) => at.fmt(f),
        }
    }
}
