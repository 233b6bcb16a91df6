//! The verdicts of `docs/drop-in-surface.md` about metrics and paths.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, ensure};
use http::{Method, StatusCode};
use kube_ipvs::source::kubernetes::Version;
use proxier::model::Event;

use crate::daemon::{Daemon, get, service, slice};

/// The names in the table whose first column is `kind`, and whether their verdict says that kube-ipvs has them.
fn rows(kind: &str) -> Result<Vec<(String, bool)>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/drop-in-surface.md");
    let page = fs::read_to_string(path)?;
    let head = format!("| {kind} |");
    let table = page.lines().skip_while(|line| !line.starts_with(&head)).skip(2);
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        (cells[1].trim_matches('`').to_owned(), cells[3].starts_with("same"))
    };
    let rows: Vec<_> = table.take_while(|line| line.starts_with('|')).map(row).collect();
    ensure!(rows.len() > 10, "only {} rows of {kind}", rows.len());
    Ok(rows)
}

#[test]
fn metrics_have_their_verdicts() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    daemon.events(vec![
        Event::ServiceApplied(service("web", "10.96.0.80")),
        Event::SliceApplied(slice("web", &["10.244.1.1"])),
    ]);
    // Each of these metrics has a series from its first event on.
    daemon.status.serves(&Version {
        git_version: "v1.36.0".into(),
        major: "1".into(),
        minor: "36".into(),
        ..Version::default()
    });
    let list = "https://10.0.0.1:6443/api/v1/services?limit=1".parse()?;
    daemon.status.contact().asked(&Method::GET, &list, Some(StatusCode::OK), Duration::from_millis(50));
    for path in ["/healthz", "/livez"] {
        get(daemon.health, path, "")?;
    }
    get(daemon.metrics, "/healthz", "")?;
    let shown = daemon.scrape("", Vec::new())?.body + &get(daemon.metrics, "/metrics/slis", "")?.body;
    let has = |name: &str| {
        let head = format!("# TYPE {}", name.trim_end_matches('*'));
        let end = if name.ends_with('*') { "" } else { " " };
        shown.lines().any(|line| line.strip_prefix(&*head).is_some_and(|rest| rest.starts_with(end)))
    };
    for (name, is_there) in rows("metric")? {
        ensure!(has(&name) == is_there, "{name}: the page says {is_there}, of:\n{shown}");
    }
    Ok(())
}

#[test]
fn paths_have_their_verdicts() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    for (name, is_there) in rows("path")? {
        let status = match name.split_at(name.find('/').unwrap_or(name.len())) {
            (":10249", "/metrics") => daemon.scrape("", Vec::new())?.status,
            (":10249", path) => get(daemon.metrics, path, "")?.status,
            (":10256", path) => get(daemon.health, path, "")?.status,
            // checks.rs has the tests of these ports.
            (":healthCheckNodePort", _) => continue,
            (port, _) => anyhow::bail!("the port {port} is unknown"),
        };
        ensure!((status != 404) == is_there, "{name}: the page says {is_there}, and the answer is {status}");
    }
    Ok(())
}
