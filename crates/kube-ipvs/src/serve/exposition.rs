//! The text in which metrics are exposed: OpenMetrics, or the older format of Prometheus.

use std::fmt::Write;

/// Of OpenMetrics.
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Of the older format.
pub(super) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether a caller asks for OpenMetrics, by its header `Accept`.
pub(super) fn wants_open_metrics(accept: &str) -> bool {
    accept.split(',').any(|kind| kind.trim_start().starts_with("application/openmetrics-text"))
}

/// The same as OpenMetrics, in the older format: a counter's whole name is its own, numbers of buckets are written as
/// Go writes them, and there are neither units nor an end.
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

/// `le="1.0"` becomes `le="1"`.
fn whole_number_of_bucket(line: &str) -> std::borrow::Cow<'_, str> {
    let at = line.find("le=\"").map(|at| at + 4);
    let bound = at.and_then(|at| Some((at, at + line[at..].find('"')?)));
    match bound {
        Some((start, end)) if line[start..end].ends_with(".0") => {
            format!("{}{}", &line[..end - 2], &line[end..]).into()
        }
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
# HELP build_info What.
# TYPE build_info gauge
build_info{version=\"1.0\"} 1
";
        assert_eq!(to_prometheus(open_metrics), prometheus);
    }

    #[test]
    fn what_scrapers_ask_for() {
        for (accept, expected) in [
            ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3", true),
            ("text/plain;version=0.0.4, application/openmetrics-text", true),
            ("text/plain", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(wants_open_metrics(accept), expected, "{accept}");
        }
    }
}
