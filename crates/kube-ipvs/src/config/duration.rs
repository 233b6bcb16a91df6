use std::{
    fmt::{self, Write as _},
    str::FromStr,
    time::Duration,
};

/// The units of Go's `time.ParseDuration` in nanoseconds. The two-letter ones stand first, so that `ms` is
/// not taken for minutes.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseGoDurationError {
    /// Not of the form that Go reads.
    #[error("{0:?} is not a duration: allowed are numbers with a unit, such as 30s, 1m30s, 1.5h or 500ms")]
    Syntax(String),
    /// A number without a unit.
    #[error("{0:?} has no unit: allowed are ns, us, ms, s, m and h, as in 30s")]
    NoUnit(String),
    /// Below zero.
    #[error("{0:?} is negative: a duration is 0 or more")]
    Negative(String),
    /// Zero, where that makes no sense.
    #[error("{0:?} is too short: it must be greater than 0")]
    Zero(String),
    /// More than Go's `time.Duration` can hold.
    #[error("{0:?} is too long: at most 2562047h47m16s")]
    TooLong(String),
}

/// Reads a duration as Go writes it: `30s`, `1m30s`, `1h2m3.5s`, `500ms`, `0`.
pub fn parse_go_duration(text: &str) -> Result<Duration, ParseGoDurationError> {
    use ParseGoDurationError as E;
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if unsigned.is_empty() {
        return Err(E::Syntax(text.into()));
    }
    let mut nanoseconds: u128 = 0;
    let mut rest = if unsigned == "0" { "" } else { unsigned };
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(E::Syntax(text.into()));
        }
        let Some((unit, scale)) = UNITS.iter().find(|(unit, _)| after.starts_with(unit)) else {
            let bare = after.is_empty() || after.starts_with(|c: char| c.is_ascii_digit() || c == '.');
            return Err(if bare { E::NoUnit(text.into()) } else { E::Syntax(text.into()) });
        };
        nanoseconds = scaled(whole, fraction, *scale)
            .and_then(|more| nanoseconds.checked_add(more))
            .ok_or_else(|| E::TooLong(text.into()))?;
        rest = &after[unit.len()..];
    }
    // The same bound as Go's, whose duration is a signed 64-bit number of nanoseconds.
    let nanoseconds = i64::try_from(nanoseconds).map_err(|_| E::TooLong(text.into()))?;
    match nanoseconds {
        1.. if negative => Err(E::Negative(text.into())),
        _ => Ok(Duration::from_nanos(nanoseconds.unsigned_abs())),
    }
}

/// A duration that is read and written as Go does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(pub Duration);

impl GoDuration {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// None for 0, which leaves things as they are.
    pub fn if_set(self) -> Option<Duration> {
        (self.0 != Duration::ZERO).then_some(self.0)
    }
}

impl FromStr for GoDuration {
    type Err = ParseGoDurationError;

    fn from_str(text: &str) -> Result<Self, ParseGoDurationError> {
        parse_go_duration(text).map(Self)
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_go_duration(self.0))
    }
}

/// For flags that need a duration above zero.
pub(super) fn parse_positive(text: &str) -> Result<GoDuration, ParseGoDurationError> {
    match text.parse()? {
        GoDuration(Duration::ZERO) => Err(ParseGoDurationError::Zero(text.into())),
        duration => Ok(duration),
    }
}

/// Writes a duration as Go's `Duration.String` does for whole milliseconds and above: `1m30s`, `500ms`, `0s`.
pub fn format_go_duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    if nanoseconds == 0 {
        return "0s".into();
    }
    if nanoseconds < 1_000_000_000 {
        let (unit, scale) = match nanoseconds {
            1_000_000.. => ("ms", 1_000_000),
            1_000.. => ("µs", 1_000),
            _ => ("ns", 1),
        };
        return decimal(nanoseconds, scale) + unit;
    }
    let seconds = duration.as_secs();
    let mut text = String::new();
    if seconds >= 3600 {
        let _ = write!(text, "{}h", seconds / 3600);
    }
    if seconds >= 60 {
        let _ = write!(text, "{}m", seconds / 60 % 60);
    }
    text + &decimal(nanoseconds % 60_000_000_000, 1_000_000_000) + "s"
}

fn decimal(value: u128, scale: u128) -> String {
    let width = scale.ilog10() as usize;
    match value % scale {
        0 => (value / scale).to_string(),
        fraction => {
            let fraction = format!("{fraction:0width$}");
            format!("{}.{}", value / scale, fraction.trim_end_matches('0'))
        }
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `whole.fraction` times `scale`; digits below a nanosecond are cut off, as in Go.
fn scaled(whole: &str, fraction: &str, scale: u128) -> Option<u128> {
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction = &fraction[..fraction.len().min(18)];
    let part = match fraction {
        "" => 0,
        _ => fraction.parse::<u128>().ok()? * scale / 10u128.pow(fraction.len() as u32),
    };
    whole.checked_mul(scale)?.checked_add(part)
}
