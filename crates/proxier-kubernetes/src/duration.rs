//! Durations as Go writes and reads them, and with it Kubernetes.

use std::time::Duration;

/// As long as Go's `time.Duration` can be.
const LONGEST: Duration = Duration::from_nanos(i64::MAX.unsigned_abs());

/// Reads a duration that Go's `time.ParseDuration` reads: `30s`, `1m30s`, `1h2m3.5s`, `500ms`, `0`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || {
        format!(
            "{text:?} is not a duration: allowed are numbers with a unit, such as 30s, 1m30s, 1.5h or 500ms"
        )
    };
    let is_digit = |c: char| c.is_ascii_digit() || c == '.';
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let mut rest = if unsigned == "0" { "0s" } else { unsigned };
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c| !is_digit(c)).unwrap_or(rest.len()));
        let (unit, after) = after.split_at(after.find(is_digit).unwrap_or(after.len()));
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "" => return Err(format!("{text:?} has no unit: allowed are ns, us, ms, s, m and h, as in 30s")),
            _ => return Err(invalid()),
        };
        let sum = Duration::try_from_secs_f64(number * unit).ok().and_then(|part| total.checked_add(part));
        total = sum
            .filter(|sum| *sum <= LONGEST)
            .ok_or_else(|| format!("{text:?} is too long: at most 2562047h47m16s"))?;
        rest = after;
    }
    match text.starts_with('-') && !total.is_zero() {
        true => Err(format!("{text:?} is negative: a duration is 0 or more")),
        false => Ok(total),
    }
}

/// Writes a duration so that Go reads it: `24h0m0s`, `1m30s`, `0.5s`.
pub(crate) fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let rest = Duration::new(seconds % 60, duration.subsec_nanos()).as_secs_f64();
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{rest}s"),
        (0, minutes) => format!("{minutes}m{rest}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        let good = [
            ("0", 0.0),
            ("-0s", 0.0),
            ("+30s", 30.0),
            ("1m30s", 90.0),
            ("30s1m", 90.0),
            ("1h2m3.5s", 3723.5),
            (".5h", 1800.0),
            ("1.s", 1.0),
            ("500ms", 0.5),
            ("1us1µs1μs1ns", 0.000_003_001),
            ("2562047h47m16s", 9_223_372_036.0),
        ];
        for (text, seconds) in good {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        let bad = [
            ("", "is not a duration"),
            ("-", "is not a duration"),
            ("s", "is not a duration"),
            (".s", "is not a duration"),
            ("1.2.3s", "is not a duration"),
            ("1 s", "is not a duration"),
            ("1d", "is not a duration"),
            ("1e3s", "is not a duration"),
            ("infs", "is not a duration"),
            ("--1s", "is not a duration"),
            ("30", "has no unit"),
            ("1m30", "has no unit"),
            ("-1s", "is negative"),
            ("2562047h47m17s", "is too long"),
            ("99999999999999999999999999999999h", "is too long"),
        ];
        for (text, reason) in bad {
            let message = parse_duration(text).unwrap_err();
            assert!(message.starts_with(&format!("{text:?} {reason}")), "{message}");
        }
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["0s", "0.5s", "30s", "1m0s", "1m30.25s", "24h0m0s"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
    }
}
