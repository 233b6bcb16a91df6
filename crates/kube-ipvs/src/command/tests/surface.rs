//! The verdicts of `docs/drop-in-surface.md` about flags, fields and feature gates.

use std::{fs, path::Path, sync::LazyLock};

use clap::error::ErrorKind;
use serde_json::{Value, json};

use crate::{
    command::drop_in::DropIn,
    config::{Configuration, File, read},
};

/// Their only valid value is the default, or they do not change the configuration.
const WITHOUT_TRACE: [&str; 8] =
    ["--cleanup", "--config", "--help", "--init-only", "--proxy-mode", "--version", "--write-config-to", "mode"];

/// Without effect, and not reported: installers write them out.
const UNREPORTED: [&str; 2] = ["--kube-api-content-type", "clientConnection.contentType"];

struct Row {
    name: String,
    verdict: String,
}

/// The rows of the table whose first column is `kind`.
fn rows(kind: &str) -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/drop-in-surface.md");
    let page = fs::read_to_string(path).unwrap();
    let head = format!("| {kind} |");
    let table = page.lines().skip_while(|line| !line.starts_with(&head)).skip(2);
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        Row { name: cells[1].trim_matches('`').into(), verdict: cells[3].into() }
    };
    let rows: Vec<Row> = table.take_while(|line| line.starts_with('|')).map(row).collect();
    assert!(rows.len() > 10, "only {} rows of {kind}", rows.len());
    rows
}

/// The result of one value.
#[derive(Debug, PartialEq)]
enum Outcome {
    Effect,
    /// Accepted. The configuration is the default.
    NoTrace,
    /// Accepted and reported as without effect.
    WithoutEffect,
    Rejected(String),
}

static DEFAULT: LazyLock<Configuration> = LazyLock::new(Configuration::default);

fn outcome(configuration: &Configuration, is_reported: bool) -> Outcome {
    match is_reported {
        true => Outcome::WithoutEffect,
        false if *configuration == *DEFAULT => Outcome::NoTrace,
        false => Outcome::Effect,
    }
}

/// Whether the verdict is true. `outcomes` are those of all values, and at least one of the values is valid.
fn holds(Row { name, verdict }: &Row, outcomes: &[Outcome]) -> bool {
    let has = |outcome| outcomes.contains(&outcome);
    let rejected = |with: &str| {
        let is_rejected = |outcome: &Outcome| matches!(outcome, Outcome::Rejected(error) if error.contains(with));
        outcomes.iter().all(is_rejected)
    };
    match &**verdict {
        "same" | "same, other default" => {
            has(Outcome::Effect) || WITHOUT_TRACE.contains(&&**name) && has(Outcome::NoTrace)
        }
        "accepted without effect" => {
            has(Outcome::WithoutEffect) || UNREPORTED.contains(&&**name) && has(Outcome::Effect)
        }
        "rejected with a reason" => rejected(name),
        "missing" => rejected(""),
        "not applicable" => true,
        _ => false,
    }
}

fn check(kind: &str, outcomes: impl Fn(&str) -> Vec<Outcome>) {
    let wrong = rows(kind).into_iter().filter_map(|row| {
        let outcomes = outcomes(&row.name);
        (!holds(&row, &outcomes)).then(|| format!("{} is not {:?}: {outcomes:?}\n", row.name, row.verdict))
    });
    assert_eq!(wrong.collect::<String>(), "");
}

/// Starts `kube-proxy` with one flag. `reported` is its name among those without effect.
fn by_flag(flag: &str, reported: &str) -> Outcome {
    let options = match DropIn::from_arguments(["kube-proxy".into(), flag.into()]) {
        Ok(parsed) => parsed.run.options,
        Err(error) if [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion].contains(&error.kind()) => {
            return Outcome::NoTrace;
        }
        Err(error) => return Outcome::Rejected(error.to_string()),
    };
    match options.resolve() {
        Ok(loaded) => outcome(&loaded.configuration, loaded.without_effect.iter().any(|name| name == reported)),
        // These values name no file.
        Err(_) if options.has_file() => Outcome::NoTrace,
        Err(error) => Outcome::Rejected(format!("{error:#}")),
    }
}

#[test]
fn flags_have_their_verdicts() {
    const VALUES: [&str; 11] = [
        "",
        "=true",
        "=7",
        "=7s",
        "=10.0.0.7",
        "=10.0.0.0/8",
        "=NodeCIDR",
        "=lc",
        "=json",
        "=ipvs",
        "=AllowServiceExternalIPs=false",
    ];
    check("flag", |flag| VALUES.map(|value| by_flag(&format!("{flag}{value}"), flag)).into());
}

#[test]
fn gates_have_their_verdicts() {
    check("gate", |gate| {
        let outcome = |value| by_flag(&format!("--feature-gates={gate}={value}"), &format!("the feature gate {gate}"));
        [true, false].map(outcome).into()
    });
}

/// Reads a file with this field alone.
fn by_field(path: &str, value: Value) -> Outcome {
    let nest = |value, key: &str| Value::Object([(key.to_owned(), value)].into_iter().collect());
    let mut file = path.rsplit('.').fold(value, nest);
    file["apiVersion"] = "kubeproxy.config.k8s.io/v1alpha1".into();
    file["kind"] = "KubeProxyConfiguration".into();
    match read(&file.to_string()) {
        Ok(File { configuration, unknown, without_effect, .. }) if unknown.is_empty() => {
            let covers = |name: &String| {
                path.strip_prefix(&**name).is_some_and(|rest| matches!(rest.as_bytes(), [] | [b'.', ..]))
            };
            outcome(&configuration, without_effect.iter().any(covers))
        }
        Ok(File { unknown, .. }) => Outcome::Rejected(format!("unknown: {}", unknown.join(", "))),
        Err(error) => Outcome::Rejected(error),
    }
}

#[test]
fn fields_have_their_verdicts() {
    let values = [
        json!(true),
        json!(7),
        json!("7s"),
        json!("10.0.0.7"),
        json!("10.0.0.0/8"),
        json!(["10.0.0.0/8"]),
        json!("NodeCIDR"),
        json!("lc"),
        json!("json"),
        json!("ipvs"),
        json!({"AllowServiceExternalIPs": false}),
    ];
    check("field", |path| values.iter().map(|value| by_field(path, value.clone())).collect());
}

#[test]
fn false_verdict_is_found() {
    let row = |name: &str, verdict: &str| Row { name: name.into(), verdict: verdict.into() };
    let rejected = || Outcome::Rejected("unexpected argument '--gone'".into());
    for (name, verdict, outcomes) in [
        ("--gone", "same", vec![rejected()]),
        ("--gone", "accepted without effect", vec![Outcome::Effect, rejected()]),
        ("--gone", "missing", vec![Outcome::NoTrace]),
        ("--other", "rejected with a reason", vec![rejected()]),
        ("--gone", "good", vec![Outcome::Effect]),
    ] {
        assert!(!holds(&row(name, verdict), &outcomes), "{name} {verdict}");
    }
    assert!(holds(&row("--gone", "rejected with a reason"), &[rejected()]));
    assert!(holds(&row("--gone", "missing"), &[rejected()]));
}
