//! Flags and fields of kube-proxy that have no effect in kube-ipvs. kube-ipvs accepts them and reports them once.

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};
use serde_json::Value;

const FLAGS: [&str; 10] = [
    "boot-id-file",
    "config-sync-period",
    "iptables-min-sync-period",
    "iptables-sync-period",
    "log-flush-frequency",
    "log-json-info-buffer-size",
    "log-text-info-buffer-size",
    "machine-id-file",
    "show-hidden-metrics-for-version",
    "vmodule",
];

const SWITCHES: [&str; 4] =
    ["iptables-localhost-nodeports", "log-json-split-stream", "log-text-split-stream", "profiling"];

const FIELDS: [&[&str]; 15] = [
    &["clientConnection", "acceptContentTypes"],
    &["configSyncPeriod"],
    &["enableProfiling"],
    &["iptables", "localhostNodePorts"],
    &["iptables", "minSyncPeriod"],
    &["iptables", "snatNodeInternalIP"],
    &["iptables", "syncPeriod"],
    &["logging", "flushFrequency"],
    &["logging", "options"],
    &["logging", "vmodule"],
    &["nftables"],
    &["portRange"],
    &["showHiddenMetricsForVersion"],
    &["windowsRunAsService"],
    &["winkernel"],
];

pub(super) fn augment(command: Command) -> Command {
    hidden(command, FLAGS, SWITCHES)
}

pub(super) fn hidden<const F: usize, const S: usize>(
    command: Command,
    flags: [&'static str; F],
    switches: [&'static str; S],
) -> Command {
    let flag = |name| Arg::new(name).long(name).action(ArgAction::Append).hide(true);
    let switches = switches.map(|name| flag(name).num_args(0..=1).require_equals(true));
    command.args(flags.map(flag)).args(switches)
}

pub(super) fn given(matches: &ArgMatches) -> Vec<String> {
    let given = FLAGS.into_iter().chain(SWITCHES).filter(|name| is_given(matches, name));
    given.map(|name| format!("--{name}")).collect()
}

pub(super) fn is_given(matches: &ArgMatches, flag: &str) -> bool {
    matches.value_source(flag) == Some(ValueSource::CommandLine)
}

pub(super) fn take(file: &mut Value) -> Vec<String> {
    FIELDS.iter().filter_map(|path| take_field(file, path)).collect()
}

/// Removes a field from the file. Returns its name if it is set.
pub(super) fn take_field(file: &mut Value, path: &[&str]) -> Option<String> {
    let (last, parents) = path.split_last()?;
    let parent = parents.iter().try_fold(file, |value, key| value.get_mut(key))?;
    let value = parent.as_object_mut()?.remove(*last)?;
    (!is_zero_value(&value)).then(|| path.join("."))
}

/// Whether a tool that writes every field out writes this value for an unset one.
fn is_zero_value(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(text.as_str(), "" | "0" | "0s"),
        Value::Array(items) => items.iter().all(is_zero_value),
        Value::Object(fields) => fields.values().all(is_zero_value),
    }
}
