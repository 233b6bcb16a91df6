//! Flags and fields of older kube-proxy releases that current ones reject. kube-ipvs accepts them with a warning that
//! names the successor. A flag without effect must not leave a node without Services.

use clap::{ArgMatches, Command};
use serde_json::Value;

use super::without_effect;

const LOG: &str = "kube-ipvs logs to standard error; --logging-format and --v say how";
const USERSPACE: &str = "only kube-proxy's former userspace mode used it";
const WINDOWS: &str = "only kube-proxy on Windows uses it";
const CLOUD: &str = "kube-proxy never used it";

const FLAGS: [(&str, &str); 16] = [
    ("azure-container-registry-config", CLOUD),
    ("cloud-provider-gce-l7lb-src-cidrs", CLOUD),
    ("cloud-provider-gce-lb-src-cidrs", CLOUD),
    ("conntrack-max", "use --conntrack-max-per-core and --conntrack-min"),
    ("google-json-key", CLOUD),
    ("log-backtrace-at", LOG),
    ("log-dir", LOG),
    ("log-file", LOG),
    ("log-file-max-size", LOG),
    ("network-name", WINDOWS),
    ("proxy-port-range", USERSPACE),
    ("resource-container", "the container runtime places the process in its cgroup"),
    ("root-hnsendpoint-name", WINDOWS),
    ("source-vip", WINDOWS),
    ("stderrthreshold", LOG),
    ("udp-timeout", USERSPACE),
];

const SWITCHES: [(&str, &str); 11] = [
    ("add-dir-header", LOG),
    ("alsologtostderr", LOG),
    ("cleanup-iptables", "use --cleanup"),
    ("cleanup-ipvs", "use --cleanup"),
    ("enable-dsr", WINDOWS),
    ("forward-healthcheck-vip", WINDOWS),
    ("logtostderr", LOG),
    ("one-output", LOG),
    ("skip-headers", LOG),
    ("skip-log-headers", LOG),
    ("windows-service", WINDOWS),
];

const FIELDS: [(&[&str], &str); 3] = [
    (&["conntrack", "max"], "use conntrack.maxPerCore and conntrack.min"),
    (&["resourceContainer"], "the container runtime places the process in its cgroup"),
    (&["udpIdleTimeout"], USERSPACE),
];

pub(super) fn augment(command: Command) -> Command {
    without_effect::hidden(command, FLAGS.map(|(name, _)| name), SWITCHES.map(|(name, _)| name))
}

pub(super) fn given(matches: &ArgMatches) -> Vec<String> {
    let given = FLAGS.iter().chain(&SWITCHES).filter(|(name, _)| without_effect::is_given(matches, name));
    given.map(|(name, instead)| format!("--{name} has no effect: {instead}")).collect()
}

/// Removes retired fields from the file. Returns a warning for each one that is set.
pub(super) fn take(file: &mut Value) -> Vec<String> {
    let take = |(path, instead): &(&[&str], &str)| {
        let name = without_effect::take_field(file, path)?;
        Some(format!("{name} has no effect: {instead}"))
    };
    FIELDS.iter().filter_map(take).collect()
}
