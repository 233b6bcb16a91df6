use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use http::{Method, StatusCode};
use ipvs_netlink::Stats;
use kube_ipvs::{
    serve::{Counters, Limits},
    source::{Changes, kubernetes::Version},
};
use proxier::model::{Event, Family, Protocol, Service, TrafficPolicy, VirtualServerKey};
use serde_json::Value;

use crate::daemon::{Daemon, UNHURRIED, get, get_bytes, port, service, slice};

#[test]
fn metrics_port_answers_like_kube_proxy() -> Result<()> {
    let daemon = Daemon::start(&["--ipvs-scheduler=lc", "--cluster-cidr=10.244.0.0/16"])?;
    let at = |path| get(daemon.metrics, path, "");
    assert_eq!(at("/proxyMode")?.body, "ipvs");
    assert_eq!(at("/healthz")?.body, "ok");
    assert_eq!(at("/healthz?verbose")?.body, "[+]ping ok\nhealthz check passed\n");
    assert_eq!(at("/healthz/ping?verbose")?.body, "ok");
    assert!(at("/flagz")?.body.ends_with("\n\nv=2\n"));
    let statusz = at("/statusz")?.body;
    let paths = statusz.lines().find_map(|line| line.strip_prefix("Paths: ")).context("paths")?;
    for path in paths.split(' ').filter(|path| *path != "/metrics") {
        assert_eq!(at(path)?.status, 200, "{path}");
    }
    assert_eq!(at("/nothing")?.status, 404);
    let shown: Value = serde_json::from_str(&at("/configz")?.body)?;
    let shown = &shown["kubeproxy.config.k8s.io"];
    assert_eq!(shown["ipvs"]["scheduler"], "lc");
    assert_eq!(shown["clusterCIDR"], "10.244.0.0/16");
    assert_eq!(shown["mode"], "ipvs");
    assert_eq!(shown["metricsBindAddress"], daemon.metrics.to_string());
    let slis = at("/metrics/slis")?.body;
    for line in [
        r#"kubernetes_healthcheck{name="ping",type="healthz"} 1"#,
        r#"kubernetes_healthchecks_total{name="ping",status="success",type="healthz"} 4"#,
    ] {
        assert!(slis.lines().any(|found| found == line), "{line} is not in:\n{slis}");
    }
    Ok(())
}

fn stats(connections: u64) -> Stats {
    Stats { connections, packets_in: 20, packets_out: 30, bytes_in: 400, bytes_out: 500, ..Stats::default() }
}

pub(crate) fn counters(counters: &[(&str, u64)]) -> Counters {
    let key = |ip: &str| VirtualServerKey {
        address: ip.parse().expect("an address"),
        protocol: Protocol::Tcp,
        port: port(80),
    };
    counters.iter().map(|(ip, connections)| (key(ip), stats(*connections))).collect()
}

fn expect_lines(metrics: &str, lines: &[&str]) {
    for line in lines {
        assert!(metrics.lines().any(|found| found == *line), "{line} is not in:\n{metrics}");
    }
}

/// Dashboards and alerts for kube-proxy query these metrics.
#[test]
fn kube_proxy_metrics_keep_their_names_and_buckets() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    let service = service("web", "10.96.0.80");
    let slice = slice("web", &["10.244.1.1"]);
    let trigger = (Family::V4, jiff::Timestamp::now());
    let events = vec![Event::ServiceApplied(service.clone()), Event::SliceApplied(slice.clone())];
    let old = (Family::V4, jiff::Timestamp::from_second(1_000_000_000)?);
    daemon.queue(Changes { events, triggers: vec![trigger, old], ..Changes::default() });
    expect_lines(
        &daemon.scrape("", Vec::new())?.body,
        &[
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 1",
            "kubeproxy_sync_proxy_rules_service_changes_pending 1",
            r#"kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"} 0"#,
        ],
    );
    daemon.sync();
    let mut elsewhere = slice;
    elsewhere.endpoints[0].node = Some("node-2".into());
    let local = Service { internal_policy: TrafficPolicy::Local, ..service };
    daemon.events(vec![Event::ServiceApplied(local), Event::SliceApplied(elsewhere)]);
    for path in ["/healthz", "/livez", "/livez"] {
        get(daemon.health, path, "")?;
    }
    let metrics = daemon.scrape("", Vec::new())?;
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let metrics = metrics.body;
    expect_lines(
        &metrics,
        &[
            "# TYPE kubeproxy_sync_proxy_rules_duration_seconds histogram",
            r#"kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"} 2"#,
            "# TYPE kubeproxy_network_programming_duration_seconds histogram",
            r#"kubeproxy_network_programming_duration_seconds_bucket{ip_family="IPv6",le="0.25"} 0"#,
            r#"kubeproxy_network_programming_duration_seconds_bucket{ip_family="IPv4",le="+Inf"} 1"#,
            r#"kubeproxy_network_programming_duration_seconds_count{ip_family="IPv4"} 1"#,
            r#"kubeproxy_conntrack_reconciler_sync_duration_seconds_count{ip_family="IPv4"} 0"#,
            "# TYPE kubeproxy_conntrack_reconciler_deleted_entries_total counter",
            r#"kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv6"} 0"#,
            "# TYPE kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge",
            "# TYPE kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds gauge",
            "# TYPE kubeproxy_sync_proxy_rules_endpoint_changes_total counter",
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 2",
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0",
            "# TYPE kubeproxy_sync_proxy_rules_service_changes_total counter",
            "kubeproxy_sync_proxy_rules_service_changes_total 2",
            "kubeproxy_sync_proxy_rules_service_changes_pending 0",
            "# TYPE kubeproxy_sync_proxy_rules_no_local_endpoints_total gauge",
            r#"kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="internal"} 1"#,
            r#"kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="external"} 0"#,
            r#"kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family="IPv4"} 0"#,
            r#"kubeproxy_proxy_healthz_total{code="200"} 1"#,
            r#"kubeproxy_proxy_livez_total{code="200"} 2"#,
        ],
    );
    // The buckets include +Inf and kube-proxy's 0. The times depend on the machine.
    let syncs = buckets(&metrics, "kubeproxy_sync_proxy_rules_duration_seconds_bucket")?;
    assert_eq!((syncs.len(), syncs["16.384"] <= 2, syncs["+Inf"]), (15 + 1, true, 2));
    let changes = buckets(&metrics, "kubeproxy_network_programming_duration_seconds_bucket")?;
    assert_eq!((changes.len(), changes["+Inf"]), (1 + 2 + 59 + 12 + 7 + 1, 1));
    assert!(["59", "115", "300"].iter().all(|le| changes[*le] <= 1), "{changes:?}");
    Ok(())
}

/// The cumulative buckets of IPv4, by their upper bounds.
fn buckets(metrics: &str, name: &str) -> Result<BTreeMap<String, u64>> {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name)).filter(|line| line.contains("IPv4"));
    let bucket = |line: &str| {
        let (le, count) = line.strip_prefix("{ip_family=\"IPv4\",le=\"")?.split_once("\"} ")?;
        Some((le.to_owned(), count.parse().ok()?))
    };
    let found = lines.map(|line| bucket(line).context(line.to_owned())).collect::<Result<Vec<_>>>()?;
    ensure!(found.is_sorted_by_key(|(_, count)| *count), "{found:?}");
    Ok(found.into_iter().collect())
}

#[test]
fn kube_ipvs_metrics_show_state_and_service_traffic() -> Result<()> {
    let mut daemon = Daemon::start(&["--service-metrics-limit=2"])?;
    let services = [("new", "10.96.0.1", 30), ("old", "10.96.0.2", 10), ("mid", "10.96.0.3", 20)]
        .map(|(name, ip, created)| Event::ServiceApplied(Service { created, ..service(name, ip) }));
    daemon.kernel.reject = vec!["10.96.0.1:80 rr".into()];
    daemon.events(services.into_iter().chain([Event::SliceApplied(slice("old", &["10.1.1.1"]))]).collect());
    let read = counters(&[("10.96.0.1", 1), ("10.96.0.2", 2), ("10.96.0.3", 3), ("10.99.9.9", 4)]);
    // kube-proxy does not support OpenMetrics either.
    let metrics = daemon.scrape("Accept: application/openmetrics-text;version=1.0.0\r\n", read)?;
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    expect_lines(
        &metrics.body,
        &[
            concat!(r#"kube_ipvs_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
            "kube_ipvs_virtual_servers 2",
            "kube_ipvs_real_servers 1",
            "kube_ipvs_draining_endpoints 0",
            "# TYPE kube_ipvs_conntrack_entries gauge",
            "# TYPE kube_ipvs_conntrack_entries_limit gauge",
            "kube_ipvs_plan_changes_count 1",
            r#"kube_ipvs_apply_errors_total{kind="virtual-server"} 1"#,
            r#"kube_ipvs_apply_errors_total{kind="kernel"} 0"#,
            "kube_ipvs_drift_repaired_total 0",
            "kube_ipvs_service_metrics_left_out 1",
            "# TYPE process_cpu_seconds_total counter",
            "# TYPE process_resident_memory_bytes gauge",
            r#"kube_ipvs_service_connections_total{service_name="old",service_namespace="default"} 2"#,
            r#"kube_ipvs_service_connections_total{service_name="mid",service_namespace="default"} 3"#,
            r#"kube_ipvs_service_packets_total{direction="in",service_name="old",service_namespace="default"} 20"#,
            r#"kube_ipvs_service_packets_total{direction="out",service_name="old",service_namespace="default"} 30"#,
            r#"kube_ipvs_service_bytes_total{direction="in",service_name="old",service_namespace="default"} 400"#,
            r#"kube_ipvs_service_bytes_total{direction="out",service_name="old",service_namespace="default"} 500"#,
        ],
    );
    assert!(!metrics.body.contains(r#"service_name="new""#), "{}", metrics.body);
    // PromQL's `rate()` computes them.
    assert!(!metrics.body.contains("_per_second"), "{}", metrics.body);
    // While a measurement is valid, kube-ipvs does not read the kernel again.
    let metrics = daemon.scrape("", counters(&[("10.96.0.2", 99)]))?.body;
    let line = r#"kube_ipvs_service_connections_total{service_name="old",service_namespace="default"} 2"#;
    expect_lines(&metrics, &[line]);
    Ok(())
}

/// The cost of a scrape does not grow with the number of Services.
#[test]
fn scrape_queries_only_the_virtual_servers_of_services_with_metrics() -> Result<()> {
    let mut daemon = Daemon::start(&["--service-metrics-limit=2"])?;
    let services = [("new", "10.96.0.1", 30), ("old", "10.96.0.2", 10), ("mid", "10.96.0.3", 20)]
        .map(|(name, ip, created)| Event::ServiceApplied(Service { created, ..service(name, ip) }));
    daemon.events(services.into());
    for _ in 0..2 {
        daemon.scrape("", Vec::new())?;
    }
    let mut queried = daemon.ipvs.lock().queried.clone();
    queried.iter_mut().for_each(|keys| keys.sort_unstable());
    let expected: Vec<_> = counters(&[("10.96.0.2", 0), ("10.96.0.3", 0)]).into_iter().map(|(key, _)| key).collect();
    assert_eq!(queried, [expected], "the second scrape comes while the first measurement is valid");
    Ok(())
}

#[test]
fn scrape_shows_the_last_counters_while_ipvs_cannot_be_read() -> Result<()> {
    let mut daemon = Daemon::start_with(&[], Limits { measurement: Duration::ZERO, ..UNHURRIED })?;
    daemon.events(vec![Event::ServiceApplied(service("web", "10.96.0.80"))]);
    let connections = |count: u64| {
        format!(r#"kube_ipvs_service_connections_total{{service_name="web",service_namespace="default"}} {count}"#)
    };
    let mut check = |is_gone, connected, expected| {
        daemon.ipvs.lock().is_gone = is_gone;
        let metrics = daemon.scrape("", counters(&[("10.96.0.80", connected)]))?.body;
        expect_lines(&metrics, &[&connections(expected)]);
        anyhow::Ok(())
    };
    check(false, 1, 1)?;
    check(true, 2, 1)?;
    check(false, 3, 3)
}

/// The kernel still answers, and the sync loop's last answer still names most Services.
#[test]
fn scrape_shows_new_counters_although_the_sync_loop_does_not_answer() -> Result<()> {
    let mut daemon = Daemon::start_with(&[], Limits { measurement: Duration::ZERO, ..UNHURRIED })?;
    daemon.events(vec![Event::ServiceApplied(service("web", "10.96.0.80"))]);
    daemon.scrape("", counters(&[("10.96.0.80", 1)]))?;
    daemon.ipvs.lock().counters = counters(&[("10.96.0.80", 2)]);
    let at = daemon.metrics;
    let client = thread::spawn(move || get(at, "/metrics", ""));
    drop(daemon.asked()?);
    let metrics = client.join().map_err(|_| anyhow!("the client panicked"))??.body;
    let line = r#"kube_ipvs_service_connections_total{service_name="web",service_namespace="default"} 2"#;
    expect_lines(&metrics, &[line]);
    Ok(())
}

/// By default, a node of a large cluster adds fewer series than kube-proxy has.
#[test]
fn service_metrics_are_limited_by_default() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    let names: Vec<(String, String)> =
        (1..=200).map(|number| (format!("s{number:03}"), format!("10.96.1.{number}"))).collect();
    let applied = names.iter().map(|(name, ip)| Event::ServiceApplied(service(name, ip)));
    daemon.events(applied.collect());
    let read: Vec<_> = names.iter().map(|(_, ip)| (&**ip, 1)).collect();
    let metrics = daemon.scrape("", counters(&read))?.body;
    let series = metrics.lines().filter(|line| line.starts_with("kube_ipvs_service_")).count();
    assert_eq!(series, 50 * 5 + 1);
    expect_lines(&metrics, &["kube_ipvs_service_metrics_left_out 150"]);
    Ok(())
}

/// Alerts compare this with other components, so it is the cluster's version.
#[test]
fn build_info_shows_the_cluster_version() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    for version in ["v1.35.2", "v1.36.0"] {
        let (git_version, major, minor) = (version.to_owned(), "1".to_owned(), version[3..5].to_owned());
        daemon.status.serves(&Version { git_version, major, minor, ..Version::default() });
    }
    let metrics = daemon.scrape("", Vec::new())?.body;
    let lines: Vec<_> = metrics.lines().filter(|line| line.starts_with("kubernetes_build_info{")).collect();
    ensure!(lines.len() == 1, "{lines:?}");
    let start = r#"kubernetes_build_info{git_version="v1.36.0",major="1",minor="36",platform="linux/"#;
    ensure!(lines[0].starts_with(start) && lines[0].ends_with(r#""} 1"#), "{lines:?}");
    Ok(())
}

/// With the header that Prometheus sends.
#[test]
fn metrics_are_compressed_for_a_client_that_accepts_gzip() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    let plain = daemon.scrape("", Vec::new())?;
    assert_eq!(plain.header("content-encoding"), None);
    let (head, body) = daemon.answer_while(|at| get_bytes(at, "/metrics", "Accept-Encoding: gzip\r\n"))?;
    assert!(head.to_ascii_lowercase().contains("content-encoding: gzip"), "{head}");
    let text = std::io::read_to_string(flate2::read::GzDecoder::new(&*body))?;
    expect_lines(&text, &["kube_ipvs_virtual_servers 0"]);
    assert!(body.len() < plain.body.len() / 4, "{} of {} bytes", body.len(), plain.body.len());
    Ok(())
}

#[test]
fn metrics_of_services_can_be_turned_off() -> Result<()> {
    let mut daemon = Daemon::start(&["--service-metrics-limit=0"])?;
    daemon.events(vec![Event::ServiceApplied(service("web", "10.96.0.80"))]);
    let metrics = daemon.scrape("", counters(&[("10.96.0.80", 1)]))?.body;
    expect_lines(&metrics, &["kube_ipvs_virtual_servers 1", "kube_ipvs_service_metrics_left_out 0"]);
    assert!(!metrics.contains("kube_ipvs_service_connections"), "{metrics}");
    Ok(())
}

/// Dashboards and alerts for clients of the API server query the first metrics. Those of kube-ipvs query the last.
#[test]
fn contact_metrics_count_requests_and_watches() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    let contact = daemon.status.contact();
    contact.heard("services");
    contact.lost("endpointslices");
    contact.heard("nodes");
    contact.without("nodes");
    let list = "https://10.0.0.1:6443/api/v1/services?limit=1".parse()?;
    let watch = "https://10.0.0.1:6443/api/v1/services?watch=true&x=y".parse()?;
    let time = Duration::from_millis(50);
    contact.asked(&Method::GET, &list, Some(StatusCode::OK), time);
    contact.asked(&Method::GET, &list, None, time);
    contact.asked(&Method::GET, &watch, Some(StatusCode::TOO_MANY_REQUESTS), time);
    let metrics = daemon.scrape("", Vec::new())?.body;
    expect_lines(
        &metrics,
        &[
            r#"rest_client_requests_total{code="200",host="10.0.0.1:6443",method="GET"} 1"#,
            r#"rest_client_requests_total{code="<error>",host="10.0.0.1:6443",method="GET"} 1"#,
            r#"rest_client_requests_total{code="429",host="10.0.0.1:6443",method="GET"} 1"#,
            r#"rest_client_request_duration_seconds_count{host="10.0.0.1:6443",verb="GET"} 2"#,
            r#"rest_client_request_duration_seconds_bucket{host="10.0.0.1:6443",verb="GET",le="0.1"} 2"#,
            r#"kube_ipvs_watch_connected{resource="services"} 1"#,
            r#"kube_ipvs_watch_connected{resource="endpointslices"} 0"#,
        ],
    );
    assert!(!metrics.contains(r#"resource="nodes""#), "{metrics}");
    let last = r#"kube_ipvs_watch_last_contact_timestamp_seconds{resource="services"} "#;
    let last = metrics.lines().find_map(|line| line.strip_prefix(last)).context("a time")?;
    let now = jiff::Timestamp::now().as_second() as f64;
    ensure!((now - last.parse::<f64>()?).abs() < 3600.0, "{last}");
    Ok(())
}
