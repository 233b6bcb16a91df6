use std::{fmt, str::FromStr, time::Duration};

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

/// Reads a duration as Go writes it: `30s`, `1m30s`, `1h2m3.5s`, `500ms`, `0`.
///
/// Not kube's `Duration`: that panics on a long one, calculates with fractions, and takes an empty text for 0.
///
/// # Errors
///
/// What is wrong with it, and what is allowed.
pub fn parse_go_duration(text: &str) -> Result<Duration, String> {
    let syntax = || {
        Err(format!(
            "{text:?} is not a duration: allowed are numbers with a unit, such as 30s, 1m30s, 1.5h or 500ms"
        ))
    };
    // The same bound as Go's, whose duration is a signed 64-bit number of nanoseconds.
    let too_long = || format!("{text:?} is too long: at most 2562047h47m16s");
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned.is_empty() {
        return syntax();
    }
    let mut nanoseconds: u128 = 0;
    let mut rest = if unsigned == "0" { "" } else { unsigned };
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return syntax();
        }
        let Some((unit, scale)) = UNITS.iter().find(|(unit, _)| after.starts_with(unit)) else {
            return match after.starts_with(|c: char| !c.is_ascii_digit() && c != '.') {
                true => syntax(),
                false => Err(format!("{text:?} has no unit: allowed are ns, us, ms, s, m and h, as in 30s")),
            };
        };
        let more = scaled(whole, fraction, *scale);
        nanoseconds = more.and_then(|more| nanoseconds.checked_add(more)).ok_or_else(too_long)?;
        rest = &after[unit.len()..];
    }
    match i64::try_from(nanoseconds).map_err(|_| too_long())? {
        1.. if text.starts_with('-') => Err(format!("{text:?} is negative: a duration is 0 or more")),
        nanoseconds => Ok(Duration::from_nanos(nanoseconds.unsigned_abs())),
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
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_go_duration(text).map(Self)
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_go_duration(self.0))
    }
}

pub(super) fn parse_positive(text: &str) -> Result<GoDuration, String> {
    match text.parse()? {
        GoDuration(Duration::ZERO) => Err(format!("{text:?} is too short: it must be greater than 0")),
        duration => Ok(duration),
    }
}

/// Writes a duration as Go's `Duration.String` does: `1m30s`, `500ms`, `0s`.
pub fn format_go_duration(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    let rest = Duration::new(duration.as_secs() % 60, duration.subsec_nanos());
    let seconds = format!("{:.9}", rest.as_secs_f64());
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    match (minutes / 60, minutes % 60) {
        (0, 0) if rest.is_zero() => "0s".into(),
        (0, 0) => format!("{rest:?}"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `whole.fraction` times `scale`; digits below a nanosecond are cut off, as in Go.
fn scaled(whole: &str, fraction: &str, scale: u128) -> Option<u128> {
    let number = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let fraction = &fraction[..fraction.len().min(18)];
    let part = number(fraction)? * scale / 10u128.pow(fraction.len() as u32);
    number(whole)?.checked_mul(scale)?.checked_add(part)
}
