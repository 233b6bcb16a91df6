//! Which Kubernetes it is.

use std::{
    env::consts::{ARCH, OS},
    time::Duration,
};

use kube::Client;

/// The version of an API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// All of it, such as `v1.36.0`.
    pub git: String,
    /// Its first number.
    pub major: String,
    /// Its second number, which some vendors write as `36+`.
    pub minor: String,
}

/// This program's, as Go names it.
pub(crate) fn platform() -> String {
    let architecture = match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{OS}/{architecture}")
}

/// How often it is asked for. Alerts on versions that differ wait for longer.
const POLL_INTERVAL: Duration = Duration::from_secs(600);

/// Tells the version, and tells it again when it is another one. Without an answer it is asked for later: nothing
/// depends on it but a metric.
pub(super) async fn follow(client: &Client, patience: Duration, mut tell: impl FnMut(&Version)) {
    let mut known = None;
    loop {
        let answer = tokio::time::timeout(patience, client.apiserver_version()).await;
        if let Ok(Ok(info)) = answer {
            let version = Version { git: info.git_version, major: info.major, minor: info.minor };
            if known.as_ref() != Some(&version) {
                tell(&version);
                known = Some(version);
            }
        }
        // Nodes that start together do not go on asking together.
        tokio::time::sleep(POLL_INTERVAL.mul_f64(1.0 + fastrand::f64())).await;
    }
}
