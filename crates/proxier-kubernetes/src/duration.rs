use std::{fmt, str::FromStr, time::Duration};

/// The units of Go's `time.ParseDuration` in nanoseconds. Units of two letters come first, so that `ms` is not parsed
/// as minutes.
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

/// A duration that is written as in Go and Kubernetes: `30s`, `1m30s`, `1h2m3.5s`, `500ms`, `0`.
///
/// kube's `Duration` is unsuitable: it panics on a long duration, calculates with fractions, and accepts an empty text
/// as 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(pub Duration);

impl GoDuration {
    /// A duration of whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// None for 0, which leaves a setting unchanged.
    pub fn if_set(self) -> Option<Duration> {
        (self.0 != Duration::ZERO).then_some(self.0)
    }
}

/// The error has the reason, and the allowed syntax.
impl FromStr for GoDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let syntax =
            || Err(format!("{text:?} is not a duration: use numbers with a unit, such as 30s, 1m30s, 1.5h or 500ms"));
        // Go has the same limit: its duration is a signed 64-bit number of nanoseconds.
        let too_long = || format!("{text:?} is too long: the maximum is 2562047h47m16s");
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
                    false => Err(format!("{text:?} has no unit: use ns, us, ms, s, m or h, as in 30s")),
                };
            };
            let more = scaled(whole, fraction, *scale);
            nanoseconds = more.and_then(|more| nanoseconds.checked_add(more)).ok_or_else(too_long)?;
            rest = &after[unit.len()..];
        }
        match i64::try_from(nanoseconds).map_err(|_| too_long())? {
            1.. if text.starts_with('-') => Err(format!("{text:?} is negative: a duration is 0 or more")),
            nanoseconds => Ok(Self(Duration::from_nanos(nanoseconds.unsigned_abs()))),
        }
    }
}

/// As Go's `Duration.String` does: `1m30s`, `500ms`, `0s`.
impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let duration = self.0;
        let minutes = duration.as_secs() / 60;
        let rest = Duration::new(duration.as_secs() % 60, duration.subsec_nanos());
        let seconds = format!("{:.9}", rest.as_secs_f64());
        let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
        match (minutes / 60, minutes % 60) {
            (0, 0) if rest.is_zero() => f.write_str("0s"),
            (0, 0) => write!(f, "{rest:?}"),
            (0, minutes) => write!(f, "{minutes}m{seconds}s"),
            (hours, minutes) => write!(f, "{hours}h{minutes}m{seconds}s"),
        }
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `whole.fraction` times `scale`. Digits below a nanosecond are cut off, as in Go.
fn scaled(whole: &str, fraction: &str, scale: u128) -> Option<u128> {
    let number = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let fraction = &fraction[..fraction.len().min(18)];
    let part = number(fraction)? * scale / 10u128.pow(fraction.len() as u32);
    number(whole)?.checked_mul(scale)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_parse_and_format_as_in_go() {
        let cases = [
            ("0", 0, "0s"),
            ("-0s", 0, "0s"),
            ("30s", 30_000_000_000, "30s"),
            ("1m30s", 90_000_000_000, "1m30s"),
            ("500ms", 500_000_000, "500ms"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("+1s", 1_000_000_000, "1s"),
            ("1s1ns", 1_000_000_001, "1.000000001s"),
            ("15µs", 15_000, "15µs"),
            ("30s1m", 90_000_000_000, "1m30s"),
            ("1h2m3.5s", 3_723_500_000_000, "1h2m3.5s"),
            ("0.3333333333333333333h", 1_200_000_000_000 - 1, "19m59.999999999s"),
            (".5s", 500_000_000, "500ms"),
            ("1us1µs1μs1ns", 3_001, "3.001µs"),
            ("24h", 86_400_000_000_000, "24h0m0s"),
            ("2562047h47m16s", 9_223_372_036_000_000_000, "2562047h47m16s"),
        ];
        for (text, nanoseconds, written) in cases {
            let duration = text.parse::<GoDuration>().unwrap();
            assert_eq!(duration, GoDuration(Duration::from_nanos(nanoseconds)), "{text}");
            assert_eq!(duration.to_string(), written, "{text}");
        }
        for text in ["", "-", "s", ".s", "1 s", "1d", "1e3s", "infs", "--1s"] {
            assert!(text.parse::<GoDuration>().unwrap_err().contains("is not a duration"), "{text}");
        }
        for (text, reason) in [
            ("1", "has no unit"),
            ("1.5", "has no unit"),
            ("1s2", "has no unit"),
            ("30", "has no unit"),
            ("1m30", "has no unit"),
            ("1.2.3s", "has no unit"),
            ("-1s", "is negative"),
            ("2562047h47m17s", "is too long"),
            ("3000000h", "is too long"),
            ("99999999999999999999h", "is too long"),
            ("99999999999999999999999999999999999999h", "is too long"),
        ] {
            assert!(text.parse::<GoDuration>().unwrap_err().contains(reason), "{text}");
        }
    }
}
