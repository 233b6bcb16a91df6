//! The text in which metrics are exposed: the format of Prometheus, as kube-proxy's.
//!
//! Not OpenMetrics, which Prometheus asks for too: kube-proxy does not speak it, and it writes the bounds of buckets
//! otherwise (`le="1.0"`). In a fleet of both, a sum by `le` would have two bounds of one value.

use std::{borrow::Cow, fmt::Write, io};

use flate2::{Compression, write::GzEncoder};

/// The format's name and version.
pub(super) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether a caller takes gzip, by its header `Accept-Encoding`.
pub(super) fn takes_gzip(accept: &str) -> bool {
    accept.split(',').any(|encoding| {
        let mut words = encoding.split(';').map(str::trim);
        let is_gzip = words.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        // A weight of 0 is a refusal.
        let weight =
            words.find_map(|word| word.strip_prefix("q=")).and_then(|weight| weight.parse::<f32>().ok());
        is_gzip && weight.is_none_or(|weight| weight > 0.0)
    })
}

/// A text in gzip. A little is enough: names and labels repeat.
pub(super) fn gzip(text: &str) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    io::Write::write_all(&mut encoder, text.as_bytes())?;
    encoder.finish()
}

/// The same as OpenMetrics, in the format of Prometheus: a counter's whole name is its own, numbers of buckets are
/// written as Go writes them, and there are neither units nor an end.
pub(super) fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            if let Some((_, words)) = help.take().filter(|(named, _)| *named == name) {
                let _ = writeln!(text, "# HELP {name}{suffix} {words}");
            }
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            text.push_str(&whole_number_of_bucket(line));
            text.push('\n');
        }
    }
    text
}

/// `le="1.0"` becomes `le="1"`. The bound is a bucket's first label.
fn whole_number_of_bucket(line: &str) -> Cow<'_, str> {
    const START: &str = "_bucket{le=\"";
    let bucket = line.split_once(START).filter(|(name, _)| !name.contains('{'));
    match bucket.and_then(|(name, rest)| Some((name, rest.split_once(".0\"")?))) {
        Some((name, (bound, rest))) if !bound.contains('"') => format!("{name}{START}{bound}\"{rest}").into(),
        _ => line.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format() {
        let open_metrics = "\
# HELP a_seconds How long.
# TYPE a_seconds histogram
# UNIT a_seconds seconds
a_seconds_sum{f=\"x\"} 1.5
a_seconds_count{f=\"x\"} 2
a_seconds_bucket{le=\"0.5\",f=\"x\"} 1
a_seconds_bucket{le=\"1.0\",f=\"x\"} 2
a_seconds_bucket{le=\"+Inf\",f=\"x\"} 2
# HELP b How often.
# TYPE b counter
b_total 3
# HELP c_total How many.
# TYPE c_total gauge
c_total{le=\"x\"} 4
d{role=\"1.0\",x=\"_bucket{le=\\\"1.0\"} 5
# HELP build What.
# TYPE build info
build_info{version=\"1.0\"} 1
# EOF
";
        let prometheus = "\
# HELP a_seconds How long.
# TYPE a_seconds histogram
a_seconds_sum{f=\"x\"} 1.5
a_seconds_count{f=\"x\"} 2
a_seconds_bucket{le=\"0.5\",f=\"x\"} 1
a_seconds_bucket{le=\"1\",f=\"x\"} 2
a_seconds_bucket{le=\"+Inf\",f=\"x\"} 2
# HELP b_total How often.
# TYPE b_total counter
b_total 3
# HELP c_total How many.
# TYPE c_total gauge
c_total{le=\"x\"} 4
d{role=\"1.0\",x=\"_bucket{le=\\\"1.0\"} 5
# HELP build_info What.
# TYPE build_info gauge
build_info{version=\"1.0\"} 1
";
        assert_eq!(to_prometheus(open_metrics), prometheus);
    }

    #[test]
    fn what_scrapers_take() {
        for (accept, expected) in [
            ("gzip", true),
            ("deflate, gzip;q=0.5", true),
            ("GZIP; q=1", true),
            ("gzip;q=0", false),
            ("identity", false),
            ("*", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(accept), expected, "{accept}");
        }
    }

    #[test]
    fn a_text_in_gzip_is_the_same() {
        let text = "kube_ipvs_virtual_servers 1\n".repeat(1000);
        let gzip = gzip(&text).unwrap();
        assert!(gzip.len() < text.len() / 20, "{}", gzip.len());
        assert_eq!(io::read_to_string(flate2::read::GzDecoder::new(&*gzip)).unwrap(), text);
    }
}
