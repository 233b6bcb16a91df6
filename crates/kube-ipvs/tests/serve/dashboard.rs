//! The project's dashboard and alerts query metrics that exist.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Result, ensure};
use proxier::model::Event;
use serde_json::Value;

use crate::{
    daemon::{Daemon, service, slice},
    metrics::counters,
};

fn texts<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(list) => list.iter().for_each(|value| texts(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| texts(value, found)),
        _ => {}
    }
}

fn asked<'a>(all: &[&'a str]) -> BTreeSet<&'a str> {
    let words = all.iter().flat_map(|text| text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')));
    words
        .filter(|word| ["kube_ipvs_", "kubeproxy_", "process_"].iter().any(|prefix| word.starts_with(prefix)))
        .collect()
}

#[test]
fn dashboard_and_alerts_query_only_existing_metrics() -> Result<()> {
    let of_project = |name: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name));
    let dashboard: Value = serde_json::from_str(&of_project("manifests/dashboard.json")?)?;
    let alerts = of_project("charts/kube-ipvs/templates/prometheusrule.yaml")?;
    let mut all = Vec::new();
    texts(&dashboard, &mut all);
    let (of_dashboard, of_alerts) = (asked(&all), asked(&[&alerts]));
    ensure!(of_dashboard.len() > 10, "only {of_dashboard:?} are asked for");
    ensure!(of_alerts.len() > 4, "only {of_alerts:?} are asked for");
    let asked = &of_dashboard | &of_alerts;
    let mut daemon = Daemon::start(&[])?;
    let applied =
        [Event::ServiceApplied(service("web", "10.96.0.80")), Event::SliceApplied(slice("web", &["10.244.1.1"]))];
    daemon.events(applied.into());
    daemon.status.contact().heard("services");
    let metrics = daemon.scrape("", counters(&[("10.96.0.80", 5)]))?.body;
    let is_there = |name: &&&str| {
        let mut rests = metrics.lines().filter_map(|line| line.strip_prefix(**name));
        rests.any(|rest| rest.starts_with(['{', ' ']))
    };
    let missing: Vec<_> = asked.iter().filter(|name| !is_there(name)).collect();
    ensure!(missing.is_empty(), "{missing:?} are not in:\n{metrics}");
    Ok(())
}
