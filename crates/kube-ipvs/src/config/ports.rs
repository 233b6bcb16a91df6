use std::{fmt, ops::RangeInclusive, str::FromStr};

use proxier::RESERVED_PORTS;

use super::text::{items, join};

/// `--reserved-ports`: ports and ranges of ports, such as `22,10256-10259`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRanges(pub Vec<RangeInclusive<u16>>);

impl Default for PortRanges {
    fn default() -> Self {
        Self(RESERVED_PORTS.to_vec())
    }
}

impl FromStr for PortRanges {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        items(text).map(parse_range).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for PortRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
            (start, end) if start == end => start.to_string(),
            (start, end) => format!("{start}-{end}"),
        };
        f.write_str(&join(self.0.iter().map(text)))
    }
}

fn parse_range(item: &str) -> Result<RangeInclusive<u16>, String> {
    let (start, end) = item.split_once('-').unwrap_or((item, item));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match (port(start), port(end)) {
        (Some(start), Some(end)) if start <= end => Ok(start..=end),
        _ => Err(format!("{item:?} is not a port or a range of ports: use a value such as 22 or 10256-10259")),
    }
}
