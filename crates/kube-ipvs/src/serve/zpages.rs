//! `/statusz` and `/flagz`: pages for people that every Kubernetes component serves (`component-base/zpages`).

use std::fmt::Write;

use jiff::{Timestamp, tz::TimeZone};

fn head(what: &str) -> String {
    format!("\nkube-proxy {what}\nWarning: this page is for people. Its format can change at any time.\n\n")
}

pub(super) fn statusz(started: Timestamp, now: Timestamp, paths: &[&str]) -> String {
    let up = now.duration_since(started).as_secs().max(0);
    let (hours, minutes, seconds) = (up / 3600, up / 60 % 60, up % 60);
    format!(
        "{}Started: {}\nUp: {hours} hr {minutes:02} min {seconds:02} sec\nBinary version: {}\nPaths: {}\n",
        head("statusz"),
        started.to_zoned(TimeZone::UTC).strftime("%a %b %e %H:%M:%S UTC %Y"),
        concat!("kube-ipvs ", env!("CARGO_PKG_VERSION")),
        paths.join(" "),
    )
}

pub(super) fn flagz(flags: &[(String, String)]) -> String {
    let mut sorted: Vec<_> = flags.iter().collect();
    sorted.sort();
    sorted.into_iter().fold(head("flags"), |mut page, (name, value)| {
        let _ = writeln!(page, "{name}={value}");
        page
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn statusz_and_flagz_follow_the_zpages_format() {
        let started = Timestamp::UNIX_EPOCH;
        let page = statusz(started, Timestamp::from_second(3723).unwrap(), &["/configz", "/metrics"]);
        let page = page.replace(env!("CARGO_PKG_VERSION"), "VERSION");
        expect![[r#"

            kube-proxy statusz
            Warning: this page is for people. Its format can change at any time.

            Started: Thu Jan  1 00:00:00 UTC 1970
            Up: 1 hr 02 min 03 sec
            Binary version: kube-ipvs VERSION
            Paths: /configz /metrics
        "#]]
        .assert_eq(&page);
        let flags = [("v", "2"), ("cluster-cidr", "10.244.0.0/16")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        expect![[r#"

            kube-proxy flags
            Warning: this page is for people. Its format can change at any time.

            cluster-cidr=10.244.0.0/16
            v=2
        "#]]
        .assert_eq(&flagz(&flags));
    }
}
